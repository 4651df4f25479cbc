"""The paper's model of the angular velocity, and the schedule that Algorithm 2 makes of it.

    v_α(t) = (π/2)(1 + εα)(1 − 1/(γα(t + 1/(γα)))) = (π/2)(1 + εα) · γαt/(1 + γαt)        (12)

In radians; t counts iterations since the rate became α.  Algorithm 2 leaves stage i once
v'(t − t_i) ≤ τ_i = min{τ_0, γα̂_i/2}.  It observes no angle, so the schedule is known beforehand:
with k_i the first such t − t_i, stage 0 has k_0 + 1 iterations, stage i ≥ 1 has k_i.

Where π enters it is the argument `pi`: with `sympy.pi` results are symbolic, with a `Fraction` they
are exact for that bound of π, and with `Fraction(2)` angles are in units of a right angle.

Source: UAI 2024, Section 5.2, eq. (12) and Algorithm 2, p. 3609–3610; Section 12.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from theory import checks
from theory.schedules import StepwiseSchedule

__all__ = [
    "Fit",
    "GapConstants",
    "Gaps",
    "VelocityModel",
    "algorithm_2",
    "constant_gaps",
    "fit",
    "gap_constants",
    "gaps",
    "printed_gap_constants",
    "proved_rates",
    "stated_rates",
]

_HALF = Fraction(1, 2)  # an exponent that SymPy keeps exact, and floats turn into √


def _symbolic(value: Any) -> bool:
    return bool(getattr(value, "free_symbols", None))


def _require_positive(name: str, value: Any) -> None:
    """Raises ValueError unless all numbers are finite and > 0; symbols are left alone."""
    if _symbolic(value):
        return
    numbers = np.asarray(value, dtype=np.float64)
    if not np.all((numbers > 0) & np.isfinite(numbers)):
        raise ValueError(f"{name} must be finite and > 0, got {value}")


@dataclass(frozen=True)
class VelocityModel:
    """v_α(t) = (π/2)(1 + εα)γαt/(1 + γαt), eq. (12).

    Parameters
    ----------
    asymptote : ε > 0, in units of 1/α.  With every rate it meets, εα < 1/3: then the angle levels
        off between 90° and 120°.
    curvature : γ > 0, in units of 1/(α · iterations).

    Numbers of any kind, arrays and SymPy symbols are welcome as rates and times.

    Raises
    ------
    ValueError
        If ε or γ is not > 0 and finite; in the methods, if a rate is not, or has εα ≥ 1/3.

    Source: UAI 2024, eq. (12), p. 3609.
    """

    asymptote: Any
    curvature: Any

    def __post_init__(self) -> None:
        _require_positive("asymptote", self.asymptote)
        _require_positive("curvature", self.curvature)

    def require_rate(self, rate: Any) -> None:
        """Raises ValueError unless α > 0 and εα < 1/3; symbols are left alone."""
        _require_positive("rate", rate)
        product = self.asymptote * rate
        if not _symbolic(product) and not np.all(3 * np.asarray(product) < 1):
            raise ValueError(
                "asymptote must lie in (0, 1/(3 * largest rate)), so that the angle levels off "
                f"below 120°, got asymptote * rate = {product}"
            )

    def level(self, rate: Any, *, pi: Any = math.pi) -> Any:
        """(π/2)(1 + εα), the limit of v_α(t) as t → ∞, in radians."""
        self.require_rate(rate)
        return pi * (1 + self.asymptote * rate) / 2

    def angle(self, rate: Any, time: Any, *, pi: Any = math.pi) -> Any:
        """v_α(t) in radians; 0 at t = 0.  Requires t > −1/(γα), the pole of (12)."""
        u = self.curvature * rate * time
        self._require_time(u, time)
        return self.level(rate, pi=pi) * u / (1 + u)

    def derivative(self, rate: Any, time: Any, *, pi: Any = math.pi) -> Any:
        """v'_α(t) = (π/2)(1 + εα)γα/(1 + γαt)², radians per iteration.

        The paper prints the same as π(1 + εα)/(2γα(t + 1/(γα))²).  Requires t > −1/(γα).
        Source: UAI 2024, Section 12.1, p. 3623.
        """
        slope = self.curvature * rate
        self._require_time(slope * time, time)
        return self.level(rate, pi=pi) * slope / (1 + slope * time) ** 2

    def time_to_share(self, rate: Any, share: Any) -> Any:
        """p/((1 − p)γα): the time at which v_α is the share p of its level; 0 ≤ p < 1."""
        self.require_rate(rate)
        if not _symbolic(share) and not np.all((np.asarray(share) >= 0) & (np.asarray(share) < 1)):
            raise ValueError(f"share must satisfy 0 <= share < 1, got {share}")
        return share / ((1 - share) * self.curvature * rate)

    def stage_threshold(self, rate: Any, threshold: Any) -> Any:
        """τ_i = min{τ_0, γα̂_i/2}, radians per iteration, for a number α̂_i.

        `threshold` is τ_0 > 0; ValueError otherwise.  Source: UAI 2024, Algorithm 2, p. 3609.
        """
        self.require_rate(rate)
        _require_positive("threshold", threshold)
        return min(threshold, self.curvature * rate / 2)

    def gap(self, rate: Any, threshold: Any, *, pi: Any = math.pi) -> Any:
        """k = (γα)^{−1/2} √(π(1 + εα)/(2τ)) − 1/(γα): the time at which v'_α(k) = τ.

        A real number; > 0 for τ = `stage_threshold`, negative when v'_α(0) < τ.  `threshold` is τ
        itself here, > 0; it may be a symbol.  Source: UAI 2024, Section 12.1, p. 3623.
        """
        _require_positive("threshold", threshold)
        slope = self.curvature * rate
        return ((self.level(rate, pi=pi) * slope / threshold) ** _HALF - 1) / slope

    @staticmethod
    def _require_time(product: Any, time: Any) -> None:
        if not _symbolic(product) and not np.all(np.asarray(product) > -1):
            raise ValueError(f"time must be > −1/(curvature * rate), got {time}")


def _stages(rates: Sequence[Any], model: VelocityModel, threshold: Any) -> tuple[Any, ...]:
    """The rates as a tuple, after the checks that Algorithm 2 needs."""
    checks.instance("model", model, VelocityModel)
    rates = tuple(rates)
    if not rates:
        raise ValueError("rates must have at least one entry, got none")
    _require_positive("threshold", threshold)
    model.require_rate(max(rates))
    model.require_rate(min(rates))
    return rates


def algorithm_2(
    rates: Sequence[Any], model: VelocityModel, threshold: Any, *, pi: Any = math.pi
) -> StepwiseSchedule:
    """The schedule of Algorithm 2, by its pseudo-code line by line: T = Σ k_i + 1 iterations.

    The update comes first, then the test at the t before its increment.  So t_1 is the index of the
    last update of stage 0, which has k_0 + 1 updates, and t_n = T − 1; the paper's partition has
    t_n = T and T = Σ k_i.  `gaps` gives the k_i without the loop, which takes T steps.

    Parameters
    ----------
    rates : α̂_0, …, α̂_{n−1}, each > 0; they need not decrease.
    threshold : τ_0 > 0, radians per iteration.  The paper asks for τ_0 < 2, which is not needed.

    Raises
    ------
    TypeError, ValueError
        If the model is something else, there is no rate, a rate or τ_0 is not finite and > 0, or
        ε max α̂_i ≥ 1/3.

    Source: UAI 2024, Algorithm 2, p. 3609.
    """
    rates = _stages(rates, model, threshold)
    τ = [model.stage_threshold(rate, threshold) for rate in rates]
    lengths = [0] * len(rates)
    i = start = t = 0
    while i < len(rates):
        lengths[i] += 1
        if model.derivative(rates[i], t - start, pi=pi) <= τ[i]:
            i, start = i + 1, t
        t = t + 1
    return StepwiseSchedule(rates, lengths)


class Gaps(NamedTuple):
    """k_i of every stage: the real numbers of the paper's proof, and the first integers after."""

    real: tuple[float, ...]
    rounded: tuple[int, ...]


def gaps(rates: Sequence[Any], model: VelocityModel, threshold: Any, *, pi: Any = math.pi) -> Gaps:
    """k_i = (γα̂_i)^{−1/2} √(π(1 + εα̂_i)/(2τ_i)) − 1/(γα̂_i), and rounded up.

    The rounded k_i is the smallest integer t with v'(t) ≤ τ_i in the arithmetic of the arguments,
    so that it is the one `algorithm_2` finds also where rounding errors decide.

    Arguments and errors: as in `algorithm_2`.  Source: UAI 2024, Section 12.1, p. 3623.
    """
    rates = _stages(rates, model, threshold)
    real, rounded = [], []
    for rate in rates:
        τ = model.stage_threshold(rate, threshold)
        k = model.gap(rate, τ, pi=pi)
        first = math.ceil(k)
        while model.derivative(rate, first, pi=pi) > τ:
            first += 1
        while first > 0 and model.derivative(rate, first - 1, pi=pi) <= τ:
            first -= 1
        real.append(float(k))
        rounded.append(first)
    return Gaps(tuple(real), tuple(rounded))


class GapConstants(NamedTuple):
    """κ_1 ≤ k_i α̂_i ≤ κ_2 for every stage."""

    lower: float
    upper: float


def printed_gap_constants(model: VelocityModel, threshold: Any) -> GapConstants:
    """κ_1 = (√π − 1)/γ and κ_2 = (1/γ)√(2π/(3τ_0)), as the paper has them.

    κ_1 holds always.  κ_2 holds, also for the rounded gaps, if τ_0 ≤ ½ and γα̂_i ≤ 1, and for stage
    0 of `algorithm_2` if γα̂_0 ≤ ½.  The paper asks for τ_0 < 2 only, which is not enough.

    Raises ValueError unless τ_0 is finite and > 0.  Source: UAI 2024, Theorem 5.2 and eq. (38).
    """
    checks.instance("model", model, VelocityModel)
    _require_positive("threshold", threshold)
    γ = float(model.curvature)
    lower = (math.sqrt(math.pi) - 1) / γ
    return GapConstants(lower, math.sqrt(2 * math.pi / (3 * threshold)) / γ)


def gap_constants(
    rates: Sequence[Any], model: VelocityModel, threshold: Any, *, literal: bool = False
) -> GapConstants:
    """κ_1 = (√π − 1)/γ, κ_2 = (1/γ)[√(π(1 + εα̂)) max{√(γα̂/(2τ_0)), 1} − 1] + α̂, α̂ = max α̂_i.

    For the rounded gaps, any τ_0 > 0 and any γ: without its last α̂, κ_2 is k_i α̂_i before rounding
    up, exactly, and grows with α̂_i; rounding up adds at most α̂_i.  With `literal`, for the lengths
    of `algorithm_2`, whose stage 0 has one iteration more: κ_2 is then at least the same with 2α̂_0
    at the rate α̂_0.

    Arguments and errors: as in `algorithm_2`.  Source: replaces UAI 2024, eq. (38), p. 3624.
    """
    rates = _stages(rates, model, threshold)
    ε, γ = float(model.asymptote), float(model.curvature)

    def bound(α: float, rounding: int) -> float:
        widest = max(math.sqrt(γ * α / (2 * threshold)), 1)
        return (math.sqrt(math.pi * (1 + ε * α)) * widest - 1) / γ + rounding * α

    upper = bound(float(max(rates)), 1)
    if literal:
        upper = max(upper, bound(float(rates[0]), 2))
    return GapConstants((math.sqrt(math.pi) - 1) / γ, upper)


def stated_rates(stages: int) -> tuple[float, ...]:
    """α̂_i = (i + 1)^{−2/3}, i = 0 … n − 1: the rates in the statement of Theorem 5.2.

    α̂_{−1} would be infinite, and α̂_i ≤ 1/(i + 2), which Theorem 5.1 asks for, fails for every i.
    Requires n ≥ 1; ValueError otherwise.  Source: UAI 2024, Theorem 5.2, p. 3610.
    """
    n = checks.positive_integer("stages", stages)
    return tuple((i + 1) ** (-2 / 3) for i in range(n))


def proved_rates(stages: int) -> tuple[Fraction, ...]:
    """α̂_i = 1/(i + 2), i = 0 … n − 1, exactly: the rates in the proof of Theorem 5.2.

    α̂_{−1} is 1.  Requires n ≥ 1; ValueError otherwise.  Source: UAI 2024, Lemma 12.1, p. 3623.
    """
    n = checks.positive_integer("stages", stages)
    return tuple(Fraction(1, i + 2) for i in range(n))


def constant_gaps(rates: Sequence[Any], product: Any) -> tuple[int, ...]:
    """k_i = ⌈κ/α̂_i⌉, so that κ ≤ k_i α̂_i < κ + α̂_i; exactly, for floats too.

    Parameters
    ----------
    rates : α̂_i, each finite and > 0.
    product : κ, finite and > 0.

    Raises ValueError otherwise.  Source: UAI 2024, Lemma 12.1, with equality up to rounding.
    """
    _require_positive("product", product)
    for rate in rates:
        _require_positive("every rate", rate)
    return tuple(math.ceil(Fraction(product) / Fraction(rate)) for rate in rates)


class Fit(NamedTuple):
    """Least-squares fit of (12): ε, γ, and the misfit in radians."""

    asymptote: float
    curvature: float
    rms: float
    worst: float
    residual: NDArray[np.float64]  # angle − v, in the order of the data

    @property
    def model(self) -> VelocityModel:
        """The fitted model; ValueError when it levels off below 90°, where (12) has no ε > 0."""
        return VelocityModel(self.asymptote, self.curvature)


# γαt at the latest time lies in this range: below it the curve is a straight line, above it a step.
_CURVATURE_RANGE = (1e-3, 1e6)


def fit(times: ArrayLike, angles: ArrayLike, rates: ArrayLike) -> Fit:
    """argmin over (ε, γ) of Σ (angle − v_α(t))², with no condition on the sign or size of ε.

    For given γ the best ε is linear least squares; γ is searched on a logarithmic grid and then
    refined, so that the minimum is the global one up to the grid's spacing of 7 %.

    Parameters
    ----------
    times : t > 0 in iterations since the rate became α, shape (m,), m ≥ 2.
    angles : in radians, shape (m,).
    rates : α of each angle, shape (m,) or one number; several rates share one (ε, γ).

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, a time or rate is not > 0, or the best γ lies at
        an end of the range of times: the angles then follow a straight line or do not rise at all.

    Source: UAI 2024, eq. (12), p. 3609.
    """
    t, y = (np.asarray(x, dtype=np.float64) for x in (times, angles))
    if t.ndim != 1 or t.shape != y.shape or t.size < 2:
        raise ValueError(
            f"times and angles must have the same shape (m,), m >= 2, got {t.shape} and {y.shape}"
        )
    if not np.isfinite(y).all():
        raise ValueError("angles must be finite, got one that is not")
    _require_positive("times", t)
    _require_positive("rates", rates)
    α = np.broadcast_to(np.asarray(rates, dtype=np.float64), t.shape)
    right = math.pi / 2

    def best(log_γ: float) -> tuple[float, NDArray[np.float64]]:
        u = math.exp(log_γ) * α * t
        w = right * u / (1 + u)
        ε = ((α * w) @ (y - w)) / ((α * w) @ (α * w))
        return float(ε), y - (1 + ε * α) * w

    def cost(log_γ: float) -> float:
        _, r = best(log_γ)
        return float(r @ r)

    low, high = np.log(np.array(_CURVATURE_RANGE) / (α * t).max())
    grid = np.linspace(low, high, 300)
    at = int(np.argmin([cost(x) for x in grid]))
    if at in (0, len(grid) - 1):
        raise ValueError(
            "the angles determine no curvature: the best fit of (12) is a straight line or a "
            f"constant, at curvature {'<=' if at == 0 else '>='} {math.exp(grid[at]):.3g}"
        )
    refined = optimize.minimize_scalar(
        cost, bounds=(grid[at - 1], grid[at + 1]), method="bounded", options={"xatol": 1e-12}
    )
    ε, r = best(float(refined.x))
    rms = math.sqrt(float(r @ r) / r.size)
    return Fit(ε, math.exp(float(refined.x)), rms, float(np.abs(r).max()), r)
