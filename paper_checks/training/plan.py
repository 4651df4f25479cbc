"""Which runs the protocol asks for: those to tune with, what is chosen, those to test.

A trial is a run of a task: a variant of a schedule at a base rate, with a seed, on the validation
or on the test set. What is chosen depends on the tuning runs' errors alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from paper_checks.training.config import Config
from paper_checks.training.schedules import SCHEDULES, Settings
from paper_checks.training.tasks import FIRST_SEED, FIRST_TUNING_SEED, Task

Part = Literal["validation", "test"]
Arm = Literal["guess", "rate", "tuned", "factor"]
Errors = Mapping["tuple[Variant, float]", Sequence[float]]

_ABLATION_SEEDS = 4
# Tables 7–15: one at a time; the window in parts of an epoch.
_BUFFERS, _WINDOWS = (5, 20, 30, 50), (1 / 12, 1 / 3, 2 / 3)


@dataclass(frozen=True)
class Variant:
    """A schedule with settings in place of its recommended ones; factor, window: of AutoDrop."""

    schedule: str
    settings: Settings = ()
    factor: float | None = None
    window: int | None = None

    @property
    def name(self) -> str:
        """In one word, the same for equal variants only."""
        pairs = [*self.settings]
        pairs += [("factor", self.factor)] if self.factor is not None else []
        pairs += [("window", self.window)] if self.window is not None else []
        return self.schedule + "".join(f" {name}={value:g}" for name, value in pairs)


@dataclass(frozen=True)
class Trial:
    """One run: what decides it."""

    task: str
    part: Part
    variant: Variant
    config: Config

    def key(self, fingerprint: str) -> str:
        """A file name that differs wherever the config or the data do."""
        text = json.dumps([asdict(self.config), fingerprint], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.variant.name.replace(" ", "_")
        c = self.config
        return f"{self.task}-{self.part}-{name}-{c.learning_rate:g}-{c.seed}-{digest}"


@dataclass(frozen=True)
class Choice:
    """What tuning chose: the variant, its rate, and whether that is an end of the ladder."""

    variant: Variant
    rate: float
    at_end: bool


def trial(task: Task, part: Part, variant: Variant, rate: float, seed: int) -> Trial:
    """The run of a variant of a schedule on a task."""
    config = replace(
        task.config, schedule=variant.schedule, settings=variant.settings, factor=variant.factor,
        window=variant.window, learning_rate=rate, seed=seed,
        evaluate="test" if part == "test" else "end",
    )  # fmt: skip
    return Trial(task.name, part, variant, config)


def schedules_of(task: Task, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """The schedules that work with the task's optimizer, of `names` or of all."""
    wanted = SCHEDULES if names is None else names
    return tuple(name for name in wanted if task.config.optimizer in SCHEDULES[name].only)


def variants(task: Task, schedules: Sequence[str]) -> tuple[Variant, ...]:
    """What tuning tries: recommended settings, and the others where the task asks for them."""
    found = []
    for name in schedules:
        found.append(Variant(name))
        if task.tuned:
            found += [Variant(name, settings) for settings in SCHEDULES[name].also]
    if "autodrop" in schedules:
        default = 0.95  # the same runs as without a factor
        found += [Variant("autodrop", factor=ρ) for ρ in task.factors if ρ != default]
    return tuple(found)


def scaled(task: Task, schedule: str, rates: Iterable[float]) -> tuple[float, ...]:
    """Rates of the task as the schedule takes them, see `schedules.Entry`."""
    scale = SCHEDULES[schedule].scale.get(task.config.optimizer, 1.0)
    return tuple(float(f"{scale * rate:g}") for rate in rates)


def guess(task: Task, schedule: str) -> float:
    """The first guess of the rate."""
    return scaled(task, schedule, [task.guess])[0]


def to_tune(task: Task, schedules: Sequence[str], seeds: int | None = None) -> tuple[Trial, ...]:
    """The runs on the validation set to begin with; seeds: at most so many of the task's."""
    return tuple(
        tried
        for variant in variants(task, schedules)
        for rate in scaled(task, variant.schedule, task.rates)
        for tried in _tried(task, variant, rate, seeds)
    )


def to_tune_on(
    task: Task, schedules: Sequence[str], errors: Errors, seeds: int | None = None
) -> tuple[Trial, ...]:
    """What to try next: where the best rate so far is an end of those tried, the one beyond it.

    Nothing if each variant's best rate lies between two others or at an end of the ladder.
    """
    found: list[Trial] = []
    for variant in variants(task, schedules):
        ladder = scaled(task, variant.schedule, task.ladder)
        tried = [rate for rate in ladder if (variant, rate) in errors]
        at = ladder.index(_best(errors, [(variant, rate) for rate in tried])[1])
        beyond = [i for i in (at - 1, at + 1) if 0 <= i < len(ladder) and ladder[i] not in tried]
        for i in beyond:
            found += _tried(task, variant, ladder[i], seeds)
    return tuple(found)


def choose(task: Task, schedules: Sequence[str], errors: Errors) -> dict[str, dict[Arm, Choice]]:
    """For each schedule and arm what is tested, by the least mean validation error.

    errors: final validation errors of each (variant, rate). Ties go to the smaller rate, then to
    the variant that comes first. Raises KeyError for a variant without any.
    """
    all_variants = variants(task, schedules)
    chosen: dict[str, dict[Arm, Choice]] = {}
    for name in schedules:
        ladder = scaled(task, name, task.ladder)

        def best(among: Sequence[Variant], ladder: tuple[float, ...] = ladder) -> Choice:
            for variant in among:
                if not any((variant, rate) in errors for rate in ladder):
                    raise KeyError(f"no validation errors of {variant.name} on {task.name}")
            pairs = [(v, rate) for rate in ladder for v in among if (v, rate) in errors]
            variant, rate = _best(errors, pairs)
            return Choice(variant, rate, rate in (ladder[0], ladder[-1]))

        plain = Variant(name)
        arms: dict[Arm, Choice] = {
            "guess": Choice(plain, guess(task, name), False),
            "rate": best([plain]),
        }
        if task.tuned:
            arms["tuned"] = best([v for v in _listed(all_variants, name) if v.factor is None])
        if name == "autodrop" and task.factors:
            arms["factor"] = best([v for v in _listed(all_variants, name) if not v.settings])
        chosen[name] = arms
    return chosen


def to_test(
    task: Task, chosen: Mapping[str, Mapping[Arm, Choice]], seeds: int | None = None
) -> tuple[Trial, ...]:
    """The runs on the test set, each once: all arms, and the ablation."""
    count = task.seeds if seeds is None else seeds
    wanted = dict.fromkeys(
        (choice.variant, choice.rate) for arms in chosen.values() for choice in arms.values()
    )
    trials = {
        trial(task, "test", variant, rate, FIRST_SEED + i): None
        for variant, rate in wanted
        for i in range(count)
    }
    if task.ablation and "autodrop" in chosen:
        for variant in ablation(task):
            for i in range(min(count, _ABLATION_SEEDS)):
                trials[trial(task, "test", variant, task.guess, FIRST_SEED + i)] = None
    return tuple(trials)


def ablation(task: Task) -> tuple[Variant, ...]:
    """AutoDrop's default, and with ρ, m or the window in place of the default, one at a time."""
    epoch = -(-_training_samples(task) // task.config.batch_size)
    windows = [max(1, round(part * epoch)) for part in _WINDOWS]
    return (
        Variant("autodrop"),
        *(Variant("autodrop", factor=ρ) for ρ in task.factors if ρ != 0.95),
        *(Variant("autodrop", (("buffer", m),)) for m in _BUFFERS),
        *(Variant("autodrop", window=k) for k in windows),
    )


def _tried(task: Task, variant: Variant, rate: float, seeds: int | None) -> tuple[Trial, ...]:
    count = task.tuning if seeds is None else min(seeds, task.tuning)
    return tuple(
        trial(task, "validation", variant, rate, FIRST_TUNING_SEED + i) for i in range(count)
    )


def _best(errors: Errors, pairs: Sequence[tuple[Variant, float]]) -> tuple[Variant, float]:
    """The pair with the least mean error; of equals the first.

    One wrong sample is far more than 1e-9, and equal sums of percentages may differ in rounding.
    """
    return min(pairs, key=lambda pair: round(float(np.mean(errors[pair])), 9))


def _listed(tried: Iterable[Variant], schedule: str) -> list[Variant]:
    return [variant for variant in tried if variant.schedule == schedule]


def _training_samples(task: Task) -> int:
    return len(task.data()[1].train_x)
