"""Algorithm 1 of UAI 2024 written out from its page: the audit's own route beside `autodrop`.

Angles are in degrees here, as eq. (2) has them. The smoothing formulas take plain numbers, and
symbols with ``exp=sympy.exp``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Smooth = Callable[[list[float]], float]


def kernel(x: Any, y: Any, σ: Any, exp: Any = math.exp, sign: int = +1) -> Any:
    """K(x, y; σ) = exp(±(x − y)²/2σ²); as printed with the sign +."""
    return exp(sign * (x - y) ** 2 / (2 * σ**2))


def gaussian_as_printed(x: Sequence[Any], t: int, σ: Any, exp: Any = math.exp) -> Any:
    """y_t = Σ_i x_t K(x_t, x_{t+i}; σ) / Σ_i K(x_t, x_{t+i}; σ).

    The display of Section 4, p. 3607, letter by letter.
    """
    K = [kernel(x[t], other, σ, exp) for other in x]
    return sum(x[t] * weight for weight in K) / sum(K)


def gaussian_over_value(x: Sequence[Any], t: int, σ: Any, sign: int = -1) -> float:
    """y_t = Σ_i x_{t+i} K(x_t, x_{t+i}; σ) / Σ_i K(x_t, x_{t+i}; σ), with either sign in K."""
    K = [kernel(x[t], other, σ, sign=sign) for other in x]
    return sum(other * weight for other, weight in zip(x, K, strict=True)) / sum(K)


def gaussian_over_time(x: Sequence[Any], t: int, σ: Any) -> float:
    """y_t = Σ_i x_{t+i} K_i / Σ_i K_i, K_i = exp(−i²/2σ²)."""
    K = [math.exp(-((t - other) ** 2) / (2 * σ**2)) for other in range(len(x))]
    return sum(value * weight for value, weight in zip(x, K, strict=True)) / sum(K)


def width(B: Sequence[float], unit: float = 1.0) -> float:
    """σ = min(std(B), m/2), with the angles of B multiplied by `unit` first."""
    m, mean = len(B), sum(B) / len(B)
    std = math.sqrt(sum((ω - mean) ** 2 for ω in B) / m)
    return min(unit * std, m / 2)


def smoothed(B: Sequence[float]) -> float:
    """C_i: the last angle of B smoothed over time with σ = min(std(B), m/2); itself if σ = 0."""
    σ = width(B)
    return gaussian_over_time(B, len(B) - 1, σ) if σ > 0 else B[-1]


class Drop(NamedTuple):
    """Position of the angle at which the rule dropped, and C_i − C_{i−1} there."""

    at: int
    change: float


def drops(
    angles: Iterable[float],
    smooth: Smooth = smoothed,
    *,
    buffer: int = 10,
    threshold: float = 0.1,
    absolute: bool = False,
) -> list[Drop]:
    """Where Algorithm 1 drops on a given record of angles; B and C are emptied at each drop.

    `smooth` maps the buffer to C_i.
    """
    found: list[Drop] = []
    B: list[float] = []
    C: list[float] = []
    for i, ω in enumerate(angles):
        B.append(float(ω))
        if len(B) < buffer:
            continue
        C.append(smooth(B))
        del B[0]
        if len(C) < 2:
            continue
        change = C[-1] - C[-2]
        if (abs(change) if absolute else change) < threshold:
            found.append(Drop(i, change))
            B, C = [], []
    return found
