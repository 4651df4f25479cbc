"""One mode of a noisy quadratic under Unified Momentum is a linear recursion with noise.

With h = αa, P = 1 + βs, Q = 1 + βs − s and the displacement d = x − yˢ (see
`theory.methods.UnifiedMomentum`),

    (x, d)ᵀ ← M (x, d)ᵀ + b c,   M = [[1 − Ph, β], [−Qh, β]],   b = (Ph, Qh)ᵀ,   c ~ N(0, v).

Everything here is rational in its arguments and runs on floats, Fractions and SymPy symbols.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic

__all__ = ["noise_gain", "require_stable", "stationary_covariance", "steps", "transition"]

Array = NDArray[Any]


def steps(problem: NoisyQuadratic, learning_rate: Any) -> Array:
    """h = αa, shape (n,), the step size of each mode; dimensionless.

    Requires 0 < α < ∞; ValueError otherwise, TypeError if problem is no NoisyQuadratic.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be finite and > 0, got {learning_rate}")
    return problem.curvature * learning_rate


def require_stable(problem: NoisyQuadratic, learning_rate: Any, method: UnifiedMomentum) -> Array:
    """h = αa, shape (n,), after checking that 0 < h < 2(1 + β)/(1 + 2βs) in every mode.

    Raises ValueError where a stationary law does not exist, or without noise.
    Source: Jury's criterion, see `UnifiedMomentum.max_stable_step`.
    """
    checks.instance("method", method, UnifiedMomentum)
    h = steps(problem, learning_rate)
    limit = method.max_stable_step
    largest = max(h)
    if not largest < limit:
        raise ValueError(
            f"learning_rate * max curvature must be < {limit} for stability "
            f"(momentum {method.momentum}, s {method.s}), got {largest}"
        )
    if not (problem.noise_variance > 0).any():
        raise ValueError("noise_variance must be > 0 in some mode: without noise there is no angle")
    return h


def transition(h: Array, method: UnifiedMomentum) -> Array:
    """M = [[1 − Ph, β], [−Qh, β]], shape (n, 2, 2), for h = αa of shape (n,).

    Source: UAI 2024, eq. (9) on eq. (3), in the coordinates (x, d).
    """
    P, Q = method.gains
    β = method.momentum
    M = np.empty((*h.shape, 2, 2), dtype=h.dtype)
    M[..., 0, 0], M[..., 0, 1] = 1 - P * h, β
    M[..., 1, 0], M[..., 1, 1] = -Q * h, β
    return M


def noise_gain(h: Array, method: UnifiedMomentum) -> Array:
    """b = (Ph, Qh), shape (n, 2), for h = αa of shape (n,).

    Source: UAI 2024, eq. (9) on eq. (3), in the coordinates (x, d).
    """
    P, Q = method.gains
    return np.stack([P * h, Q * h], axis=-1)


def stationary_covariance(h: Array, v: Array, method: UnifiedMomentum) -> Array:
    """S = M S Mᵀ + v b bᵀ, the covariance of (x, d) at stationarity, shape (n, 2, 2).

    In closed form, with D = (1 − β + βsh)(2(1 + β) − (1 + 2βs)h):

        S_xx = h v (1 + β + βsh + 2β²s²h)/D,  S_xd = h²v (1 + 2βs) Q/D,  S_dd = 2 h² v Q²/D.

    β = 0: S_xx = αav/(2 − αa), eq. (13) of the paper.  Requires stability (`require_stable`).
    """
    β, s = method.momentum, method.s
    _, Q = method.gains
    D = (1 - β + β * s * h) * (2 * (1 + β) - (1 + 2 * β * s) * h)
    S = np.empty((*h.shape, 2, 2), dtype=h.dtype)
    S[..., 0, 0] = h * v * (1 + β + β * s * h + 2 * β**2 * s**2 * h) / D
    S[..., 0, 1] = S[..., 1, 0] = h**2 * v * (1 + 2 * β * s) * Q / D
    S[..., 1, 1] = 2 * h**2 * v * Q**2 / D
    return S
