"""How much the angle of a single window, or the mean of several, scatters about its expectation.

Of the stationary angle ω_i between the window-mean steps u_i and u_{i+1}.  With γ_l the covariance
of u_i and u_{i+l} per mode, U = Σγ_0 and c = Σγ_1/U, to first order in the relative deviations of
the sums C_i = Σ u_i u_{i+1} and U_i = Σ u_i² over the modes,

    cos ω_i ≈ c + X_i/U,     ω_i ≈ arccos c − X_i/(U √(1 − c²)),
    X_i = C_i − E C_i − (c/2)(U_i + U_{i+1} − 2U),

and by the fourth moments of Gaussian variables, summed over the modes,

    E X_i X_{i+l} = γ_l² + γ_{l−1}γ_{l+1} − 2cγ_l(γ_{l−1} + γ_{l+1})
                    + (c²/2)(2γ_l² + γ_{l−1}² + γ_{l+1}²).

Successive angles share a step, and modes remember: neighbours are not independent.  The expansion
is one in 1/n_eff, n_eff = U²/Σγ_0², good to some per cent from n_eff ≈ 3 on.  For one mode it gives
√(1 − c²), where the angle is 0 or π and deviates by π√(p(1 − p)), p = arccos(c)/π.

Source: derived; the statistic is that of UAI 2024, Definition 3.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks, linear, saturation
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic

__all__ = ["angle_autocovariance", "angle_deviation", "effective_dimension", "step_covariances"]

Array = NDArray[np.float64]


def step_covariances(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum,
    window: int = 1,
    lags: int = 1,
) -> Array:
    """γ_l = E u_i u_{i+l} per mode at stationarity, l = 0 … lags windows; (lags + 1, n), floats.

    Rows 0 and 1 are `saturation.window_step_moments`.  Requires stability and noise; ValueError
    otherwise.
    """
    k = checks.positive_integer("window", window)
    lags = checks.positive_integer("lags", lags, least=0)
    reach = 2 * k - 2
    direct = min(lags, 3)
    g = saturation.step_autocovariance(problem, learning_rate, method, direct * k + reach)
    g = np.asarray(g, dtype=np.float64)
    triangle = np.concatenate([np.arange(1, k + 1), np.arange(k - 1, 0, -1)]) / k
    weight = np.convolve(triangle, triangle)
    lag = np.arange(-reach, reach + 1)
    γ = np.empty((lags + 1, problem.dimension))
    for l in range(direct + 1):  # noqa: E741
        γ[l] = weight @ g[np.abs(lag + l * k)]
    if lags > direct:
        # From l = 2 on, u_l depends on what u_0 does only through (x, d) between the two: γ_l is a
        # mixture of the powers of Mᵏ, and obeys its characteristic equation.
        h = np.asarray(linear.steps(problem, learning_rate), dtype=np.float64)
        M = np.linalg.matrix_power(linear.transition(h, method).astype(np.float64), k)
        trace, determinant = np.trace(M, axis1=-2, axis2=-1), np.linalg.det(M)
        for l in range(4, lags + 1):  # noqa: E741
            γ[l] = trace * γ[l - 1] - determinant * γ[l - 2]
    return γ


def effective_dimension(
    problem: NoisyQuadratic, learning_rate: Any, method: UnifiedMomentum, window: int = 1
) -> float:
    """n_eff = (Σ E u_i²)²/Σ (E u_i²)² at stationarity: 1 for one mode, n for equal ones."""
    γ = step_covariances(problem, learning_rate, method, window, 0)[0]
    return float(γ.sum() ** 2 / (γ**2).sum())


def angle_autocovariance(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum,
    window: int = 1,
    lags: int = 0,
) -> Array:
    """Of ω_i and ω_{i+l} at stationarity, l = 0 … lags, rad², to first order in 1/n_eff.

    Requires stability, noise and |c| < 1 (successive steps that are not always parallel);
    ValueError otherwise.
    """
    γ = step_covariances(problem, learning_rate, method, window, lags + 1)
    U = γ[0].sum()
    c = float(γ[1].sum() / U)
    if not abs(c) < 1:
        raise ValueError(f"the correlation of successive steps must be in (-1, 1), got {c}")
    before, here, after = np.abs(np.arange(-1, lags)), np.arange(lags + 1), np.arange(1, lags + 2)
    X = (
        γ[here] ** 2
        + γ[before] * γ[after]
        - 2 * c * γ[here] * (γ[before] + γ[after])
        + (c**2 / 2) * (2 * γ[here] ** 2 + γ[before] ** 2 + γ[after] ** 2)
    ).sum(axis=1)
    covariance: Array = X / (U**2 * (1 - c**2))
    return covariance


def angle_deviation(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum,
    window: int = 1,
    average: int = 1,
) -> float:
    """The standard deviation of the mean of m successive stationary angles, in radians.

    √[(1/m)(κ_0 + 2 Σ_{0<l<m} (1 − l/m) κ_l)], κ_l of `angle_autocovariance`: to first order in
    1/n_eff.

    Parameters
    ----------
    average : m ≥ 1.

    Errors are those of `angle_autocovariance`.
    """
    m = checks.positive_integer("average", average)
    κ = angle_autocovariance(problem, learning_rate, method, window, m - 1)
    weight = 2 * (1 - np.arange(m) / m)
    weight[0] = 1
    # Of a statistic that hardly varies, rounding may leave a negative rest.
    return math.sqrt(max(float(weight @ κ), 0.0) / m)
