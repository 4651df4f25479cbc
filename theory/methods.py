"""Unified Momentum (SGD, heavy ball and Nesterov in one recursion), and torch's momentum."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["HasStepMatrix", "TorchMomentum", "UnifiedMomentum"]


class HasStepMatrix(Protocol):
    """A method whose iterates are x_{t+1} = x_0 − Σ_{i≤t} H[t, i] G_i."""

    def step_matrix(self, rates: Any) -> NDArray[Any]:
        """H, shape (T, T), lower triangular, for α_0 … α_{T−1}."""


def _check_range(momentum: Any, **others: Any) -> None:
    for name, value in {"momentum": momentum, **others}.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a real number, got {value!r}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must satisfy 0 <= momentum < 1, got {momentum}")


def _rows(rates: Any) -> tuple[list[Any], NDArray[Any]]:
    """The rates as a list, and a (T, T) matrix of zeros that keeps exact and symbolic entries."""
    listed = list(np.asarray(rates).tolist()) if hasattr(rates, "__array__") else list(rates)
    inexact = all(isinstance(rate, float | int) for rate in listed)
    return listed, np.zeros((len(listed),) * 2, dtype=float if inexact else object)


@dataclass(frozen=True)
class UnifiedMomentum:
    """x_{t+1} = y_{t+1} + β (yˢ_{t+1} − yˢ_t), y_{t+1} = x_t − α_t G_t, yˢ_{t+1} = x_t − sα_t G_t.

    Starts at yˢ_0 = x_0.  s = 0 is the heavy ball, s = 1 Nesterov's method, s = 1/(1−β) plain
    gradient descent with the rate α/(1−β), and β = 0 plain gradient descent with the rate α.

    With the displacement d_t = x_t − yˢ_t, which is of the order of one step, the same
    recursion reads

        x_{t+1} = x_t + β d_t − (1 + βs) α_t G_t,      d_{t+1} = β d_t − (1 + βs − s) α_t G_t,

    with d_0 = 0: this is the form that the toolkit computes with, since no large numbers cancel
    in it.  After a change of the rate this differs from `torch.optim.SGD(momentum=β)`, which
    keeps the sum of past gradients and multiplies it by the *new* rate.

    Parameters
    ----------
    momentum : β, 0 ≤ β < 1.
    s : s ≥ 0.

    Raises
    ------
    ValueError
        If β or s lies outside of its range.

    Source: UAI 2024, eq. (9), p. 3609 (after Yang, Lin and Li, 2016).
    """

    momentum: float | Fraction = 0  # 0, not 0.0, so that exact problems stay exact
    s: float | Fraction = 0

    def __post_init__(self) -> None:
        _check_range(self.momentum, s=self.s)
        if not 0 <= self.s < float("inf"):
            raise ValueError(f"s must be finite and >= 0, got {self.s}")

    @classmethod
    def sgd(cls) -> UnifiedMomentum:
        """β = 0: x_{t+1} = x_t − α_t G_t."""
        return cls()

    @classmethod
    def heavy_ball(cls, momentum: float | Fraction) -> UnifiedMomentum:
        """s = 0: x_{t+1} = x_t − α_t G_t + β (x_t − x_{t−1})."""
        return cls(momentum, 0)

    @classmethod
    def nesterov(cls, momentum: float | Fraction) -> UnifiedMomentum:
        """s = 1: the extrapolation is taken between the gradient steps y."""
        return cls(momentum, 1)

    @property
    def gains(self) -> tuple[Any, Any]:
        """(1 + βs, 1 + βs − s): what multiplies α_t G_t in x_{t+1} and in d_{t+1}."""
        β, s = self.momentum, self.s
        return 1 + β * s, 1 + β * s - s

    @property
    def max_stable_step(self) -> Any:
        """2(1 + β)/(1 + 2βs): on a quadratic the method is stable iff 0 < αa < this.

        Jury's criterion for z² − tr·z + det with tr = 1 + β − (1 + βs)αa, det = β(1 − sαa); the
        other condition, |det| < 1, follows from this one for 0 ≤ β < 1, s ≥ 0.  β = 0: 2.
        """
        β, s = self.momentum, self.s
        return 2 * (1 + β) / (1 + 2 * β * s)

    def step_matrix(self, rates: Any) -> NDArray[Any]:
        """H, shape (T, T), lower triangular, with x_{t+1} = x_0 − Σ_{i≤t} H[t, i] G_i.

        From eq. (9) itself, one unit gradient at a time.  `rates` holds α_0 … α_{T−1}; exact and
        symbolic rates give exact and symbolic entries.
        """
        β, s = self.momentum, self.s
        α, H = _rows(rates)
        for i in range(len(α)):
            x, ys = -α[i] * (1 + β * s), -s * α[i]  # G_i = 1, all others 0, x_i = yˢ_i = 0
            H[i, i] = -x
            for t in range(i + 1, len(α)):
                x, ys = x + β * (x - ys), x
                H[t, i] = -x
        return H


@dataclass(frozen=True)
class TorchMomentum:
    """m_{t+1} = β m_t + G_t,  x_{t+1} = x_t − α_t m_{t+1}  (nesterov: − α_t (G_t + β m_{t+1})).

    `torch.optim.SGD(momentum=β, nesterov=…)` without dampening.  At a constant rate it is Unified
    Momentum with s = 0 or s = 1.  After a drop it is not: here the buffer m holds gradients, and
    the whole of it is multiplied by the *new* rate; in Unified Momentum the last step itself is
    carried on, at the old rate.

    Parameters
    ----------
    momentum : β, 0 ≤ β < 1.
    nesterov : whether the step looks ahead.

    Raises
    ------
    ValueError, TypeError
        If β is out of range or not a number.
    """

    momentum: float | Fraction = 0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_range(self.momentum)

    def step_matrix(self, rates: Any) -> NDArray[Any]:
        """H, shape (T, T), with x_{t+1} = x_0 − Σ_{i≤t} H[t, i] G_i, as for `UnifiedMomentum`."""
        β = self.momentum
        α, H = _rows(rates)
        for i in range(len(α)):
            x, m = 0 * α[i], 1 + 0 * β
            for t in range(i, len(α)):
                ahead = (t == i) + β * m if self.nesterov else m
                x, m = x + α[t] * ahead, β * m
                H[t, i] = x
        return H
