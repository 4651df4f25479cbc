"""The oracle: the stepwise schedule with the least exact risk after T iterations.

On a noisy quadratic E f(x_T) is an explicit, differentiable function of the rates of any schedule
(`theory.final_risk`).  Its least value under a cap and a floor of the rates is the best that a
schedule fixed beforehand can reach, and so what the schedule that a rule realised can be held
against.  (The rates of a rule may depend on the noise: one that saw x_t would stop at a lucky one,
and is not bounded by this.)  Cap and floor decide the value: every result states them.

The search (`theory.schedule_search`) finds local minima, from several starts; a result says how
many of them agree.  Even plain SGD with stable rates may have two: on the paper's problem, for
T = 2000 and rates ≤ 0.06, with five or with six of 25 equal stages at the cap.  Above the stable
rates, where large and small ones take turns as in Chebyshev's method, each order of the rates is a
minimum of its own; and momentum oscillates for large rates.  `lower_bound` is below all schedules
fixed beforehand, and so tells at most how far a result is from the best.

Source: Wu, Ren, Liao and Grosse, ICLR 2018 (best schedules of the noisy quadratic, by its exact
risk, and what greedy ones lose).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.final_risk import risk_gradient
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedule_search import (
    AGREEMENT,
    TINY,
    Descent,
    Limits,
    equal_lengths,
    rate_limits,
    search,
)
from theory.schedules import StepwiseSchedule

__all__ = ["HorizonFree", "Optimum", "horizon_free_schedule", "lower_bound", "optimal_schedule"]

Array = NDArray[np.float64]


def lower_bound(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
) -> float:
    """½ Σ a_i V_i, where V_i ≤ E x_{i,T}²: what no schedule fixed beforehand can beat.

    β = 0: each mode has a schedule of its own.  The least E x_{t+1}² rises with E x_t², so that the
    best of all is greedy: V ← min over α of (1 − αa)²V + α²a²v, at αa = V/(V + v) or the nearest
    rate that cap and floor allow.  With neither, 1/V_T = 1/x_0² + T/v.

    β > 0: x_T = w x_0 + Σ w_t c_t with w + Σ w_t = 1, since x_0 = c_0 = c_1 = … is at rest; so that
    again V = 1/(1/x_0² + T/v), for any rates at all.

    For n = 1 and T rates of their own the first is attained.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    T = checks.positive_integer("steps", steps)
    floor, cap = rate_limits(max_rate, min_rate)
    a, v, start = (
        np.asarray(x, dtype=np.float64)
        for x in (problem.curvature, problem.noise_variance, problem.start)
    )
    V = start**2
    if method.momentum == 0:
        for _ in range(T):
            total = V + v
            h = np.clip(
                np.divide(V, total, out=np.zeros_like(V), where=total > 0), floor * a, cap * a
            )
            V = (1 - h) ** 2 * V + h**2 * v
    else:
        total = v + T * V
        V = np.divide(V * v, total, out=np.zeros_like(V), where=total > 0)
    return float(a @ V / 2)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best schedule found, and what speaks for it.

    Attributes
    ----------
    schedule : of S stages.
    risk : E f(x_T), that of `moments.evolve`.
    gradient : (S,), ∂risk/∂α̂_i.
    residual : of the conditions of a minimum over the rates, dimensionless: |∂ log risk/∂ log α̂_i|
        at worst, where no limit holds the rate; 0 if no allowed change of the rates descends.
        Below max_rate/T, the rate's unit is that.
    restart_risks : what each start led to, ascending; for free lengths before the moves of single
        boundaries, after which no move by one iteration gains 1e-6 of the risk.
    lower_bound : no schedule under this cap and floor has a smaller risk (`lower_bound`).
    max_rate, min_rate, drop_only : the rates that were allowed.
    """

    schedule: StepwiseSchedule
    risk: float
    gradient: Array
    residual: float
    restart_risks: tuple[float, ...]
    lower_bound: float
    max_rate: float
    min_rate: float
    drop_only: bool

    @property
    def agreeing(self) -> int:
        """How many starts led to the best risk, up to 1e-6 of it."""
        least = self.restart_risks[0]
        return sum(risk <= least * (1 + AGREEMENT) for risk in self.restart_risks)


def _checked_lengths(lengths: Any, steps: int, stages: int) -> str | tuple[int, ...]:
    equal_lengths(steps, stages)  # checks both
    if isinstance(lengths, str):
        if lengths not in ("equal", "free"):
            raise ValueError(f"lengths must be 'equal', 'free' or a sequence, got {lengths!r}")
        return lengths
    given = StepwiseSchedule([1.0] * len(lengths), lengths).lengths
    if len(given) != stages or sum(given) != steps:
        raise ValueError(
            f"lengths must be {stages} integers with the sum {steps}, "
            f"got {len(given)} with the sum {sum(given)}"
        )
    return given


def _checked_starts(
    starts: Sequence[StepwiseSchedule], lengths: str | tuple[int, ...], steps: int, stages: int
) -> tuple[StepwiseSchedule, ...]:
    for start in starts:
        checks.instance("every start", start, StepwiseSchedule)
        if len(start) != steps:
            raise ValueError(f"every start must have {steps} iterations, got {len(start)}")
        if lengths == "free" and len(start.rates) > stages:
            raise ValueError(f"a start must have <= {stages} stages, got {len(start.rates)}")
    return tuple(starts)


def optimal_schedule(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    stages: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    lengths: str | Sequence[int] = "equal",
    drop_only: bool = False,
    starts: Sequence[StepwiseSchedule] = (),
    restarts: int = 4,
    seed: int = 0,
) -> Optimum:
    """min E f(x_T) over schedules of S stages with min_rate ≤ α̂_i ≤ max_rate, from x_0 on.

    Parameters
    ----------
    steps : T ≥ 1.
    stages : S, 1 ≤ S ≤ T; T for a rate of its own at each iteration.
    max_rate : the cap, in units of 1/curvature.  It may be unstable.
    min_rate : the floor; 0 for none, which is read as 1e-9 max_rate, as a rate is > 0.
    lengths : "equal" (to within one iteration), "free" (also the k_i are chosen), or the k_i.
    drop_only : the rates must not increase.
    starts : further schedules to start from, of T iterations; for free lengths, of at most S
        stages.  The result is never worse than one whose stages are allowed here.
    restarts : how many starts of its own: one geometric, the others random.  On top come the best
        rates of half as many equal stages, and the best ones shifted by a stage; so that twice as
        many equal stages are never worse, nor free lengths.
    seed : of the random ones.

    The minimum is a local one, see the module; the result says how many starts agree.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range.
    OverflowError
        If every risk overflows: min_rate is unstable.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    T, S = (checks.positive_integer(*each) for each in (("steps", steps), ("stages", stages)))
    floor, cap = rate_limits(max_rate, min_rate)
    given = _checked_lengths(lengths, T, S)
    starts = _checked_starts(starts, given, T, S)
    descent = Descent(problem, method, (T,), Limits(floor, cap, bool(drop_only)))
    restarts = checks.positive_integer("restarts", restarts)
    best, found = search(descent, S, given, starts, restarts, seed)
    schedule = best.schedule
    risk, gradient = risk_gradient(problem, method, schedule)
    scale = np.maximum(best.rates, cap / T)
    return Optimum(
        schedule=schedule,
        risk=risk,
        gradient=gradient,
        residual=descent.limits.residual(best.rates, gradient / max(risk, TINY), scale),
        restart_risks=tuple(math.exp(each.value) for each in found),
        lower_bound=lower_bound(problem, method, T, cap, min_rate),
        max_rate=cap,
        min_rate=float(min_rate),
        drop_only=bool(drop_only),
    )


@dataclass(frozen=True, eq=False)
class HorizonFree:
    """One schedule for several horizons T_1 < … < T_J.

    Attributes
    ----------
    schedule : T_J iterations; the horizons before it see its beginning.
    risks : (J,), E f(x_{T_j}).
    oracles : the `Optimum` of each horizon by itself, of as many stages, under the same limits.
    restart_ratios : the geometric mean of the ratios that each start led to, ascending.
    max_rate, min_rate, drop_only : the rates that were allowed.
    """

    schedule: StepwiseSchedule
    horizons: tuple[int, ...]
    risks: Array
    oracles: tuple[Optimum, ...]
    restart_ratios: tuple[float, ...]
    max_rate: float
    min_rate: float
    drop_only: bool

    @property
    def ratios(self) -> Array:
        """(J,), risks[j] over the risk of the oracle that knows T_j."""
        return self.risks / np.array([each.risk for each in self.oracles])

    @property
    def mean_ratio(self) -> float:
        """The geometric mean of `ratios`, which was minimised: the price of not knowing T."""
        return float(np.exp(np.log(self.ratios).mean()))


def horizon_free_schedule(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    horizons: Sequence[int],
    stages: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    lengths: str | Sequence[int] = "free",
    drop_only: bool = False,
    restarts: int = 4,
    seed: int = 0,
) -> HorizonFree:
    """min (Π_j E f(x_{T_j}) / oracle(T_j))^{1/J}: the best single schedule for unknown T.

    The oracles do not depend on the schedule, so this is the least geometric mean of the risks.
    Their lengths are equal if `lengths` is "equal", else free; then no ratio is below 1, since each
    oracle also starts from the schedule found here.

    Parameters
    ----------
    horizons : T_1, …, T_J ≥ 1, distinct.
    lengths : with the sum max T_j, if given.

    All others are those of `optimal_schedule`, and so are the errors.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    seen = tuple(sorted(checks.positive_integer("every horizon", T) for T in horizons))
    if not seen or len(set(seen)) < len(seen):
        raise ValueError(f"horizons must be distinct and at least one, got {list(horizons)}")
    S = checks.positive_integer("stages", stages)
    floor, cap = rate_limits(max_rate, min_rate)
    given = _checked_lengths(lengths, seen[-1], S)
    restarts = checks.positive_integer("restarts", restarts)
    descent = Descent(problem, method, seen, Limits(floor, cap, bool(drop_only)))
    best, found = search(descent, S, given, (), restarts, seed)
    schedule = best.schedule
    risks, oracles = [], []
    for T in seen:
        begun = StepwiseSchedule(*zip(*schedule.segments(0, T), strict=True))
        risks.append(risk_gradient(problem, method, begun)[0])
        oracles.append(
            optimal_schedule(
                problem,
                method,
                T,
                min(S, T),
                cap,
                min_rate,
                lengths="equal" if given == "equal" else "free",
                drop_only=drop_only,
                starts=[begun],
                restarts=restarts,
                seed=seed,
            )
        )
    base = float(np.mean([math.log(each.risk) for each in oracles]))
    return HorizonFree(
        schedule=schedule,
        horizons=seen,
        risks=np.array(risks),
        oracles=tuple(oracles),
        restart_ratios=tuple(math.exp(each.value - base) for each in found),
        max_rate=cap,
        min_rate=float(min_rate),
        drop_only=bool(drop_only),
    )
