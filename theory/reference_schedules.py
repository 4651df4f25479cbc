"""Schedules by formula, each with its best parameters, to hold the oracle and a rule against.

Every function minimises the exact E f(x_T) over the parameters of one family, with all rates
between a floor and a cap, and returns a `Reference`:

    constant                α_t = α_0
    geometric               α̂_i = max(floor, α_0 rⁱ), on equal stages
    halving                 α̂_i = max(floor, α_0 2⁻ⁱ), a drop every g iterations
    polynomial              α_t = e + (α_0 − e)(1 − t/T)^p
    cosine                  α_t = e + (α_0 − e)(1 + cos(πt/T))/2
    constant_then_harmonic  α_t = max(floor, α_0/(1 + max(0, t − t_0)/τ))

with e, the rate towards which it decays, also free.  `greedy` minimises E f(x_{t+1}) at each t: the
short-horizon bias of rules that adapt the rate by the next risk.

The gradient by the rates is exact (`theory.final_risk`), that of a formula by its parameters too,
by a complex step.  Each search is L-BFGS-B from the best of many seeded parameters: local minima.

Sources: Wu, Ren, Liao and Grosse, ICLR 2018 (short-horizon bias); Loshchilov and Hutter, ICLR 2017
(cosine); Squire and Trapp, SIAM Rev. 40 (1998) 110–112 (complex step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from theory import checks
from theory.final_risk import risk_gradient, stage_risks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedule_search import NO_FLOOR, OVERFLOW, TINY, equal_lengths, rate_limits
from theory.schedules import StepwiseSchedule

__all__ = [
    "Reference",
    "constant",
    "constant_then_harmonic",
    "cosine",
    "geometric",
    "greedy",
    "halving",
    "polynomial",
]

Array = NDArray[Any]
Formula = Callable[[Array], Array]  # parameters, real or complex ↦ rates of the stages

_GAIN = 1e-6  # relative: a jump that gains less is not made
_STEP = 1e-50  # of the complex step: its square is lost in any sum


@dataclass(frozen=True)
class Reference:
    """The best of a family, under the limits it was asked for.

    schedule; risk : E f(x_T); parameters : by name, rates and times in iterations;
    max_rate, min_rate : the limits.
    """

    name: str
    schedule: StepwiseSchedule
    risk: float
    parameters: dict[str, float]
    max_rate: float
    min_rate: float


class _Setting(NamedTuple):
    """The checked arguments that all families share."""

    problem: NoisyQuadratic
    method: UnifiedMomentum
    steps: int
    floor: float
    cap: float
    min_rate: float

    @property
    def logs(self) -> tuple[float, float, float]:
        """Bounds of the logarithm of a rate; far below cap/T it hardly changes anything."""
        start = max(self.floor, self.cap / (100 * self.steps))
        return math.log(self.floor), math.log(self.cap), math.log(start)

    def rate(self, log: float) -> float:
        """exp, kept within the limits, which its rounding may miss."""
        return min(max(math.exp(log), self.floor), self.cap)

    def each_iteration(
        self, name: str, formula: Formula, box: _Box, names: Sequence[str], seed: int
    ) -> Reference:
        """The best of a formula for T rates, whose parameters are searched by their logarithms."""
        lengths = [1] * self.steps
        _, x = _best(self, formula, lengths, box, seed=seed)
        parameters = {
            each: math.exp(log) if each == "power" else self.rate(log)
            for each, log in zip(names, x, strict=True)
        }
        return self.reference(name, formula(x), lengths, parameters)

    def reference(
        self, name: str, rates: Array, lengths: Sequence[int], parameters: dict[str, float]
    ) -> Reference:
        """Of these rates, which rounding may have left outside of the limits; equal ones joined."""
        rates = np.clip(np.asarray(rates, dtype=np.float64), self.floor, self.cap)
        schedule = StepwiseSchedule.from_rates(np.repeat(rates, lengths).tolist())
        risk, _ = risk_gradient(self.problem, self.method, schedule)
        return Reference(name, schedule, risk, parameters, self.cap, self.min_rate)


def _setting(
    problem: NoisyQuadratic, method: UnifiedMomentum, steps: int, max_rate: float, min_rate: float
) -> _Setting:
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    T = checks.positive_integer("steps", steps)
    floor, cap = rate_limits(max_rate, min_rate)
    return _Setting(problem, method, T, floor, cap, float(min_rate))


def _larger(value: Array, other: Array | float) -> Array:
    """The larger of the two by real part: max for formulas on complex numbers."""
    return np.where(np.real(value) >= np.real(other), value, other)


class _Box(NamedTuple):
    """Bounds of the parameters, in the coordinates in which they are searched; the lower bounds of
    where searches start."""

    low: Array
    high: Array
    start: Array


def _box(*limits: tuple[float, ...]) -> _Box:
    """Of (low, high) or (low, high, start) for each coordinate."""
    low, high, start = np.array([(*each, each[0])[:3] for each in limits], dtype=np.float64).T
    return _Box(low, high, start)


def _strata(count: int, dimension: int, rng: np.random.Generator) -> Array:
    """(count, dimension) points of the unit cube: in each coordinate one to a stratum."""
    strata = np.argsort(rng.random((dimension, count)), axis=1).T
    return (strata + rng.random((count, dimension))) / count


def _best(
    setting: _Setting,
    formula: Formula,
    lengths: Sequence[int],
    box: _Box,
    *,
    seed: int,
    tried: int = 32,
    descents: int = 6,
    near: Array | None = None,
) -> tuple[float, Array]:
    """(log risk, coordinates): L-BFGS-B from the best `descents` of `tried` points of the box.

    near : from these coordinates alone, if given.
    """
    at = np.asarray(lengths, dtype=np.int64)
    width = box.high - box.low

    def objective(y: Array) -> tuple[float, Array]:
        x = box.low + width * y
        run = stage_risks(setting.problem, setting.method, formula(x), at)
        risk, gradient = max(float(run.risks[-1]), TINY), run.gradient().by_rate
        if not (math.isfinite(risk) and np.isfinite(gradient).all()):
            return OVERFLOW, np.zeros(len(x))
        jacobian = np.array([formula(z).imag / _STEP for z in x + 1j * _STEP * np.eye(len(x))])
        return math.log(risk), width * (jacobian @ gradient) / risk

    if near is None:
        points = _strata(tried, len(width), np.random.default_rng(seed))
        lowest = np.divide(box.start - box.low, width, out=np.zeros_like(width), where=width > 0)
        points = lowest + (1 - lowest) * points
        points = points[np.argsort([objective(y)[0] for y in points], kind="stable")[:descents]]
    else:
        points = np.divide(near - box.low, width, out=np.zeros_like(near), where=width > 0)[None]
    found = []
    for point in points:
        end = optimize.minimize(
            objective,
            point,
            jac=True,
            bounds=[(0.0, 1.0)] * len(width),
            method="L-BFGS-B",
            options={"ftol": 1e-13 if near is None else 1e-9, "gtol": 1e-9},
        )
        found.append((float(end.fun), box.low + width * end.x))
    value, x = min(found, key=lambda pair: pair[0])
    if value >= OVERFLOW:
        raise OverflowError(
            "every schedule that was tried overflows: min_rate * max curvature is "
            f"{setting.floor * float(max(setting.problem.curvature))}, stable is "
            f"< {setting.method.max_stable_step}"
        )
    return value, x


def constant(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    seed: int = 0,
) -> Reference:
    """The best constant rate; parameter `rate`.

    Arguments and errors, of all functions here: as `oracle.optimal_schedule`.
    """
    setting = _setting(problem, method, steps, max_rate, min_rate)
    _, x = _best(setting, np.exp, [setting.steps], _box(setting.logs), seed=seed)
    parameters = {"rate": setting.rate(x[0])}
    return setting.reference("constant", np.exp(x), [setting.steps], parameters)


def geometric(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    stages: int | None = None,
    seed: int = 0,
) -> Reference:
    """α̂_i = max(floor, α_0 rⁱ) on S equal stages; parameters `rate`, and `factor`, 0 < r ≤ 1.

    stages : S; default: one for each iteration.  r^{S−1} is at least 1e-9.
    """
    setting = _setting(problem, method, steps, max_rate, min_rate)
    lengths = equal_lengths(setting.steps, setting.steps if stages is None else stages)
    last = max(len(lengths) - 1, 1)
    i = np.arange(len(lengths)) / last

    def formula(x: Array) -> Array:
        return _larger(np.exp(x[0] - x[1] * i), setting.floor)

    box = _box(setting.logs, (0.0, -math.log(NO_FLOOR)))
    _, x = _best(setting, formula, lengths, box, seed=seed)
    parameters = {"rate": setting.rate(x[0]), "factor": math.exp(-x[1] / last)}
    return setting.reference("geometric", formula(x), lengths, parameters)


def halving(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    seed: int = 0,
) -> Reference:
    """α̂_i = max(floor, α_0 2⁻ⁱ), a drop every g iterations; parameters `rate` and `gap`.

    Of all g = 1 … T those of a geometric grid are tried, then every one between the neighbours of
    the best.
    """
    setting = _setting(problem, method, steps, max_rate, min_rate)
    T = setting.steps
    drops = math.ceil(math.log2(setting.cap / setting.floor))  # after which all is at the floor

    def stages(gap: int) -> list[int]:
        count = min(-(-T // gap), drops + 1)
        return [gap] * (count - 1) + [T - gap * (count - 1)]

    def formula(x: Array, count: int) -> Array:
        return _larger(np.exp(x[0]) / 2.0 ** np.arange(count), setting.floor)

    def best(gap: int) -> tuple[float, int, Array]:
        lengths = stages(gap)
        value, x = _best(
            setting,
            lambda x: formula(x, len(lengths)),
            lengths,
            _box(setting.logs),
            tried=12,
            descents=1,
            seed=seed,
        )
        return value, gap, x

    grid = sorted({round(T ** (i / 40)) for i in range(41)})
    found = [best(gap) for gap in grid]
    i = min(range(len(grid)), key=lambda j: found[j][0])
    between = range(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)] + 1)
    found += [best(gap) for gap in between if gap not in grid]
    _, gap, x = min(found, key=lambda triple: triple[:2])
    lengths = stages(gap)
    parameters = {"rate": setting.rate(x[0]), "gap": float(gap)}
    return setting.reference("halving", formula(x, len(lengths)), lengths, parameters)


def polynomial(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    seed: int = 0,
) -> Reference:
    """α_t = e + (α_0 − e)(1 − t/T)^p; parameters `rate`, `end`, and `power`, 1/16 ≤ p ≤ 64."""
    setting = _setting(problem, method, steps, max_rate, min_rate)
    left = np.log1p(-np.arange(setting.steps) / setting.steps)

    def formula(x: Array) -> Array:
        rate, end, power = np.exp(x)
        return end + (rate - end) * np.exp(power * left)

    box = _box(setting.logs, setting.logs, (-math.log(16), math.log(64)))
    return setting.each_iteration("polynomial", formula, box, ("rate", "end", "power"), seed)


def cosine(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    seed: int = 0,
) -> Reference:
    """α_t = e + (α_0 − e)(1 + cos(πt/T))/2; parameters `rate` and `end`."""
    setting = _setting(problem, method, steps, max_rate, min_rate)
    share = (1 + np.cos(np.pi * np.arange(setting.steps) / setting.steps)) / 2

    def formula(x: Array) -> Array:
        rate, end = np.exp(x)
        return end + (rate - end) * share

    box = _box(setting.logs, setting.logs)
    return setting.each_iteration("cosine", formula, box, ("rate", "end"), seed)


def constant_then_harmonic(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
    *,
    seed: int = 0,
) -> Reference:
    """α_t = max(floor, α_0/(1 + max(0, t − t_0)/τ)); parameters `rate`, `start`, `scale`.

    0 ≤ t_0 ≤ T, real.  τ is searched through κ = α_0 τ, to which α_t t tends and which is hardly
    bound to the others; 1e-3 ≤ κ a_max ≤ 1e3 T.  In t_0 there is a minimum for each iteration, so
    that the search goes on from the best by jumps of t_0, halved when they do not help.
    """
    setting = _setting(problem, method, steps, max_rate, min_rate)
    T, largest = setting.steps, float(max(problem.curvature))
    lengths, t = [1] * T, np.arange(T)

    def formula(x: Array) -> Array:
        rate, start, κ = np.exp(x[0]), x[1], np.exp(x[2])
        return _larger(rate / (1 + _larger(t - start, 0.0) * rate / κ), setting.floor)

    box = _box(setting.logs, (0.0, T), (math.log(1e-3 / largest), math.log(1e3 * T / largest)))
    value, x = _best(setting, formula, lengths, box, seed=seed)
    step = T // 16
    while step:
        jumps = [x + np.array([0, side * step, 0]) for side in (-1, 1)]
        near = [np.clip(jump, box.low, box.high) for jump in jumps]
        found = [_best(setting, formula, lengths, box, seed=seed, near=each) for each in near]
        better = min(found, key=lambda pair: pair[0])
        if better[0] < value - _GAIN:
            value, x = better
        else:
            step //= 2
    rate = setting.rate(x[0])
    parameters = {"rate": rate, "start": float(x[1]), "scale": math.exp(x[2]) / rate}
    return setting.reference("constant_then_harmonic", formula(x), lengths, parameters)


def greedy(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    steps: int,
    max_rate: float,
    min_rate: float = 0.0,
) -> Reference:
    """α_t minimises E f(x_{t+1}) given the rates before it; no parameters.

    With P = 1 + βs, x_{t+1} = x + βd − Pαa(x − c), so that E f(x_{t+1}) is quadratic in α:

        α_t = Σ a² E[x(x + βd)] / (P Σ a³ (E x² + v)),

    or the nearest rate that floor and cap allow; the cap where the denominator is 0.
    """
    setting = _setting(problem, method, steps, max_rate, min_rate)
    a, v, start = (
        np.asarray(x, dtype=np.float64)
        for x in (problem.curvature, problem.noise_variance, problem.start)
    )
    β, (P, Q) = float(method.momentum), map(float, method.gains)
    xx, xd, dd = start**2, np.zeros_like(a), np.zeros_like(a)
    rates = np.empty(setting.steps)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(setting.steps):
            slope, bend = a**2 @ (xx + β * xd), P * (a**3 @ (xx + v))
            best = float(slope / bend) if bend > 0 else setting.cap
            rate = min(max(best, setting.floor), setting.cap)
            rates[t] = rate
            p, q = P * rate * a, Q * rate * a
            r = 1 - p
            xx, xd, dd = (
                r * r * xx + 2 * β * r * xd + β * β * dd + p * p * v,
                -q * r * xx + β * (r - q) * xd + β * β * dd + p * q * v,
                q * q * xx - 2 * β * q * xd + β * β * dd + q * q * v,
            )
    return setting.reference("greedy", rates, [1] * setting.steps, {})
