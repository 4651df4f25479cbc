"""From outcomes to the score table: regrets at one setting, at the best single one, and tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paper_checks.testbed.work import CLAIMED
from theory.testbed import scores
from theory.testbed.bench import Outcome, open_loop_names
from theory.testbed.open_loop import SHAPES
from theory.testbed.roster import ROSTER
from theory.testbed.scores import Regrets, Summary

__all__ = ["Group", "Row", "groups", "score", "violations"]

TUNED, HELD_OUT = "tuned spectra", "held-out spectra"


@dataclass(frozen=True)
class Group:
    """Instances that are summarised together: their regrets by setting."""

    name: str
    instances: tuple[str, ...]
    horizons: tuple[int, ...]
    regrets: dict[str, list[Regrets]]  # setting -> one for each instance

    def summary(self, setting: str) -> Summary:
        """Over all instances and horizons."""
        return scores.summarise(self.regrets[setting])

    def by_horizon(self, setting: str) -> list[Summary]:
        """One for each horizon."""
        return [
            scores.summarise([each.at(h) for each in self.regrets[setting]])
            for h in range(len(self.horizons))
        ]

    def tuned(self, settings: Sequence[str]) -> Summary:
        """With the setting that has the least mean regret on each instance.

        A little optimistic: chosen on the trajectories that it is judged by.
        """
        best = []
        for i in range(len(self.instances)):
            choices = [self.regrets[each][i] for each in settings]
            best.append(min(choices, key=lambda each: float(np.log(each.value).mean())))
        return scores.summarise(best)


def groups(outcomes: Sequence[Outcome]) -> dict[str, Group]:
    """By what is reported apart: plain SGD on tuned and held-out spectra, each momentum, the rest.

    Instances are in the order of their names, whatever the order in which they were finished.
    """
    found: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda each: each.instance):
        found.setdefault(_group_name(outcome), []).append(outcome)
    return {name: _group(name, members) for name, members in sorted(found.items())}


def _group_name(outcome: Outcome) -> str:
    if outcome.spectrum == "real data":
        return "real data"
    if outcome.oracle.kind != "oracle":
        return "multiplicative noise"
    if outcome.method != "sgd":
        return outcome.method
    return HELD_OUT if outcome.held_out else TUNED


def _group(name: str, members: Sequence[Outcome]) -> Group:
    regrets: dict[str, list[Regrets]] = {}
    for seed, outcome in enumerate(members):
        oracle = np.array(outcome.oracle.risks)
        for contender, risk in zip(outcome.contenders, outcome.risk, strict=True):
            regrets.setdefault(contender, []).append(scores.regrets(risk, oracle, seed))
        for label, risk in zip(open_loop_names(), outcome.open_loop, strict=True):
            regrets.setdefault(label, []).append(Regrets.exact(risk / oracle))
    return Group(name, tuple(m.instance for m in members), members[0].horizons, regrets)


@dataclass(frozen=True)
class Row:
    """A rule or a family of schedules.

    settings: all; recommended: that of its source; best: the one with the least geometric mean of
    regrets on the tuned spectra.
    """

    name: str
    settings: tuple[str, ...]
    recommended: str
    best: str
    open_loop: bool
    knows_horizon: bool
    control: bool


def rows(found: dict[str, Group]) -> tuple[Row, ...]:
    """Of all families, rules first."""
    tuning = found[TUNED]

    def best(settings: tuple[str, ...]) -> str:
        return min(settings, key=lambda each: tuning.summary(each).geometric.value)

    made = []
    for family in ROSTER:
        names = tuple(each.name for each in family.settings)
        made.append(Row(family.name, names, names[0], best(names), False, False, family.control))
    for shape in SHAPES:
        names = tuple(shape.label(p) for p in shape.grid)
        made.append(
            Row(
                f"{shape.name} (open loop)",
                names,
                shape.label(shape.recommended),
                best(names),
                True,
                shape.knows_horizon,
                False,
            )
        )
    return tuple(made)


def violations(outcomes: Sequence[Outcome]) -> list[str]:
    """Contenders whose regret lies below 1, by more than its interval: none may.

    Where the oracle is one.  It bounds what schedules fixed beforehand reach, see `theory.oracle`.
    """
    found = []
    for outcome in outcomes:
        if outcome.oracle.kind != "oracle":
            continue
        oracle = np.array(outcome.oracle.risks)
        for contender, risk in zip(outcome.contenders, outcome.risk, strict=True):
            below = scores.regrets(risk, oracle, 0).below(1.0)
            found += [
                f"{contender} on {outcome.instance}, {outcome.method}, T = {T}"
                for T, bad in zip(outcome.horizons, below, strict=True)
                if bad
            ]
        for label, risk in zip(open_loop_names(), outcome.open_loop, strict=True):
            found += [
                f"{label} on {outcome.instance}, {outcome.method}, T = {T}"
                for T, bad in zip(outcome.horizons, risk < oracle * (1 - 1e-9), strict=True)
                if bad
            ]
    return sorted(found)


def score(results: dict[str, Any]) -> dict[str, Any]:
    """The whole result as plain numbers, for results.json; `results` by the name of the task."""
    outcomes = [each for each in results.values() if isinstance(each, Outcome)]
    found = groups(outcomes)
    slopes = {each.name: each for each in results["equivariance"]}
    leaks = results["audit"]["leaks"]
    walks = {each.name: each for each in results["audit"]["false_drops"]}
    timings = _timings(outcomes)
    wrong = results["audit"]["miscalibrated"]
    table = []
    for row in rows(found):
        entry: dict[str, Any] = asdict(row) | {"groups": {}, "by_setting": {}}
        for name, group in found.items():
            entry["groups"][name] = {
                "recommended": asdict(group.summary(row.recommended)),
                "best": asdict(group.summary(row.best)),
                "tuned": asdict(group.tuned(row.settings)),
                "horizons": list(group.horizons),
                "by_horizon": [asdict(each) for each in group.by_horizon(row.best)],
            }
            entry["by_setting"][name] = {each: asdict(group.summary(each)) for each in row.settings}
        if not row.open_loop:
            entry["senses"] = {
                each: {
                    "slope": slopes[each].slope,
                    "slope_interval": slopes[each].interval,
                    "drop_times": slopes[each].times.tolist(),
                    "leak": leaks[each],
                    "false_drops_per_stage": walks[each].per_stage,
                    **timings.get(each, {}),
                }
                for each in row.settings
            }
        table.append(entry)
    return {
        "rows": table,
        "controls": {
            "leak of the rule that peeks": results["audit"]["peeker"],
            "claimed level": CLAIMED,
            "level of the miscalibrated rule": wrong.per_test,
            "miscalibration exposed": wrong.exceeds(CLAIMED, per="test"),
        },
        "below_the_oracle": violations(outcomes),
        "instances": [
            {
                "name": each.instance,
                "method": each.method,
                "held_out": each.held_out,
                "horizons": each.horizons,
                "oracle": each.oracle.risks,
                "lower_bound": each.oracle.lower_bounds,
                "kind": each.oracle.kind,
                "regret": {
                    name: (risk.mean(axis=0) / np.array(each.oracle.risks)).tolist()
                    for name, risk in zip(each.contenders, each.risk, strict=True)
                },
            }
            for each in sorted(outcomes, key=lambda each: (each.instance, each.method))
        ],
    }


def _timings(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Means over instances of drops and premature ones, and the median of delays."""
    found: dict[str, list[Any]] = {}
    for outcome in sorted(outcomes, key=lambda each: each.instance):
        for name, timing in zip(outcome.contenders, outcome.timings, strict=False):
            found.setdefault(name, []).append(timing)
    return {
        name: {
            "drops": float(np.mean([each.drops for each in all_of])),
            "premature": _mean([each.premature for each in all_of]),
            "late": _median([each.late for each in all_of]),
        }
        for name, all_of in found.items()
    }


def _mean(values: list[float]) -> float:
    known = [each for each in values if not np.isnan(each)]
    return float(np.mean(known)) if known else float("nan")


def _median(values: list[float]) -> float:
    known = [each for each in values if not np.isnan(each)]
    return float(np.median(known)) if known else float("nan")
