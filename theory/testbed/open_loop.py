"""Open-loop schedules: what they ask for, and their exact expected risk, with no sampling.

Each is a shape α_t/α_0 of t, of the horizon T where it needs one, and of one parameter, which is
tuned over `grid`; the rates never rise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory import checks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.testbed.contenders import Observation, Observe
from theory.testbed.worlds import LeastSquares, Quadratic, World

__all__ = ["SHAPES", "Clock", "Shape", "expected_risks"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A family of schedules.

    formula : (t, T, parameter) ↦ α_t/α_0.   recommended : the parameter of its source.
    knows_horizon : whether it depends on T.   source : where it comes from.
    """

    name: str
    formula: Callable[[Array, int, float], Array]
    recommended: float
    grid: tuple[float, ...]
    knows_horizon: bool
    source: str

    def rates(self, first_rate: float, steps: int, parameter: float | None = None) -> Array:
        """α_0 … α_{T−1} for the horizon T = `steps`."""
        T = checks.positive_integer("steps", steps)
        chosen = self.recommended if parameter is None else parameter
        return first_rate * self.formula(np.arange(T, dtype=np.float64), T, chosen)

    def label(self, parameter: float) -> str:
        """Its name with the parameter."""
        return f"{self.name} {parameter:g}"


def _steps(t: Array, T: int, factor: float) -> Array:
    return np.where(t < T / 2, 1.0, np.where(t < 3 * T / 4, factor, factor**2))


SHAPES = (
    Shape(
        "constant",
        lambda t, T, share: np.full_like(t, share),
        1.0,
        (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
        False,
        "α_t = share·α_0",
    ),
    Shape(
        "geometric",
        lambda t, T, end: end ** (t / T),
        1e-2,
        (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        True,
        "α_t = α_0 endᵗᐟᵀ; UAI 2024, Figure 2 ends at 1/60",
    ),
    Shape(
        "cosine",
        lambda t, T, share: share * (1 + np.cos(np.pi * t / T)) / 2,
        1.0,
        (1.0, 0.3, 0.1, 0.03, 0.01),
        True,
        "Loshchilov and Hutter, ICLR 2017, without restarts, to 0",
    ),
    Shape(
        "1/t",
        lambda t, T, scale: 1 / (1 + t / scale),
        100.0,
        (1.0, 10.0, 100.0, 1000.0),
        False,
        "Robbins and Monro, Ann. Math. Statist. 22 (1951)",
    ),
    Shape(
        "step",
        _steps,
        0.1,
        (0.3, 0.1, 0.03, 0.01),
        True,
        "at ½ and ¾ of the run; He, Zhang, Ren and Sun, CVPR 2016",
    ),
)


@dataclass(frozen=True, eq=False)
class Clock:
    """A contender that follows given rates, whatever it sees.

    shares : α_t in proportion, t = 0, 1, …; never rising; the last one is kept.
    """

    shares: Array
    name: str

    def __post_init__(self) -> None:
        shares = np.asarray(self.shares, dtype=np.float64)
        if shares.ndim != 1 or not len(shares) or not (shares > 0).all():
            raise ValueError(f"shares must be a sequence of numbers > 0, got {self.shares!r}")
        if (np.diff(shares) > 0).any():
            raise ValueError("shares must not rise: a contender only drops rates")
        object.__setattr__(self, "shares", shares)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        shares, first = self.shares / self.shares[0], rates.copy()

        def observe(seen: Observation) -> Array | None:
            wanted = first * shares[min(seen.updates, len(shares) - 1)]
            return None if (wanted == seen.rates).all() else np.minimum(wanted / seen.rates, 1.0)

        return observe


def expected_risks(
    world: World, method: UnifiedMomentum, rates: ArrayLike, horizons: Sequence[int]
) -> Array:
    """E f(x_T) for K schedules at once, at each horizon, shape (K, H), exactly.

    rates : (K, T), α_0 … α_{T−1} of each schedule.   horizons : 1 ≤ T_h ≤ T.

    The second moments of all modes and schedules advance together (`theory.final_risk` has the
    recursion for additive noise, and its powers).  With multiplicative noise, β = 0 and w = E x²,

        w ← (1 − 2αa + 2α²a²) w + α²a (Σ a w + σ²),

    as E u_i²⟨u, x⟩² = a_i Σ a w + 2a_i² w_i for Gaussian features.

    Raises TypeError for a world with no such recursion, ValueError for horizons or rates that do
    not fit or for multiplicative noise with momentum.
    """
    checks.instance("method", method, UnifiedMomentum)
    α = np.asarray(rates, dtype=np.float64)
    if α.ndim != 2 or α.shape[1] < max(horizons) or min(horizons) < 1:
        raise ValueError(f"rates must be (K, T) with T >= every horizon, got shape {α.shape}")
    if isinstance(world, Quadratic):
        step = _additive(world.problem, method)
    elif isinstance(world, LeastSquares):
        if method.momentum:
            raise ValueError("with multiplicative noise momentum must be 0")
        step = _multiplicative(world)
    else:
        raise TypeError(f"world must be a Quadratic or a LeastSquares, got {world!r}")
    a = (
        world.problem.curvature.astype(np.float64)
        if isinstance(world, Quadratic)
        else world.curvature
    )
    K = len(α)
    w = np.zeros((3, K, len(a)))
    w[0] = world.start**2
    risks = np.empty((K, len(horizons)))
    wanted = {T: h for h, T in enumerate(horizons)}
    for t in range(max(horizons)):
        w = step(w, α[:, t, None])
        if t + 1 in wanted:
            risks[:, wanted[t + 1]] = np.einsum("kn,n->k", w[0], a) / 2
    return risks


_Step = Callable[[Array, Array], Array]


def _additive(problem: NoisyQuadratic, method: UnifiedMomentum) -> _Step:
    a, v = (np.asarray(x, dtype=np.float64) for x in (problem.curvature, problem.noise_variance))
    β, (P, Q) = float(method.momentum), map(float, method.gains)

    def plain(w: Array, α: Array) -> Array:
        h = α * a
        w[0] = (1 - h) ** 2 * w[0] + h**2 * v
        return w

    def with_momentum(w: Array, α: Array) -> Array:
        p, q = P * α * a, Q * α * a
        r = 1 - p
        xx, xd, dd = w
        tail = β * β * dd
        return np.stack(
            [
                r * r * xx + 2 * β * r * xd + tail + p * p * v,
                -q * r * xx + β * (r - q) * xd + tail + p * q * v,
                q * q * xx - 2 * β * q * xd + tail + q * q * v,
            ]
        )

    return with_momentum if β else plain


def _multiplicative(world: LeastSquares) -> _Step:
    a, σσ = world.curvature, world.residual_variance

    def step(w: Array, α: Array) -> Array:
        h = α * a
        total = np.einsum("kn,n->k", w[0], a)[:, None] + σσ
        w[0] = (1 - 2 * h + 2 * h * h) * w[0] + α * h * total
        return w

    return step
