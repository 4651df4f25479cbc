"""What a test bed simulates: stochastic gradients of a function whose excess risk is exact.

A world works in coordinates whose origin is the minimiser, since small numbers keep their digits
there.  A rule must not profit from it: the weights that it is shown are `minimiser` + x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.problems import FiniteSum, NoisyQuadratic

__all__ = ["Convex", "LeastSquares", "Quadratic", "World"]

Array = NDArray[np.float64]


class World(Protocol):
    """Stochastic gradients for rows of iterates, and their exact excess risk.

    start : x_0, shape (n,).   minimiser : what the origin stands for, shape (n,).
    """

    @property
    def start(self) -> Array:
        """x_0, shape (n,)."""

    @property
    def minimiser(self) -> Array:
        """The weights that the origin stands for, shape (n,)."""

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> Any:
        """A sequence of `steps` samples, each for S trajectories; they serve every contender."""

    def gradient(self, x: Array, sample: Any, out: Array) -> Array:
        """G at x, shape (..., S, n), for a sample of S trajectories; written to `out`."""

    def loss(self, x: Array, gradient: Array, sample: Any) -> Array:
        """The loss that was observed with that gradient, shape (..., S)."""

    def risk(self, x: Array) -> Array:
        """f(x) − f*, shape (...)."""


def _minimiser(start: Array) -> Array:
    """±x_0, with fixed signs: weights start at x* + x_0, in each coordinate 0 or 2x_0."""
    signs = 1 - 2 * np.random.default_rng(0).integers(2, size=len(start))
    return signs * start


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A noisy quadratic, UAI 2024, Definition 3.1: G = a(x − c), loss ½ Σ a(x − c)²."""

    problem: NoisyQuadratic

    def __post_init__(self) -> None:
        checks.instance("problem", self.problem, NoisyQuadratic)

    @property
    def start(self) -> Array:
        """x_0."""
        return np.asarray(self.problem.start, dtype=np.float64)

    @property
    def minimiser(self) -> Array:
        """±x_0."""
        return _minimiser(self.start)

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> Array:
        """c ~ N(0, v), shape (steps, S, n)."""
        c = rng.standard_normal((steps, trajectories, self.problem.dimension))
        c *= np.sqrt(np.asarray(self.problem.noise_variance, dtype=np.float64))
        return c

    def gradient(self, x: Array, sample: Array, out: Array) -> Array:
        """a(x − c)."""
        np.subtract(x, sample, out=out)
        np.multiply(out, self.problem.curvature, out=out)
        return out

    def loss(self, x: Array, gradient: Array, sample: Array) -> Array:
        """½ Σ a(x − c)² = ½ Σ G(x − c)."""
        return np.einsum("...n,...n->...", gradient, x - sample) / 2

    def risk(self, x: Array) -> Array:
        """½ Σ a x²."""
        return np.einsum("...n,...n,n->...", x, x, self.problem.curvature) / 2


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """One sample a step: G = u(⟨u, x⟩ − ε), u ~ N(0, diag a), ε ~ N(0, σ²); loss ½(⟨u, x⟩ − ε)².

    The noise of the gradient grows with the distance from the minimiser: it is multiplicative.

    curvature : a, shape (n,), > 0.   residual_variance : σ² ≥ 0.   start : x_0, scalar or (n,).
    """

    curvature: Array
    residual_variance: float
    start: Array

    def __post_init__(self) -> None:
        # The checks are those of a quadratic.
        quadratic = NoisyQuadratic(self.curvature, self.residual_variance, self.start)
        object.__setattr__(self, "curvature", quadratic.curvature)
        object.__setattr__(self, "start", quadratic.start)

    @property
    def minimiser(self) -> Array:
        """±x_0."""
        return _minimiser(self.start)

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> list[Any]:
        """(u, ε) for each step, shapes (S, n) and (S,)."""
        u = rng.standard_normal((steps, trajectories, len(self.curvature))) * np.sqrt(
            self.curvature
        )
        ε = rng.standard_normal((steps, trajectories)) * np.sqrt(self.residual_variance)
        return list(zip(u, ε, strict=True))

    def gradient(self, x: Array, sample: Any, out: Array) -> Array:
        """u(⟨u, x⟩ − ε)."""
        u, ε = sample
        residual = np.einsum("...sn,sn->...s", x, u) - ε
        return np.multiply(residual[..., None], u, out=out)

    def loss(self, x: Array, gradient: Array, sample: Any) -> Array:
        """½(⟨u, x⟩ − ε)²."""
        u, ε = sample
        return (np.einsum("...sn,sn->...s", x, u) - ε) ** 2 / 2

    def risk(self, x: Array) -> Array:
        """½ Σ a x²."""
        return np.einsum("...n,...n,n->...", x, x, self.curvature) / 2


@dataclass(frozen=True, eq=False)
class Convex:
    """A finite sum on real data with mini-batches, `theory.problems.FiniteSum`."""

    problem: FiniteSum

    def __post_init__(self) -> None:
        checks.instance("problem", self.problem, FiniteSum)
        if self.problem.batch is None:
            raise ValueError("the finite sum must draw mini-batches, got batch = None")

    @property
    def start(self) -> Array:
        """x_0 − x̂."""
        return self.problem.start - self.problem.minimiser

    @property
    def minimiser(self) -> Array:
        """x̂."""
        return self.problem.minimiser

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> Any:
        """Indices with replacement, shape (steps, S, batch)."""
        shape = (steps, trajectories, self.problem.batch or 1)
        return rng.integers(len(self.problem.targets), size=shape)

    def _residual(self, x: Array, sample: Any) -> tuple[Array, Array, Array]:
        """The features (S, b, n) of the batch, the predictions (..., S, b), the targets (S, b)."""
        a, b = self.problem.features[sample], self.problem.targets[sample]
        z = np.einsum("...sn,sbn->...sb", x + self.problem.minimiser, a)
        return a, z, b

    def gradient(self, x: Array, sample: Any, out: Array) -> Array:
        """The mean gradient of the batch."""
        a, z, b = self._residual(x, sample)
        u = self.problem.loss.derivative(z, np.broadcast_to(b, z.shape))
        return np.einsum("...sb,sbn->...sn", u, a / a.shape[1], out=out)

    def loss(self, x: Array, gradient: Array, sample: Any) -> Array:
        """The mean loss of the batch."""
        _, z, b = self._residual(x, sample)
        return self.problem.loss.value(z, np.broadcast_to(b, z.shape)).mean(-1)

    def risk(self, x: Array) -> Array:
        """f(x) − f(x̂), at least 0: x̂ is a minimiser to a solver's accuracy."""
        return np.maximum(
            self.problem.value(x + self.problem.minimiser) - self.problem.minimum, 0.0
        )
