"""Where the angular velocity saturates, how fast, and what a drop of the learning rate does to it.

Stationary values for every β, s and window, computed from the autocovariance of the steps: a route
of its own beside the recursion over windows of `theory.moments`.  A window-mean step is a weighted
sum of 2k − 1 iteration steps,

    y_{i+1} − y_i = Σ_j w_j s_{ik+j},   w = (1, 2, …, k, …, 2, 1)/k,

so that E‖u‖² and E⟨u, v⟩ are sums of step autocovariances g_m = E s_t s_{t+m} weighted by the
autocorrelation of w.  All of it is rational and runs on exact numbers too.

Angles are in radians.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import angles, checks, linear
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic

__all__ = [
    "cosine_ratio",
    "expected_angle",
    "expected_cosine",
    "inner_product_after_drop",
    "inner_product_limit",
    "saturation_rate",
    "small_rate_limit",
    "squared_norm_limit",
    "step_autocovariance",
    "transient_step_moments",
    "window_cosine",
    "window_step_moments",
]

Array = NDArray[Any]
_SGD = UnifiedMomentum.sgd()


def inner_product_limit(problem: NoisyQuadratic, learning_rate: Any) -> Any:
    """I* = −α³ Σ a_i³ v_i/(2 − αa_i), the limit of E⟨s_t, s_{t+1}⟩ for SGD.

    Exact.  Requires 0 < αa_i < 2.  Raises ValueError outside.
    Source: UAI 2024, Theorem 3.2, eq. (4), p. 3606.
    """
    linear.require_stable(problem, learning_rate, _SGD)
    a, v, α = problem.curvature, problem.noise_variance, learning_rate
    return -(α**3) * (a**3 * v / (2 - α * a)).sum()


def squared_norm_limit(problem: NoisyQuadratic, learning_rate: Any) -> Any:
    """N* = 2α² Σ a_i² v_i/(2 − αa_i), the limit of E‖s_t‖² for SGD.

    Exact.  Requires 0 < αa_i < 2.  Raises ValueError outside.
    Source: UAI 2024, eq. (20), p. 3617.
    """
    linear.require_stable(problem, learning_rate, _SGD)
    a, v, α = problem.curvature, problem.noise_variance, learning_rate
    return 2 * α**2 * (a**2 * v / (2 - α * a)).sum()


def step_autocovariance(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum = _SGD,
    lags: int = 1,
) -> Array:
    """g_m = E s_t s_{t+m} per mode at stationarity, m = 0 … lags; shape (lags + 1, n).

    Requires 0 < αa < 2(1 + β)/(1 + 2βs); ValueError otherwise.
    SGD: g_0 = 2α²a²v/(2 − αa), g_m = −(αa/2)(1 − αa)^{m−1} g_0.
    Source: derived; m = 0, 1 for SGD are eq. (20) and (4) of UAI 2024, mode by mode.
    """
    lags = checks.positive_integer("lags", lags, least=0)
    h = linear.require_stable(problem, learning_rate, method)
    v = problem.noise_variance
    P, _ = method.gains
    M = linear.transition(h, method)
    b = linear.noise_gain(h, method)
    S = linear.stationary_covariance(h, v, method)
    # s_t = r·(x_t, d_t) + Ph c_t
    r = np.stack([-P * h, M[:, 0, 1]], axis=-1)
    Sr = (S * r[:, None, :]).sum(axis=-1)
    g = np.empty((lags + 1, problem.dimension), dtype=h.dtype)
    g[0] = (r * Sr).sum(axis=-1) + v * (P * h) ** 2
    # E (x_{t+m}, d_{t+m}) s_t
    z = (M * Sr[:, None, :]).sum(axis=-1) + b * (v * P * h)[:, None]
    for m in range(1, lags + 1):
        g[m] = (r * z).sum(axis=-1)
        z = (M * z[:, None, :]).sum(axis=-1)
    return g


def window_step_moments(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum = _SGD,
    window: int = 1,
) -> tuple[Array, Array]:
    """(E u_i², E u_i v_i) per mode at stationarity, (n,) each; u, v successive window-mean steps.

    Requires 0 < αa < 2(1 + β)/(1 + 2βs) and some noise; ValueError otherwise.
    Source of the statistic: UAI 2024, Definition 3.3, p. 3606.
    """
    k = checks.positive_integer("window", window)
    g = step_autocovariance(problem, learning_rate, method, 3 * k - 2)
    triangle = np.concatenate([np.arange(1, k + 1), np.arange(k - 1, 0, -1)])
    # k² Σ_j w_j w_{j+m} for m = −(2k − 2) … 2k − 2: whole numbers
    weight = np.convolve(triangle, triangle)
    lag = np.arange(-(2 * k - 2), 2 * k - 1)
    if problem.exact:
        weight = np.array([int(w) for w in weight], dtype=object)
    squared = weight @ g[np.abs(lag)] / k**2
    product = weight @ g[np.abs(lag + k)] / k**2
    return squared, product


def _step_covariance(
    problem: NoisyQuadratic, learning_rate: Any, method: UnifiedMomentum, window: int
) -> Array:
    squared, product = window_step_moments(problem, learning_rate, method, window)
    C = np.empty((problem.dimension, 2, 2))
    C[:, 0, 0] = C[:, 1, 1] = squared
    C[:, 0, 1] = C[:, 1, 0] = product
    return C


def cosine_ratio(
    problem: NoisyQuadratic,
    learning_rate: Any,
    method: UnifiedMomentum = _SGD,
    window: int = 1,
) -> Any:
    """E⟨u, v⟩/E‖u‖² at stationarity, u and v successive window-mean steps.

    For SGD and window 1 this is eq. (5), −(α/2) Σ a³v/(2 − αa) / Σ a²v/(2 − αa); for the heavy ball
    and window 1, the mean of β − αa_i/2 weighted by E s_i².  It approximates the expected cosine
    (`expected_cosine`) and is exact in the limit of many modes.

    Requires 0 < αa < 2(1 + β)/(1 + 2βs); ValueError otherwise.
    Source: UAI 2024, Theorem 3.2, eq. (5), p. 3606 (window 1, SGD).
    """
    squared, product = window_step_moments(problem, learning_rate, method, window)
    return product.sum() / squared.sum()


def expected_cosine(
    problem: NoisyQuadratic,
    learning_rate: float,
    method: UnifiedMomentum = _SGD,
    window: int = 1,
    tolerance: float = 1e-9,
) -> float:
    """C* = lim E cos∠(u, v), exactly (to within `tolerance`): see `theory.angles.expected_cosine`.

    One mode: (2/π) arcsin of the correlation.  Requires stability; ValueError otherwise.
    Source: the left-hand side of UAI 2024, eq. (5); the value is this toolkit's.
    """
    C = _step_covariance(problem, learning_rate, method, window)
    return angles.expected_cosine(C, tolerance=tolerance).value


def expected_angle(
    problem: NoisyQuadratic,
    learning_rate: float,
    method: UnifiedMomentum = _SGD,
    window: int = 1,
    tolerance: float = 1e-9,
) -> float:
    """lim E∠(u, v) in radians, exactly (to within `tolerance`): see `theory.angles.expected_angle`.

    Lies between the smallest and the largest arccos of a mode's correlation; one mode: exactly
    arccos(−αa/2) for SGD and window 1.  Requires stability; ValueError otherwise.
    Source: the limit that UAI 2024, Theorem 3.2 places in [90°, 120°]; the value is this toolkit's.
    """
    C = _step_covariance(problem, learning_rate, method, window)
    return angles.expected_angle(C, tolerance=tolerance).value


def window_cosine(step: Any, window: int) -> Any:
    """The window law: correlation of successive window-mean steps of one mode of SGD, h = αa.

    With φ = 1 − h and E = 1 − φᵏ,

        [φE(2 + E + E²) − kh(2 − h)] / (2[kh(2 − h) − φE(2 + E)]).

    k = 1: −h/2.  h → 0: (k² − 1)/(2(2k² + 1)).  kh → ∞ with h ≤ 1: −1/2.  For 0 < h ≤ 1 it falls
    from the first limit to the second; beyond h = 1 it can pass below −1/2.

    Written as the formula; for kh ≪ 1 in floating point, numerator and denominator lose about
    (kh)⁻² roundings, so use `cosine_ratio` there.

    Parameters
    ----------
    step : h = αa, scalar or array, 0 < h < 2; exact numbers and symbols are welcome.  The result
        has its shape.
    window : k ≥ 1.

    Raises
    ------
    ValueError
        If k is no positive integer, or a number h lies outside of (0, 2).

    Source: derived from UAI 2024, Definition 3.3 (γ_m = γ_0 φᵐ summed over windows).
    """
    k, h = checks.positive_integer("window", window), step
    if not getattr(h, "free_symbols", None) and not np.all(
        (np.asarray(h) > 0) & (np.asarray(h) < 2)
    ):
        raise ValueError(f"step must satisfy 0 < step < 2, got {step}")
    φ = 1 - h
    E = 1 - φ**k
    return (φ * E * (2 + E + E**2) - k * h * (2 - h)) / (2 * (k * h * (2 - h) - φ * E * (2 + E)))


def small_rate_limit(window: int) -> Any:
    """lim_{αa → 0} of `window_cosine`: (k² − 1)/(2(2k² + 1)); 0 for k = 1, → ¼ (75.5°) as k → ∞.

    A float.  Requires k ≥ 1; ValueError otherwise.  Source: the window law's expansion at αa = 0.
    """
    k = checks.positive_integer("window", window)
    return (k**2 - 1) / (2 * (2 * k**2 + 1))


def transient_step_moments(
    problem: NoisyQuadratic, learning_rate: Any, iteration: int
) -> tuple[Any, Any]:
    """(E‖s_t‖², E⟨s_t, s_{t+1}⟩) of SGD at a constant rate, t iterations after a fixed start.

    With q_t = E x_t² = V* + (1 − αa)^{2t}(x_0² − V*), V* = αav/(2 − αa), per mode

        E s_t² = α²a²(q_t + v),      E s_t s_{t+1} = α²a²[(1 − αa) q_t − αa v].

    Requires 0 < αa < 2; ValueError otherwise.
    Source: UAI 2024, eq. (18) and (20), before the limit.
    """
    linear.require_stable(problem, learning_rate, _SGD)
    iteration = checks.positive_integer("iteration", iteration, least=0)
    a, v, x0, α = problem.curvature, problem.noise_variance, problem.start, learning_rate
    V = α * a * v / (2 - α * a)
    q = V + (1 - α * a) ** (2 * iteration) * (x0**2 - V)
    squared = α**2 * a**2 * (q + v)
    product = α**2 * a**2 * ((1 - α * a) * q - α * a * v)
    return squared.sum(), product.sum()


def saturation_rate(
    problem: NoisyQuadratic, learning_rate: float, method: UnifiedMomentum = _SGD
) -> float:
    """−2 log max_i r_i, r_i the spectral radius: second moments converge like e^{−rate·t}.

    SGD: −2 log max_i |1 − αa_i|, which is ≈ 2αa_min when α(a_min + a_max) ≤ 2.  The excess risk and
    the angle share these exponentials; the angle weighs mode i by a_i² where the risk has a_i.

    Requires 0 < αa < 2(1 + β)/(1 + 2βs); ValueError otherwise.  Infinite when every mode
    forgets its start in one iteration (αa = 1, β = 0).  Per iteration, dimensionless.
    Source: P2 iii) of UAI 2024, p. 3605, as a theorem; derived.
    """
    h = np.asarray(linear.require_stable(problem, learning_rate, method), dtype=np.float64)
    M = linear.transition(h, method)
    radius = float(np.abs(np.linalg.eigvals(M)).max())
    return -2 * math.log(radius) if radius > 0 else math.inf


def inner_product_after_drop(problem: NoisyQuadratic, learning_rate: Any, factor: Any) -> Any:
    """E⟨s_0, s_1⟩ = (ρα)² α (1 − 2ρ) Σ a³v/(2 − αa): the first two SGD steps after α ← ρα.

    From stationarity at α.  So the angle falls below 90° exactly when ρ < ½; it never restarts at
    0°.  For windows and momentum use `theory.moments.evolve(…, from_stationary=True)`.

    Requires 0 < αa < 2 and 0 < ρ ≤ 1; ValueError otherwise.
    Source: eq. (18) of UAI 2024 with the new rate and the old stationary variance (13).
    """
    linear.require_stable(problem, learning_rate, _SGD)
    if not 0 < factor <= 1:
        raise ValueError(f"factor must satisfy 0 < factor <= 1, got {factor}")
    a, v, α, ρ = problem.curvature, problem.noise_variance, learning_rate, factor
    return (ρ * α) ** 2 * α * (1 - 2 * ρ) * (a**3 * v / (2 - α * a)).sum()
