"""The search behind the oracle: rates, and lengths, that make the exact risk smallest.

The criterion is the mean of log E f(x_T) over some horizons T; there is one for the oracle.  For
given lengths it is minimised by L-BFGS-B over the logarithms of the rates, from several starts.

Free lengths are first real numbers, with a fraction of an iteration as in `theory.final_risk`:
exact for whole numbers and continuous between them, so that the best real lengths, rounded, are
nearly the best whole ones.  Boundaries are then moved by single iterations for as long as that
helps.  Where there are few choices of the lengths, all are tried.

Source: Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16 (1995) 1190–1208 (L-BFGS-B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from theory import checks
from theory.final_risk import stage_risks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = [
    "AGREEMENT",
    "NO_FLOOR",
    "OVERFLOW",
    "TINY",
    "Descent",
    "Found",
    "Limits",
    "Outcome",
    "equal_lengths",
    "rate_limits",
    "search",
]

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

# A rate is > 0, so that min_rate = 0 is read as this share of max_rate: it moves nothing.
NO_FLOOR = 1e-9
AGREEMENT = 1e-6  # relative: two starts with risks as close as this have led to the same
TINY = 1e-300  # the logarithm of a risk is taken of no less
OVERFLOW = 1e3  # stands for the logarithm of a risk that is no finite float
_FEW = 50  # choices of the lengths, that many are all tried
_GAIN = 1e-6  # relative: a move of a boundary that gains less is not made


def rate_limits(max_rate: float, min_rate: float) -> tuple[float, float]:
    """(floor, cap) of the rates as floats, the floor at least `NO_FLOOR` times the cap.

    Raises TypeError for what is no number, ValueError unless 0 ≤ min_rate ≤ max_rate < ∞ and
    max_rate > 0.
    """
    for name, value in (("max_rate", max_rate), ("min_rate", min_rate)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a real number, got {value!r}")
    cap, floor = float(max_rate), float(min_rate)
    if not 0 < cap < math.inf:
        raise ValueError(f"max_rate must be finite and > 0, got {max_rate}")
    if not 0 <= floor <= cap:
        raise ValueError(
            f"min_rate must satisfy 0 <= min_rate <= max_rate = {max_rate}, got {min_rate}"
        )
    return max(floor, NO_FLOOR * cap), cap


def equal_lengths(steps: int, stages: int) -> list[int]:
    """k_0 … k_{S−1} ≥ 1 with Σk_i = T, no two of which differ by more than 1; S ≤ T, or ValueError.

    steps : T.  stages : S.
    """
    T = checks.positive_integer("steps", steps)
    S = checks.positive_integer("stages", stages)
    if S > T:
        raise ValueError(f"stages must be <= steps = {T}, got {S}")
    return np.diff(np.arange(S + 1) * T // S).tolist()


class Limits(NamedTuple):
    """Coordinates in [0, 1]^S for rates between floor and cap: linear in the logarithm.

    drop_only: the coordinates are the ratios of successive ones, which makes rates not increase.
    """

    floor: float
    cap: float
    drop_only: bool

    @property
    def span(self) -> float:
        """log(cap/floor)."""
        return math.log(self.cap / self.floor)

    def rates(self, x: Array) -> Array:
        """The rates at these coordinates."""
        height = np.cumprod(x) if self.drop_only else x
        # From the cap down, which is then met exactly; exp may miss the floor by rounding.
        rates = self.cap * np.exp(self.span * (height - 1))
        return np.where(height == 0, self.floor, np.clip(rates, self.floor, self.cap))

    def coordinates(self, rates: Array) -> Array:
        """Of these rates, or of ones near by that the limits allow."""
        if self.span == 0:
            return np.ones(len(rates))
        height = np.clip(np.log(rates / self.floor) / self.span, self.least, 1)
        if not self.drop_only:
            return height
        height = np.minimum.accumulate(height)
        return np.append(height[:1], height[1:] / height[:-1])

    @property
    def least(self) -> float:
        """Of a coordinate: a ratio of 0 would take all later rates to the floor with it."""
        return 1e-12 if self.drop_only else 0.0

    def pull(self, x: Array, rates: Array, gradient: Array) -> Array:
        """The gradient by the coordinates, from that by the rates."""
        by_height = gradient * rates * self.span
        if not self.drop_only:
            return by_height
        return np.cumsum((by_height * np.cumprod(x))[::-1])[::-1] / x

    def residual(self, rates: Array, gradient: Array, scale: Array) -> float:
        """‖(α − Π(α − s² g))/s‖_∞: 0 exactly where no direction that is allowed descends.

        Π is the projection on the allowed rates, in the norm in which s_i is the unit of α_i: for
        one rate that no limit holds this is s_i |g_i|.
        """
        step = rates - scale**2 * gradient
        if self.drop_only:
            step = optimize.isotonic_regression(step, weights=scale**-2.0, increasing=False).x
        return float(np.abs((rates - np.clip(step, self.floor, self.cap)) / scale).max())


class _Pieces(NamedTuple):
    """A schedule cut at its boundaries and at the horizons."""

    lengths: NDArray[Any]
    stage: Whole
    seen: Whole  # of the piece that ends at each horizon
    ending: Whole  # of the piece that ends at each inner boundary


def _pieces(edges: NDArray[Any], horizons: Sequence[int]) -> _Pieces:
    """Of the schedule with the boundaries 0 = t_0 < t_1 < … < t_S, integers or real numbers."""
    inner = edges[1:-1]
    cuts = np.unique(np.concatenate([edges[:1], inner, np.array(horizons, dtype=edges.dtype)]))
    return _Pieces(
        lengths=np.diff(cuts),
        stage=np.searchsorted(inner, cuts[:-1], side="right"),
        seen=np.searchsorted(cuts[1:], horizons),
        ending=np.searchsorted(cuts[1:], inner),
    )


class Found(NamedTuple):
    """The mean of log E f(x_T), the rates and the lengths of the stages."""

    value: float
    rates: Array
    lengths: Whole

    @property
    def schedule(self) -> StepwiseSchedule:
        """Of these rates and lengths."""
        return StepwiseSchedule(self.rates.tolist(), self.lengths.tolist())


@dataclass(frozen=True)
class Descent:
    """Minimises the mean of log E f(x_T) over the horizons T."""

    problem: NoisyQuadratic
    method: UnifiedMomentum
    horizons: tuple[int, ...]  # ascending
    limits: Limits

    @property
    def steps(self) -> int:
        """The longest horizon, which is the sum of the lengths."""
        return self.horizons[-1]

    @property
    def dropping(self) -> Descent:
        """The same for rates that do not increase."""
        return replace(self, limits=self.limits._replace(drop_only=True))

    def criterion(self, pieces: _Pieces, rates: Array) -> tuple[float, Array, Array]:
        """Its value, and the gradients by the rates of the stages and by the inner boundaries.

        The latter is 0 for integer boundaries.  Where a risk overflows: a large value without
        slope, from which a line search backs away.
        """
        S, J = len(rates), len(pieces.seen)
        run = stage_risks(self.problem, self.method, rates[pieces.stage], pieces.lengths)
        risks = np.maximum(run.risks[pieces.seen], TINY)
        weights = np.zeros(len(run.risks))
        weights[pieces.seen] = 1 / (J * risks)
        by_rate, by_length = run.gradient(weights)
        by_edge = np.zeros(S - 1)
        if by_length is not None:
            by_edge = by_length[pieces.ending] - by_length[pieces.ending + 1]
        if not all(np.isfinite(part).all() for part in (risks, by_rate, by_edge)):
            return OVERFLOW, np.zeros(S), np.zeros(S - 1)
        by_stage = np.bincount(pieces.stage, by_rate, minlength=S)
        return float(np.log(risks).mean()), np.asarray(by_stage, dtype=np.float64), by_edge

    def fixed(
        self, lengths: Whole, rates: Array, iterations: int = 5000, gain: float = 1e-15
    ) -> Found:
        """The best rates near `rates`; never worse than these."""
        limits = self.limits
        pieces = _pieces(np.append(0, np.cumsum(lengths)), self.horizons)

        def objective(x: Array) -> tuple[float, Array]:
            α = limits.rates(x)
            value, gradient, _ = self.criterion(pieces, α)
            return value, limits.pull(x, α, gradient)

        x, one = limits.coordinates(rates), np.ones(len(rates))
        value, x = _lbfgsb(objective, x, limits.least * one, one, iterations, gain)
        return Found(value, limits.rates(x), lengths)

    def free(self, lengths: Array, rates: Array) -> Found:
        """The best rates and lengths near these, with real lengths, then rounded."""
        S, limits = len(rates), self.limits
        spare = self.steps - S  # lengths are 1 + spare · softmax(z)

        def split(x: Array) -> tuple[Array, Array, Array]:
            p = np.exp(x[S:] - x[S:].max())
            p /= p.sum()
            edges = np.arange(S + 1) + spare * np.append(0.0, np.cumsum(p))
            edges[-1] = self.steps
            return limits.rates(x[:S]), p, edges

        def objective(x: Array) -> tuple[float, Array]:
            α, p, edges = split(x)
            value, by_rate, by_edge = self.criterion(_pieces(edges, self.horizons), α)
            # A longer stage moves all later boundaries.
            by_length = np.append(np.cumsum(by_edge[::-1])[::-1], 0.0)
            by_z = spare * p * (by_length - p @ by_length)
            return value, np.append(limits.pull(x[:S], α, by_rate), by_z)

        z = np.log(np.maximum(lengths - 1, 0.1) / spare)
        one = np.ones(S)
        least = np.append(limits.least * one, z.min() - 5 * one)
        most = np.append(one, z.max() + 5 * one)
        _, x = _lbfgsb(objective, np.append(limits.coordinates(rates), z), least, most, 1000, 1e-11)
        α, _, edges = split(x)
        return self.fixed(_rounded(edges), α)

    def moved(self, found: Found) -> Found:
        """The same after moves of one boundary by one iteration, until none gains `_GAIN`."""
        improved = True
        while improved:
            improved = False
            for i in range(len(found.lengths) - 1):
                for step in (1, -1):
                    while (better := self._move(found, i, step)) is not None:
                        found, improved = better, True
        return self.fixed(found.lengths, found.rates)

    def _move(self, found: Found, i: int, step: int) -> Found | None:
        lengths = found.lengths.copy()
        lengths[i] += step
        lengths[i + 1] -= step
        if lengths.min() < 1:
            return None
        better = self.fixed(lengths, found.rates, iterations=15, gain=1e-9)
        return better if better.value < found.value - _GAIN else None


def _lbfgsb(
    objective: Callable[[Array], tuple[float, Array]],
    x: Array,
    least: Array,
    most: Array,
    iterations: int,
    gain: float,
) -> tuple[float, Array]:
    """(value, point): the best that L-BFGS-B meets from x on, x itself included."""
    best = (math.inf, x)

    def recorded(x: Array) -> tuple[float, Array]:
        nonlocal best
        value, gradient = objective(x)
        if value < best[0]:
            best = (value, x.copy())
        return value, gradient

    optimize.minimize(
        recorded,
        x,
        jac=True,
        bounds=optimize.Bounds(least, most),
        method="L-BFGS-B",
        options={
            "maxiter": iterations,
            "maxfun": 4 * iterations,
            "ftol": gain,
            "gtol": 1e-10,
            "maxcor": 20,
        },
    )
    return best


def _rounded(edges: Array) -> Whole:
    """Integer lengths ≥ 1 from real ones ≥ 1, each boundary within ½ (and rounding) of its own."""
    index = np.arange(len(edges))
    spare: Whole = np.maximum.accumulate(np.floor(edges - index + 0.5).astype(np.int64))
    return spare[1:] - spare[:-1] + 1


def _starting_rates(
    descent: Descent, stages: int, count: int, rng: np.random.Generator
) -> list[Array]:
    """Geometric from the largest rate that is stable and allowed down to 1/(10T) of it, and random.

    Every other of the random ones decreases.
    """
    floor, cap, drop_only = descent.limits
    stable = float(descent.method.max_stable_step) / float(max(descent.problem.curvature))
    top = min(max(0.95 * stable, floor), cap)
    depth = math.log(10 * descent.steps)
    exponents = [np.linspace(0, depth, stages)]
    for i in range(1, count):
        random = rng.uniform(0, depth, stages)
        exponents.append(np.sort(random) if drop_only or i % 2 else random)
    return [np.clip(top * np.exp(-exponent), floor, cap) for exponent in exponents]


def _spread(fine: Found, stages: int, power: float) -> tuple[Array, Array]:
    """Lengths and rates of `stages` stages, dense where the many rates of `fine` change.

    In proportion to |d log α/dt|^power.  ⅔ is what makes Σ k_i³ (d log α/dt)² smallest, the squared
    error of a function that is constant on each stage; a twentieth is spread evenly.
    """
    edges = np.append(0.0, np.cumsum(fine.lengths))
    middle, logs = (edges[1:] + edges[:-1]) / 2, np.log(fine.rates)
    density = np.abs(np.gradient(logs, middle)) ** power * fine.lengths
    total, T = density.sum(), edges[-1]
    even = fine.lengths / T
    share = 0.95 * density / total + 0.05 * even if total > 0 else even
    cuts = np.interp(np.arange(stages + 1) / stages, np.append(0.0, np.cumsum(share)), edges)
    spare = np.maximum(np.diff(cuts) - 1, 0.1)
    lengths = 1 + (T - stages) * spare / spare.sum()
    cuts = np.append(0.0, np.cumsum(lengths))
    return lengths, np.exp(np.interp((cuts[1:] + cuts[:-1]) / 2, middle, logs))


def _fine_lengths(horizons: Sequence[int], stages: int) -> Whole:
    """8 S stages or more that are equal up to each horizon, where that many fit."""
    each = max(8 * stages // len(horizons), 16)
    cuts = {round(T * i / each) for T in horizons for i in range(each + 1)}
    edges: Whole = np.array(sorted(cuts), dtype=np.int64)
    return edges[1:] - edges[:-1]


class Outcome(NamedTuple):
    """The best of all, and what each start led to, the best of these first."""

    best: Found
    found: list[Found]

    @property
    def distinct(self) -> list[Found]:
        """Without those whose criterion is that of the one before, up to `AGREEMENT`."""
        chosen = self.found[:1]
        for each in self.found[1:]:
            if each.value > chosen[-1].value + AGREEMENT:
                chosen.append(each)
        return chosen


def search(
    descent: Descent,
    stages: int,
    lengths: str | Sequence[int],
    starts: Sequence[StepwiseSchedule],
    restarts: int,
    seed: int,
) -> Outcome:
    """From `restarts` starts, from half as many stages, from shifted rates, and from `starts`.

    The best of half as many equal stages is among those of an even number, so that twice as many
    are never worse; and free lengths start from equal ones.
    """
    rng = np.random.default_rng(seed)
    at = np.array(
        equal_lengths(descent.steps, stages) if isinstance(lengths, str) else lengths,
        dtype=np.int64,
    )
    found = [descent.fixed(at, rates) for rates in _starting_rates(descent, stages, restarts, rng)]
    if isinstance(lengths, str) and stages > 1:
        coarse = search(descent, stages // 2, "equal", (), restarts, seed).distinct
        found += [descent.fixed(at, _on(each.schedule, at)) for each in coarse[:restarts]]
    found += _shifted(descent, min(found, key=_value))
    if lengths == "free" and 1 < stages < descent.steps:
        found += _search_lengths(descent, min(found, key=_value), starts, restarts, rng)
        best = descent.moved(min(found, key=_value))
    else:
        found += [descent.fixed(at, _on(start, at)) for start in starts]
        best = min(found, key=_value)
    if best.value >= OVERFLOW:
        raise OverflowError(
            "every schedule that was tried overflows: min_rate * max curvature is "
            f"{descent.limits.floor * float(max(descent.problem.curvature))}, stable is "
            f"< {descent.method.max_stable_step}"
        )
    return Outcome(best, sorted(found, key=_value))


def _shifted(descent: Descent, best: Found) -> list[Found]:
    """From the best rates one stage earlier and one later, and on from there while that helps.

    How many stages stay at the cap is a choice that a descent hardly ever changes.
    """
    tried: list[Found] = []
    while len(best.rates) > 1:
        α = best.rates
        shifts = (np.append(α[1:], α[-1]), np.append(α[0], α[:-1]))
        found = [descent.fixed(best.lengths, shift) for shift in shifts]
        tried += found
        least = min(found, key=_value)
        if not least.value < best.value - AGREEMENT:
            break
        best = least
    return tried


def _search_lengths(
    descent: Descent,
    equal: Found,
    starts: Sequence[StepwiseSchedule],
    restarts: int,
    rng: np.random.Generator,
) -> list[Found]:
    """From the best equal stages, from many stages joined in several ways, and from `starts`.

    Where there are few lengths, from all of them.
    """
    stages = len(equal.rates)
    given = [_divided(start, stages) for start in starts]
    if math.comb(descent.steps - 1, stages - 1) <= _FEW:
        return [descent.fixed(*each) for each in given] + [
            found
            for cuts in combinations(range(1, descent.steps), stages - 1)
            for found in search(
                descent,
                stages,
                np.diff([0, *cuts, descent.steps]).tolist(),
                (),
                restarts,
                int(rng.integers(2**32)),
            ).found
        ]
    found = [descent.free(equal.lengths.astype(np.float64), equal.rates)]
    many = _fine_lengths(descent.horizons, stages)
    smooth = descent.fixed(many, _on(equal.schedule, many), gain=1e-9)
    for i in range(restarts):
        lengths, rates = _spread(smooth, stages, 2 / 3 if i == 0 else rng.uniform(0.4, 1))
        if i > 1:
            lengths = 1 + (lengths - 1) * rng.uniform(0.5, 2, stages)
            lengths = 1 + (descent.steps - stages) * (lengths - 1) / (lengths - 1).sum()
        if i % 2 == 0 and not descent.limits.drop_only:
            # Rates that rise for some iterations are many local minima: first without these.
            _, rates, whole = descent.dropping.free(lengths, rates)
            lengths = whole.astype(np.float64)
        found.append(descent.free(lengths, rates))
    for at, rates in given:
        found += [descent.fixed(at, rates), descent.free(at.astype(np.float64), rates)]
    return found


def _value(found: Found) -> float:
    return found.value


def _on(start: StepwiseSchedule, lengths: Whole) -> Array:
    """The rates of a schedule at the middle of each stage."""
    rates = np.asarray(start, dtype=np.float64)
    return rates[np.cumsum(lengths) - (lengths + 1) // 2]


def _divided(start: StepwiseSchedule, stages: int) -> tuple[Whole, Array]:
    """The same schedule in `stages` stages: the longest ones are halved."""
    parts = list(zip(start.rates, start.lengths, strict=True))
    while len(parts) < stages:
        i = max(range(len(parts)), key=lambda j: parts[j][1])
        rate, length = parts[i]
        parts[i : i + 1] = [(rate, length // 2), (rate, length - length // 2)]
    rates, lengths = zip(*parts, strict=True)
    return np.array(lengths, dtype=np.int64), np.array(rates, dtype=np.float64)
