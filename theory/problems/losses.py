"""Losses ℓ(z, b) of a prediction z, convex and Lipschitz in z, with their conjugates.

Each has `lipschitz` = L, the value, a subgradient in z, the conjugate ℓ*(u, b) = sup_z uz − ℓ(z, b)
and its domain, an interval with 0 in it; arrays are numpy or torch and broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from theory.problems.convex import Array, namespace

__all__ = ["AbsoluteLoss", "HingeLoss", "HuberLoss", "LogisticLoss", "Loss"]


class Loss(Protocol):
    """ℓ(z, b) ≥ 0 and what minimisation and duality need of it."""

    @property
    def lipschitz(self) -> float:
        """L = sup |∂ℓ/∂z|."""

    @property
    def classes(self) -> bool:
        """Whether b must be ±1."""

    def value(self, z: Any, b: Any) -> Any:
        """ℓ(z, b)."""

    def derivative(self, z: Any, b: Any) -> Any:
        """An element of ∂ℓ/∂z; 0 or the flat side's where ℓ has a kink."""

    def conjugate(self, u: Array, b: Array) -> Array:
        """ℓ*(u, b) for u in the domain; numpy."""

    def domain(self, b: Array) -> tuple[Array, Array]:
        """The interval in which ℓ*(·, b) is finite."""


@dataclass(frozen=True)
class AbsoluteLoss:
    """ℓ(z, b) = |z − b|, ℓ*(u, b) = ub on [−1, 1]."""

    lipschitz = 1.0
    classes = False

    def value(self, z: Any, b: Any) -> Any:
        """|z − b|."""
        return abs(z - b)

    def derivative(self, z: Any, b: Any) -> Any:
        """sign(z − b)."""
        return namespace(z).sign(z - b)

    def conjugate(self, u: Array, b: Array) -> Array:
        """ub."""
        return u * b

    def domain(self, b: Array) -> tuple[Array, Array]:
        """[−1, 1]."""
        return -np.ones_like(b), np.ones_like(b)


@dataclass(frozen=True)
class HuberLoss:
    """ℓ(z, b) = ½r² for |r| ≤ w, w|r| − ½w² beyond, r = z − b; ℓ*(u, b) = ub + ½u² on [−w, w].

    width : w > 0 and finite, else ValueError.
    """

    width: float = 1.0
    classes = False

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width must be finite and > 0, got {self.width}")

    @property
    def lipschitz(self) -> float:
        """w."""
        return float(self.width)

    def value(self, z: Any, b: Any) -> Any:
        """With c = clip(r, −w, w): c(r − ½c)."""
        c = self.derivative(z, b)
        return c * ((z - b) - c / 2)

    def derivative(self, z: Any, b: Any) -> Any:
        """clip(r, −w, w)."""
        return (z - b).clip(-self.width, self.width)

    def conjugate(self, u: Array, b: Array) -> Array:
        """ub + ½u²."""
        return u * b + u * u / 2

    def domain(self, b: Array) -> tuple[Array, Array]:
        """[−w, w]."""
        return np.full_like(b, -self.width), np.full_like(b, self.width)


def _class_domain(b: Array) -> tuple[Array, Array]:
    """u = −λb with 0 ≤ λ ≤ 1."""
    return np.minimum(-b, 0.0), np.maximum(-b, 0.0)


@dataclass(frozen=True)
class HingeLoss:
    """ℓ(z, b) = max(0, 1 − bz), b = ±1; ℓ*(u, b) = ub for −ub in [0, 1]."""

    lipschitz = 1.0
    classes = True

    def value(self, z: Any, b: Any) -> Any:
        """max(0, 1 − bz)."""
        return (1 - b * z).clip(0, None)

    def derivative(self, z: Any, b: Any) -> Any:
        """−b where bz < 1, else 0."""
        return -b * (b * z < 1)

    def conjugate(self, u: Array, b: Array) -> Array:
        """ub."""
        return u * b

    def domain(self, b: Array) -> tuple[Array, Array]:
        """[−1, 0] for b = 1, [0, 1] for b = −1."""
        return _class_domain(b)


@dataclass(frozen=True)
class LogisticLoss:
    """ℓ(z, b) = log(1 + e^{−bz}), b = ±1; with λ = −ub in [0, 1], ℓ* = λ log λ + (1−λ) log(1−λ)."""

    lipschitz = 1.0
    classes = True

    def value(self, z: Any, b: Any) -> Any:
        """max(−bz, 0) + log(1 + e^{−|z|}), which does not overflow."""
        xp = namespace(z)
        return (-b * z).clip(0, None) + xp.log1p(xp.exp(-abs(z)))

    def derivative(self, z: Any, b: Any) -> Any:
        """−b/(1 + e^{bz}), as −½b(1 − tanh(½bz))."""
        return -b / 2 * (1 - namespace(z).tanh(b * z / 2))

    def conjugate(self, u: Array, b: Array) -> Array:
        """λ log λ + (1−λ) log(1−λ), 0 at both ends."""
        λ = -u * b
        inner = (λ > 0) & (λ < 1)
        safe = np.where(inner, λ, 0.5)
        return np.where(inner, safe * np.log(safe) + (1 - safe) * np.log1p(-safe), 0.0)

    def domain(self, b: Array) -> tuple[Array, Array]:
        """[−1, 0] for b = 1, [0, 1] for b = −1."""
        return _class_domain(b)
