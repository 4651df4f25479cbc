"""The instances of the test bed: named spectra, noise levels, starts; some held out of all tuning.

The first rate, which is also the cap of the oracle's, is 1.2/a_max for plain SGD and 1.2(1−β)/a_max
with momentum β: the same effective rate.  There is no floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic, datasets
from theory.testbed.worlds import Convex, LeastSquares, Quadratic, World

__all__ = [
    "HORIZONS",
    "METHODS",
    "Instance",
    "convex_instances",
    "multiplicative_instances",
    "quadratic_instances",
    "stretched",
]

Array = NDArray[np.float64]

HORIZONS = (2000, 4000, 8000, 20000)
METHODS = {
    "sgd": UnifiedMomentum.sgd(),
    "heavy ball 0.9": UnifiedMomentum.heavy_ball(0.9),
    "nesterov 0.9": UnifiedMomentum.nesterov(0.9),
}
_STEP = 1.2  # α_0 a_max, the paper's for its largest rate


@dataclass(frozen=True, eq=False)
class Instance:
    """A world with its first rate.

    name : of the instance; spectrum : the family, by which instances are held out.
    largest : α_0 times this is the first step; a_max where the noise is additive.
    quick : whether it is part of the quick level, and run with momentum at the full one.
    """

    name: str
    spectrum: str
    world: World
    largest: float
    held_out: bool = False
    quick: bool = False
    step: float = _STEP

    def rate(self, method: UnifiedMomentum) -> float:
        """α_0 = step·(1 − β)/largest."""
        return self.step * (1 - float(method.momentum)) / self.largest

    @property
    def quadratic(self) -> NoisyQuadratic | None:
        """The noisy quadratic, where the noise is additive and the oracle is known."""
        return self.world.problem if isinstance(self.world, Quadratic) else None


def marchenko_pastur(n: int, ratio: float) -> Array:
    """Quantiles of the Marchenko–Pastur law of variance 1 and n/N = ratio < 1, at (i − ½)/n."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    x = np.linspace(low, high, 20001)
    density = np.sqrt((high - x) * (x - low)) / x
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp((np.arange(n) + 0.5) / n, mass / mass[-1], x)


def _power(n: int, exponent: float) -> Array:
    return np.arange(1, n + 1, dtype=np.float64) ** -exponent


_SPECTRA: dict[str, Callable[[int], Array]] = {
    "paper": lambda n: np.arange(1, n + 1) / 10,
    "power 1": lambda n: _power(n, 1.0),
    "power 1.5": lambda n: _power(n, 1.5),
    "two clusters": lambda n: np.where(np.arange(n) < n // 2, 1.0, 0.01),
    "nearly singular": lambda n: np.concatenate([np.linspace(0.1, 1, n - 1), [1e-4]]),
    "geometric": lambda n: np.geomspace(1e-3, 1, n),
    "Marchenko-Pastur": lambda n: marchenko_pastur(n, 0.5),
    "power 0.5": lambda n: _power(n, 0.5),
    "one curvature": np.ones,
}
_HELD_OUT = ("geometric", "Marchenko-Pastur", "power 0.5", "one curvature")

# name of the spectrum, n, noise v, x_0, whether v ~ 1/a, whether x_0 ~ 1/√a, quick
_INSTANCES: tuple[tuple[str, int, float, float, bool, bool, bool], ...] = (
    ("paper", 200, 0.02, 2.0, False, False, False),
    ("paper", 20, 2.0, 2.0, False, False, True),
    ("power 1", 50, 0.02, 2.0, False, False, True),
    ("power 1", 50, 0.5, 2.0, True, False, False),
    ("power 1.5", 100, 0.02, 1.0, False, True, False),
    ("power 1.5", 30, 2.0, 2.0, False, False, False),
    ("two clusters", 40, 0.02, 2.0, False, False, False),
    ("two clusters", 40, 2.0, 2.0, True, False, False),
    ("nearly singular", 30, 0.02, 2.0, False, False, False),
    ("nearly singular", 50, 1.0, 1.0, False, False, True),
    ("geometric", 50, 0.02, 2.0, False, False, True),
    ("geometric", 40, 1.0, 1.0, True, True, False),
    ("Marchenko-Pastur", 100, 0.02, 2.0, False, False, False),
    ("Marchenko-Pastur", 40, 2.0, 2.0, True, False, True),
    ("power 0.5", 50, 0.02, 1.0, False, True, False),
    ("power 0.5", 50, 2.0, 2.0, True, False, False),
    ("one curvature", 20, 1.0, 2.0, False, False, False),
    ("one curvature", 40, 0.02, 10.0, False, False, False),
)


def _instance(
    spectrum: str, n: int, noise: float, start: float, like_a: bool, equal_loss: bool, quick: bool
) -> Instance:
    a = _SPECTRA[spectrum](n)
    v = noise * a.mean() / a if like_a else noise * np.ones(n)
    x = start * np.sqrt(a.mean() / a) if equal_loss else start * np.ones(n)
    marks = f"{', v~1/a' if like_a else ''}{', x~1/√a' if equal_loss else ''}"
    return Instance(
        name=f"{spectrum}, n={n}, v={noise:g}, x={start:g}{marks}",
        spectrum=spectrum,
        world=Quadratic(NoisyQuadratic(a, v, x)),
        largest=float(a.max()),
        held_out=spectrum in _HELD_OUT,
        quick=quick,
    )


def quadratic_instances(*, quick: bool = False) -> tuple[Instance, ...]:
    """The noisy quadratics: all, or those of the quick level."""
    every = (_instance(*each) for each in _INSTANCES)
    return tuple(each for each in every if each.quick or not quick)


def multiplicative_instances() -> tuple[Instance, ...]:
    """Least squares one sample a step; the first rate is ½/tr A, well inside of stability."""
    found = []
    for spectrum, n, noise in (("power 1", 50, 0.1), ("Marchenko-Pastur", 40, 1.0)):
        a = _SPECTRA[spectrum](n)
        world = LeastSquares(a, noise, np.full(n, 1.0))
        name = f"least squares, {spectrum}, n={n}, σ²={noise:g}"
        found.append(
            Instance(name, spectrum, world, float(a.sum()), spectrum in _HELD_OUT, step=0.5)
        )
    return tuple(found)


def convex_instances() -> tuple[Instance, ...]:
    """Real data that come with scikit-learn, mini-batches of 8; the first rate is 1/L.

    L bounds the curvature of f: that of the loss times the largest eigenvalue of AᵀA/N.
    """
    from theory.problems.losses import HuberLoss

    problems: dict[str, tuple[Any, float]] = {
        "logistic, breast cancer": (datasets.breast_cancer(batch=8), 0.25),
        "logistic, digits": (datasets.digits(batch=8, resolution=4), 0.25),
        "Huber, diabetes": (datasets.diabetes(HuberLoss(1.0), batch=8), 1.0),
    }
    return tuple(
        Instance(
            name,
            "real data",
            Convex(problem),
            bend * float(np.linalg.norm(problem.features, 2) ** 2) / len(problem.targets),
            step=1.0,
        )
        for name, (problem, bend) in problems.items()
    )


def stretched(problem: NoisyQuadratic, times: float) -> NoisyQuadratic:
    """Curvature a/c, noise variance c·v: the same process, c times slower, as αa → 0.

    At one rate α the stationary variance αav/2 of every mode is that of the problem itself, and
    so are the start and the noise of a step in units of √(relaxation time).
    """
    if not times > 0:
        raise ValueError(f"times must be > 0, got {times}")
    return NoisyQuadratic(problem.curvature / times, problem.noise_variance * times, problem.start)
