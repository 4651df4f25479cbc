"""Additive noise of a subgradient, with an exact variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from theory import checks
from theory.problems.convex import Array, ConvexProblem, finite_array, like, normals, signs

__all__ = ["AdditiveNoise", "GaussianNoise", "NoiseLaw", "TwoPointNoise"]


class NoiseLaw(Protocol):
    """A random vector ξ with E ξ = 0 and E‖ξ‖² = deviation²."""

    @property
    def deviation(self) -> float:
        """δ."""

    def sample(self, x: Any, rng: Any) -> Any:
        """ξ for every row of x, shape (…, n), independent; of the kind of x."""


def _check_deviation(deviation: Any) -> None:
    if not 0 <= deviation < math.inf:
        raise ValueError(f"deviation must be finite and >= 0, got {deviation}")


@dataclass(frozen=True, eq=False)
class TwoPointNoise:
    """ξ = ±δe with probability ½ each, e a unit vector; without e, ξ_i = ±δ/√n independently.

    Either way ‖ξ‖ = δ always.

    Parameters
    ----------
    deviation : δ ≥ 0.
    direction : shape (n,), not 0; e is this over its norm.

    Raises
    ------
    ValueError
        If δ < 0 or not finite, or the direction is 0 or not finite.
    """

    deviation: float
    direction: Array | None = None

    def __post_init__(self) -> None:
        _check_deviation(self.deviation)
        if self.direction is None:
            return
        e = finite_array("direction", self.direction, 1)
        norm = float(np.linalg.norm(e))
        if norm == 0:
            raise ValueError("direction must not be 0")
        e /= norm
        e.setflags(write=False)
        object.__setattr__(self, "direction", e)

    def sample(self, x: Any, rng: Any) -> Any:
        """ξ for every row of x, shape (…, n); x itself does not matter."""
        if self.direction is None:
            return signs(x, x.shape, rng) * (self.deviation / math.sqrt(x.shape[-1]))
        return signs(x, (*x.shape[:-1], 1), rng) * like(self.deviation * self.direction, x)


@dataclass(frozen=True)
class GaussianNoise:
    """ξ ~ N(0, (δ²/n) I), so that E‖ξ‖² = δ²; δ = `deviation` ≥ 0 and finite, else ValueError."""

    deviation: float

    def __post_init__(self) -> None:
        _check_deviation(self.deviation)

    def sample(self, x: Any, rng: Any) -> Any:
        """ξ for every row of x, shape (…, n); x itself does not matter."""
        return normals(x, x.shape, rng) * (self.deviation / math.sqrt(x.shape[-1]))


@dataclass(frozen=True, eq=False, init=False)
class AdditiveNoise(ConvexProblem):
    """G_t = G_t(problem) + ξ, ξ of the given law, independent of everything: the variances add.

    Parameters
    ----------
    problem : any `ConvexProblem`.
    law : `TwoPointNoise` or `GaussianNoise`.

    Raises
    ------
    TypeError
        If problem is something else.
    ValueError
        If the law has a direction of another dimension.
    """

    problem: ConvexProblem
    law: NoiseLaw

    def __init__(self, problem: ConvexProblem, law: NoiseLaw) -> None:
        checks.instance("problem", problem, ConvexProblem)
        direction = getattr(law, "direction", None)
        if direction is not None and direction.shape != problem.start.shape:
            raise ValueError(
                f"direction must have the shape {problem.start.shape} of the problem's points, "
                f"got {direction.shape}"
            )
        self._set(
            start=problem.start,
            minimiser=problem.minimiser,
            minimum=problem.minimum,
            minimum_lower=problem.minimum_lower,
            subgradient_bound=problem.subgradient_bound,
            noise=math.hypot(problem.noise, law.deviation),
            problem=problem,
            law=law,
        )

    @property
    def footprint(self) -> int:
        """That of the problem."""
        return self.problem.footprint

    def value(self, x: Any) -> Any:
        """f(x) of the problem; shapes (…, n) to (…)."""
        return self.problem.value(x)

    def subgradient(self, x: Any) -> Any:
        """∂f(x) of the problem, without noise; shapes (…, n) to (…, n)."""
        return self.problem.subgradient(x)

    def stochastic_subgradient(self, x: Any, rng: Any) -> Any:
        """G_t(problem) + ξ; arguments as for `ConvexProblem`."""
        return self.problem.stochastic_subgradient(x, rng) + self.law.sample(x, rng)

    def noise_variance_at(self, x: Any) -> Any:
        """The problem's variance at x plus δ²; shapes (…, n) to (…)."""
        return self.problem.noise_variance_at(x) + self.law.deviation**2
