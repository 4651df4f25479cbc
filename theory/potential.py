"""The sequence z with z_{t+1} = z_t − η_t G_t behind a momentum method.

It carries every convergence proof here: ‖z_t − x*‖² is the potential, and

    z_0 = u_0 = x_0,    z_t = x_t + q_t (x_t − u_{t−1}),    u_t = (1 − r) u_{t−1} + r x_t   (t ≥ 1):

z_t is extrapolated from x_t, away from an average u_{t−1} of the earlier iterates.  Convexity then
gives ⟨∂f(x_t), z_t − x*⟩ ≥ (1 + q_t) F_t − q_t F(u_{t−1}), in which F(u_{t−1}) is at most the same
average of F_0 … F_{t−1}.  (F_t = E f(x_t) − f*, F(u) = E f(u) − f*.)

Sources, for a constant rate: Ghadimi, Feyzmahdavian and Johansson (2015); Yang, Lin and Li (2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from theory.methods import TorchMomentum, UnifiedMomentum

__all__ = ["Potential", "potential", "rate_list"]


def rate_list(rates: Any) -> list[Any]:
    """α_0 … α_{T−1} as a list, from a schedule, an array or a sequence; exact entries are kept.

    Raises ValueError if there is none, or one is not finite and > 0; TypeError for what is no
    sequence of numbers.
    """
    if not hasattr(rates, "__array__") and not isinstance(rates, Iterable):
        raise TypeError(f"rates must be a schedule or a sequence of numbers, got {rates!r}")
    listed = rates.__array__().tolist() if hasattr(rates, "__array__") else list(rates)
    if not isinstance(listed, list):  # a 0-d array
        raise TypeError(f"rates must be a schedule or a sequence of numbers, got {rates!r}")
    if not listed:
        raise ValueError("rates must have at least one entry, got none")
    for t, rate in enumerate(listed):
        number = isinstance(rate, Real) or hasattr(rate, "free_symbols")
        if not number or isinstance(rate, bool):
            raise TypeError(f"every rate must be a number, got rates[{t}] = {rate!r}")
        if not 0 < rate < float("inf"):
            raise ValueError(f"every rate must be finite and > 0, got rates[{t}] = {rate}")
    return listed


@dataclass(frozen=True)
class Potential:
    """η_0 … η_{T−1}; q_0 = 0, q_1 … q_T; r: the coefficients of the module's displayed formula.

    `kernel[t]`, t = 0 … T−1, is Σ_i |c_i| where z_t − x_t = Σ_{i<t} c_i G_i.
    """

    steps: tuple[Any, ...]
    extrapolation: tuple[Any, ...]
    r: Any
    kernel: tuple[Any, ...]

    def weights(self, leading: Sequence[Any]) -> list[Any]:
        """W_j with Σ_s D_s [⟨∂f(x_s), z_s − x*⟩] ≥ Σ_j W_j F_j, for D = `leading`.

        W_j = (1 + q_j) D_j − r Q_j for j ≥ 1, W_0 = D_0 − Q_0, and
        Q_j = Σ_{τ>j} q_τ D_τ (1 − r)^{τ−1−j}.  ΣW_j = ΣD_s.  D may have T or T + 1 entries.
        """
        q, r = self.extrapolation, self.r
        D, W = leading, list(leading)
        Q: Any = 0
        for j in range(len(D) - 1, -1, -1):
            if j + 1 < len(D):
                Q = q[j + 1] * D[j + 1] + (1 - r) * Q
            W[j] = (1 + q[j]) * D[j] - r * Q if j > 0 else D[0] - Q
        return W


def potential(method: UnifiedMomentum | TorchMomentum, rates: Any) -> Potential:
    """The potential of a method along α_0 … α_{T−1}.

    Unified Momentum, σ = (1−β)s ≤ 1: η_t = α_t/(1−β), q = (1−σ)β/(1−(1−σ)β),
    r = (1−β)/(1−(1−σ)β).

    torch's momentum, x_{t+1} = x_t − α_t m_{t+1}: η_t = Σ_{j≥0} β^j α_{t+j}, the whole
    displacement that G_t will cause (the last rate continued for ever), q_t = βη_t/α_{t−1}, r = 1.

    Raises
    ------
    ValueError
        For s > 1/(1−β), where z_t lies on the other side of x_t; for torch's Nesterov momentum,
        whose rates would have to be constant; and as `rate_list`.
    """
    α = rate_list(rates)
    β = method.momentum
    kernel: list[Any] = [0 * α[0]]
    if isinstance(method, TorchMomentum):
        if method.nesterov:
            raise ValueError("torch's Nesterov momentum has no potential of this form")
        η = [α[-1] / (1 - β)]
        for rate in reversed(α):
            η.append(rate + β * η[-1])
        η.reverse()  # η_0 … η_T
        q = [0 * β] + [β * η[t] / α[t - 1] for t in range(1, len(η))]
        size: Any = 0
        for t in range(1, len(α)):
            size = 1 + β * size  # ‖m_t‖ ≤ Σ_j β^j
            kernel.append(β * η[t] * size)
        return Potential(tuple(η[:-1]), tuple(q), 1, tuple(kernel))
    σ = (1 - β) * method.s
    if σ > 1:
        raise ValueError(f"s must be <= 1/(1 - momentum) = {1 / (1 - β)}, got {method.s}")
    q_um, r = (1 - σ) * β / (1 - (1 - σ) * β), (1 - β) / (1 - (1 - σ) * β)
    size = 0
    for t in range(1, len(α)):
        size = β * (size + α[t - 1] / (1 - β))
        kernel.append((1 - σ) * size)
    steps = tuple(rate / (1 - β) for rate in α)
    return Potential(steps, (0 * q_um,) + (q_um,) * len(α), r, tuple(kernel))
