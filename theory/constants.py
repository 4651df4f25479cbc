"""The constants of a convex problem that the bounds are made of: R, F_0, G and δ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

__all__ = ["Constants", "constants"]


@dataclass(frozen=True)
class Constants:
    """R ≥ ‖x_0 − x*‖, F0 ≥ f(x_0) − f*, G ≥ ‖∂f‖ and δ, a standard deviation of the noise."""

    R: Any
    F0: Any
    G: Any
    δ: Any

    @property
    def second_moment(self) -> Any:
        """G² + δ² ≥ E‖G_t‖²."""
        return self.G**2 + self.δ**2

    @property
    def product(self) -> Any:
        """G√(G² + δ²) ≥ |E⟨∂f(x_t), G_i⟩| for i < t."""
        return self.G**2 if self.δ == 0 else self.G * math.sqrt(self.second_moment)


def constants(distance: Any, gap: Any, subgradient: Any, noise: Any) -> Constants:
    """The checked constants; `gap=None` means GR, which convexity implies.

    Raises ValueError if one is negative or not finite, TypeError if one is no number (SymPy
    expressions pass unchecked).
    """
    named: dict[str, Any] = {"distance": distance, "subgradient": subgradient, "noise": noise}
    if gap is not None:
        named["gap"] = gap
    for name, value in named.items():
        if not isinstance(value, Real) and not hasattr(value, "free_symbols"):
            raise TypeError(f"{name} must be a real number, got {value!r}")
        if hasattr(value, "free_symbols"):
            continue
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be finite and >= 0, got {value}")
    return Constants(distance, subgradient * distance if gap is None else gap, subgradient, noise)
