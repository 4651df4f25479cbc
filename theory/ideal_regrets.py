"""What the rules of `theory.ideal_rules` reach, over what the oracles of `theory.oracle` do.

The regret is E f(x_T) of the realised schedule over that of the best schedule for this T under the
same cap of the rates.  A family of rules is judged twice: by the best of its settings for each
problem and horizon, and by the one setting that is best for all of them together.  The first is no
rule at all, since whoever tunes has seen the horizon; the second is what a user could have.

Source: schedules held against the best one on the noisy quadratic, Wu, Ren, Liao and Grosse, ICLR
2018; rules that see expectations: derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.final_risk import final_risk
from theory.ideal_rules import AngleAtLimit, Clock, IdealRule, RiskAtFloor, Stages, Window, realised
from theory.methods import UnifiedMomentum
from theory.oracle import Optimum, horizon_free_schedule, optimal_schedule
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = [
    "Regrets",
    "Row",
    "angle_rules",
    "clocks",
    "floor_rules",
    "problems_by_spectrum",
    "regrets",
]

Array = NDArray[np.float64]

FACTORS = (0.03, 0.1, 0.25, 0.5)


def problems_by_spectrum(modes: int = 50) -> dict[str, NoisyQuadratic]:
    """The paper's problem and four others, by the name of their spectrum; v = 0.02, x_0 = 2.

    modes : n of the power laws i⁻¹ and i^{−3/2}, of two clusters (1 and 0.01, half each) and of
        the nearly singular one (evenly spaced in log from 1 to 1e-5); ≥ 2.
    """
    n = checks.positive_integer("modes", modes, least=2)
    i = np.arange(1, n + 1.0)
    spectra = {
        "power law i⁻¹": 1 / i,
        "power law i^−1.5": i**-1.5,
        "two clusters": np.where(i <= n // 2, 1.0, 0.01),
        "nearly singular": np.geomspace(1, 1e-5, n),
    }
    others = {name: NoisyQuadratic(a, 0.02, 2.0) for name, a in spectra.items()}
    return {"the paper's": NoisyQuadratic.paper()} | others


def floor_rules(
    etas: Iterable[float] = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0),
    factors: Iterable[float] = FACTORS,
    patience: Iterable[float] = (1.0,),
) -> tuple[RiskAtFloor, ...]:
    """Every combination of these."""
    factors, patience = tuple(factors), tuple(patience)
    return tuple(RiskAtFloor(η, ρ, p) for η in etas for ρ in factors for p in patience)


def clocks(
    periods: Iterable[int] = (25, 50, 100, 200, 400, 800, 1600), factors: Iterable[float] = FACTORS
) -> tuple[Clock, ...]:
    """Every combination of these."""
    factors = tuple(factors)
    return tuple(Clock(period, ρ) for period in periods for ρ in factors)


def angle_rules(
    window: Window,
    tolerances: Iterable[float] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001),
    factors: Iterable[float] = FACTORS,
    **options: Any,
) -> tuple[AngleAtLimit, ...]:
    """Every combination of these; options are those of `AngleAtLimit`."""
    factors = tuple(factors)
    return tuple(AngleAtLimit(ε, ρ, window, **options) for ε in tolerances for ρ in factors)


class Row(NamedTuple):
    """A family over all problems and horizons: geometric means, median and largest regret."""

    family: str
    tuned_mean: float
    one_mean: float
    one_median: float
    one_largest: float
    one: IdealRule


@dataclass(frozen=True, eq=False)
class Regrets:
    """What `regrets` returns, for P problems and H horizons.

    Attributes
    ----------
    problems, horizons : what they were.
    max_step : αa_max of the cap of all rates, and of the rules' first rate; there is no floor.
    optima : by problem and horizon, the best schedule that knows T; its risk is the unit.
    bound : (P, H), `oracle.lower_bound` over the oracle: no regret is below.
    drop_only : (P, H), the regret of the best schedule that never raises its rate.
    horizon_free : (P, H), that of the one schedule with the least geometric mean over the horizons,
        or None if it was not asked for.
    rules : by family.
    values : by family, (rules, P, H).
    """

    problems: tuple[str, ...]
    horizons: tuple[int, ...]
    max_step: float
    optima: tuple[tuple[Optimum, ...], ...]
    bound: Array
    drop_only: Array
    horizon_free: Array | None
    rules: Mapping[str, tuple[IdealRule, ...]]
    values: Mapping[str, Array]

    @property
    def oracle(self) -> Array:
        """(P, H), the risk of `optima`."""
        return np.array([[each.risk for each in row] for row in self.optima])

    def tuned(self, family: str) -> Array:
        """(P, H), the least regret over the family's settings, for each problem and horizon."""
        least: Array = self.values[family].min(axis=0)
        return least

    def best_rule(self, family: str, problem: str, horizon: int) -> IdealRule:
        """The setting that reaches it."""
        p, h = self.problems.index(problem), self.horizons.index(horizon)
        return self.rules[family][int(self.values[family][:, p, h].argmin())]

    def one(self, family: str) -> tuple[IdealRule, Array]:
        """The setting with the least geometric mean of all regrets, and its regrets, (P, H)."""
        best = int(np.log(self.values[family]).mean(axis=(1, 2)).argmin())
        return self.rules[family][best], self.values[family][best]

    def rows(self) -> list[Row]:
        """One for each family, in its order."""
        rows = []
        for family in self.rules:
            rule, one = self.one(family)
            tuned_mean, one_mean = (
                float(np.exp(np.log(each).mean())) for each in (self.tuned(family), one)
            )
            rows.append(
                Row(family, tuned_mean, one_mean, float(np.median(one)), float(one.max()), rule)
            )
        return rows


def regrets(
    problems: Mapping[str, NoisyQuadratic],
    families: Mapping[str, Sequence[IdealRule]],
    horizons: Sequence[int] = (2000, 20_000),
    *,
    method: UnifiedMomentum | None = None,
    max_step: float = 1.2,
    stages: int = 25,
    lengths: str = "equal",
    horizon_free: bool = False,
    restarts: int = 1,
) -> Regrets:
    """The regret of every rule on every problem at every horizon; exact, nothing is sampled.

    Parameters
    ----------
    problems, families : by name.
    horizons : T, distinct.  Rules run once, to the largest: they do not know T.
    method : default plain SGD.
    max_step : cap of αa_max, the paper's 1.2 by default; Requires < 2(1 + β)/(1 + 2βs).  Rules
        begin at the cap.
    stages, lengths, restarts : of the oracles, see `oracle.optimal_schedule`.
    horizon_free : whether to search for the one schedule for all horizons, with free lengths, too.

    Raises ValueError for nothing to compare; TypeError and ValueError as the oracles and rules do.
    """
    method = UnifiedMomentum.sgd() if method is None else method
    seen = tuple(sorted(checks.positive_integer("every horizon", T) for T in horizons))
    kept = {name: tuple(rules) for name, rules in families.items()}
    for name, given in (("problems", problems), ("families", kept), ("horizons", seen)):
        if not given:
            raise ValueError(f"{name} must hold at least one, got none")
    for name, rules in kept.items():
        if not rules:
            raise ValueError(f"family {name!r} must hold at least one rule, got none")
    shape = (len(problems), len(seen))
    bound, dropping, free = (np.empty(shape) for _ in range(3))
    optima: list[tuple[Optimum, ...]] = []
    values = {name: np.empty((len(rules), *shape)) for name, rules in kept.items()}
    for p, problem in enumerate(problems.values()):
        cap = max_step / float(max(problem.curvature))
        options: dict[str, Any] = {"lengths": lengths, "restarts": restarts}
        found = []
        for h, T in enumerate(seen):
            best = optimal_schedule(problem, method, T, min(stages, T), cap, **options)
            drop = best
            if any(np.diff(best.schedule.rates) > 0):
                drop = optimal_schedule(
                    problem, method, T, min(stages, T), cap, drop_only=True, **options
                )
            found.append(best)
            bound[p, h], dropping[p, h] = best.lower_bound / best.risk, drop.risk / best.risk
        optima.append(tuple(found))
        unit = np.array([best.risk for best in found])
        if horizon_free:
            one = horizon_free_schedule(
                problem, method, seen, min(stages, seen[-1]), cap, restarts=restarts
            )
            free[p] = one.risks / unit
        made = Stages(problem, method)
        for name, rules in kept.items():
            for r, rule in enumerate(rules):
                schedule = realised(made, rule, learning_rate=cap, iterations=seen[-1])
                for h, T in enumerate(seen):
                    begun = StepwiseSchedule(*zip(*schedule.segments(0, T), strict=True))
                    risk = final_risk(problem, method, begun)
                    values[name][r, p, h] = risk / unit[h]
    return Regrets(
        problems=tuple(problems),
        horizons=seen,
        max_step=float(max_step),
        optima=tuple(optima),
        bound=bound,
        drop_only=dropping,
        horizon_free=free if horizon_free else None,
        rules=kept,
        values=values,
    )
