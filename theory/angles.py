"""The two exact expectations of an angle between Gaussian vectors with independent modes.

u and v are vectors in Rⁿ; the pairs (u_i, v_i) are independent over i and jointly Gaussian.

* `expected_cosine`: E[⟨u, v⟩/(‖u‖‖v‖)], for any means, as a double integral.
* `expected_angle`: E∠(u, v) for zero means and E u_i² = λ E v_i² (as at stationarity), as the
  integral of a distribution function; `sampled_angle` where that proportionality fails.

Each comes with an estimate of its error: a rule is refined until two successive refinements
agree, and an integral that does not converge raises instead of returning a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "IntegrationError", "expected_angle", "expected_cosine", "sampled_angle"]

Floats = NDArray[np.float64]

_MAX_REFINEMENTS = 7
_FEW_MODES = 16


class Estimate(NamedTuple):
    """A value and the estimate of its absolute error."""

    value: float
    error: float


class IntegrationError(ArithmeticError):
    """An integral did not reach the tolerance that was asked for."""


def _refined(rule: Callable[[int], float], tolerance: float, what: str) -> Estimate:
    """The rule at levels 0, 1, … until two successive values agree within the tolerance."""
    previous = rule(0)
    for level in range(1, _MAX_REFINEMENTS):
        value = rule(level)
        error = abs(value - previous)
        if error <= tolerance:
            return Estimate(value, error)
        previous = value
    raise IntegrationError(
        f"{what}: error estimate {error:.2e} is above the tolerance {tolerance:.2e} "
        f"after {_MAX_REFINEMENTS} refinements"
    )


def _modes(covariance: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """E u_i², E v_i², E u_i v_i (centred), after checking them."""
    C = np.asarray(covariance, dtype=np.float64)
    if C.ndim != 3 or C.shape[0] < 1 or C.shape[1:] != (2, 2):
        raise ValueError(f"covariance must have shape (n, 2, 2), got {C.shape}")
    if not np.isfinite(C).all():
        raise ValueError("covariance must be finite")
    uu, vv, uv = C[:, 0, 0], C[:, 1, 1], (C[:, 0, 1] + C[:, 1, 0]) / 2
    # The root of the product could underflow where the product of the roots does not.
    largest = np.sqrt(np.abs(uu)) * np.sqrt(np.abs(vv)) * (1 + 16 * np.finfo(float).eps)
    if (uu < 0).any() or (vv < 0).any() or (np.abs(uv) > largest).any():
        raise ValueError("covariance must be positive semi-definite in every mode")
    return uu, vv, uv


def expected_cosine(
    covariance: ArrayLike, mean: ArrayLike | None = None, *, tolerance: float = 1e-9
) -> Estimate:
    """E[⟨u, v⟩/(‖u‖‖v‖)] = (1/π) ∫∫ (pq)^{−1/2} Π F_i Σ_i (Σ̃_{i,uv} + μ̃_{i,u} μ̃_{i,v}) dp dq.

    With Σ_i the covariance and μ_i the mean of (u_i, v_i), D = diag(p, q),
    F_i = det(I + 2Σ_iD)^{−1/2} exp(−μ_iᵀD(I + 2Σ_iD)^{−1}μ_i), Σ̃_i = (I + 2Σ_iD)^{−1}Σ_i and
    μ̃_i = (I + 2Σ_iD)^{−1}μ_i: both norms are written by ‖u‖^{−1} = π^{−1/2} ∫ p^{−1/2} e^{−p‖u‖²}
    dp and the Gaussian expectation is taken inside.  The substitution p = exp((π/2) sinh τ) makes
    both ends fall doubly exponentially, so that the trapezoid rule in τ converges exponentially.

    Parameters
    ----------
    covariance : (n, 2, 2), of (u_i, v_i), positive semi-definite.
    mean : (n, 2); default zero.
    tolerance : absolute; the step is halved until two successive results agree within it.

    One mode with zero mean gives (2/π) arcsin of the correlation.

    Raises
    ------
    ValueError
        If a shape is wrong, a covariance is not positive semi-definite, or u or v vanishes.
    IntegrationError
        If the tolerance is not reached.

    Source: this toolkit's notes (Laplace transform of a Gaussian quadratic form).
    """
    uu, vv, uv = _modes(covariance)
    μ = np.zeros((len(uu), 2)) if mean is None else np.asarray(mean, dtype=np.float64)
    if μ.shape != (len(uu), 2) or not np.isfinite(μ).all():
        raise ValueError(f"mean must be finite and have shape {(len(uu), 2)}, got {μ.shape}")
    μu, μv = μ[:, 0], μ[:, 1]
    scale_u, scale_v = math.sqrt((uu + μu**2).sum()), math.sqrt((vv + μv**2).sum())
    if not (scale_u > 0 and scale_v > 0):
        raise ValueError(f"E|u|² and E|v|² must be > 0, got {scale_u**2} and {scale_v**2}")
    # The angle does not depend on the lengths: measure each vector by its root mean square.
    uu, vv, uv = uu / scale_u**2, vv / scale_v**2, uv / (scale_u * scale_v)
    μu, μv = μu / scale_u, μv / scale_v
    # Modes that are equal share one evaluation.
    table, counts = np.unique(np.stack([uu, vv, uv, μu, μv], axis=1), axis=0, return_counts=True)
    uu, vv, uv, μu, μv = (table[:, j, None, None] for j in range(5))
    c = counts[:, None, None].astype(np.float64)
    gram = np.maximum(uu * vv - uv**2, 0)  # rounding may make it negative at correlation ±1

    def rule(level: int) -> float:
        step = 0.25 / 2**level
        τ = np.arange(-round(4.5 / step), round(4.5 / step) + 1) * step
        log_p = (np.pi / 2) * np.sinh(τ)
        # dp/√p = √p (π/2) cosh τ dτ
        weight = np.exp(log_p / 2) * (np.pi / 2) * np.cosh(τ) * step
        p = np.exp(log_p)
        total = 0.0
        for p_block, w_block in zip(np.array_split(p, 8), np.array_split(weight, 8), strict=True):
            P, Q = p_block[None, :, None], p[None, None, :]
            det = 1 + 2 * (uu * P + vv * Q) + 4 * P * Q * gram
            # (I + 2ΣD)⁻¹ Σ and (I + 2ΣD)⁻¹ μ by Cramer's rule
            inner = uv / det
            mean_u = ((1 + 2 * vv * Q) * μu - 2 * uv * Q * μv) / det
            mean_v = ((1 + 2 * uu * P) * μv - 2 * uv * P * μu) / det
            exponent = -c * (0.5 * np.log(det) + P * μu * mean_u + Q * μv * mean_v)
            F = np.exp(exponent.sum(axis=0))
            value = F * (c * (inner + mean_u * mean_v)).sum(axis=0)
            total += float(w_block @ value @ weight)
        return total / np.pi

    return _refined(rule, tolerance, "expected cosine")


def _probability_below_zero(λ: Floats, counts: Floats) -> Callable[[int], Floats]:
    """P(Σ_i λ_i g_i² ≤ 0), g ~ N(0, I), for each row of λ: Imhof's integral at a given level.

    ½ − (1/π) ∫_0^∞ sin θ(u)/(u ρ(u)) du with θ = ½ Σ arctan(λ_i u), ρ = Π (1 + λ_i²u²)^{1/4},
    by the trapezoid rule in log u.  Source: Imhof, Biometrika 48 (1961), eq. (3.2).
    """
    λ = λ / np.sqrt((counts * λ**2).sum(axis=1, keepdims=True))

    def rule(level: int) -> Floats:
        step = 0.2 / 2**level
        first, last = -14.0, 80.0
        # Below `first`, sin θ = u Σλ/2 to within e^{3·first} < 1e-18: a geometric series.
        result = 0.5 * (λ @ counts) * np.exp(first) / np.expm1(step)
        τ = np.arange(0, round((last - first) / step)) * step + first
        size = max(8, 500_000 // λ.size)
        for block in np.split(τ, range(size, len(τ), size)):
            x = λ[:, :, None] * np.exp(block)
            θ = 0.5 * np.einsum("i,jit->jt", counts, np.arctan(x))
            decay = np.exp(-0.5 * np.einsum("i,jit->jt", counts, np.log(np.hypot(1.0, x))))
            result += (np.sin(θ) * decay).sum(axis=1)
            if decay[:, -1].max() < 1e-18:  # 1/ρ falls in u: the rest is below rounding
                break
        return 0.5 - result * step / np.pi

    return rule


def _tanh_sinh(edges: Floats, level: int) -> tuple[Floats, Floats]:
    """Nodes and weights on each panel of `edges`; singular ends are harmless.

    Source: Takahasi and Mori, Publ. RIMS 9 (1974).
    """
    step = 0.5 / 2**level
    t = np.arange(-round(3.25 / step), round(3.25 / step) + 1) * step
    s = (np.pi / 2) * np.sinh(t)
    x, w = np.tanh(s), step * (np.pi / 2) * np.cosh(t) / np.cosh(s) ** 2
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()


def _bisected(f: Callable[[Floats], Floats], low: float, high: float, tolerance: float) -> float:
    """∫ f over [low, high] by Gauss–Legendre panels, halved until halving changes little."""
    x, w = np.polynomial.legendre.leggauss(24)

    def integrals(left: Floats, right: Floats) -> Floats:
        half = (right - left)[:, None] / 2
        nodes = (left + right)[:, None] / 2 + half * x
        return (f(nodes.ravel()).reshape(nodes.shape) * w * half).sum(axis=1)

    left, right = np.array([low]), np.array([high])
    whole, total = integrals(left, right), 0.0
    for _ in range(40):
        middle = (left + right) / 2
        first, second = integrals(left, middle), integrals(middle, right)
        change = np.abs(first + second - whole)
        coarse = change > tolerance * np.maximum((right - left) / (high - low), 0.01)
        total += float((first + second)[~coarse].sum())
        if not coarse.any():
            return total
        left = np.concatenate([left[coarse], middle[coarse]])
        right = np.concatenate([middle[coarse], right[coarse]])
        whole = np.concatenate([first[coarse], second[coarse]])
    raise IntegrationError(
        f"expected angle: tolerance {tolerance:.2e} not reached by 40 bisections"
    )


def expected_angle(covariance: ArrayLike, *, tolerance: float = 1e-9) -> Estimate:
    """E∠(u, v) = φ_min + ∫ P(ρ_g ≤ cos φ) dφ over [φ_min, φ_max], in radians, for zero means.

    With c_i = E u_iv_i and E v_i² = κ E u_i², a random hyperplane separates u and v with
    probability ∠(u, v)/π; given its normal g, it does so with probability arccos(ρ_g)/π:

        E∠ = E_g arccos ρ_g,   ρ_g = Σ c_i g_i² / (√κ Σ E u_i² g_i²),   g ~ N(0, I).

    P(ρ_g ≤ r) is the probability that the quadratic form Σ (c_i − r√κ E u_i²) g_i² is ≤ 0: Imhof's
    integral.  φ_min and φ_max are the extreme arccos(c_i/(√κ E u_i²)); if they agree (one mode, or
    equal ones) E∠ is exactly that angle.

    Parameters
    ----------
    covariance : (n, 2, 2), of (u_i, v_i); Requires E v_i²/E u_i² equal in all modes (as at
        stationarity), otherwise use `sampled_angle`.
    tolerance : absolute, in radians.

    Raises
    ------
    ValueError
        If a shape is wrong, a covariance is not positive semi-definite, the variances are not
        proportional, or u or v vanishes.
    IntegrationError
        If the tolerance is not reached.

    Source: this toolkit's notes; random hyperplanes after Goemans and Williamson (1995).
    """
    uu, vv, uv = _modes(covariance)
    if not (uu.sum() > 0 and vv.sum() > 0):
        raise ValueError(f"E|u|² and E|v|² must be > 0, got {uu.sum()} and {vv.sum()}")
    κ = vv.sum() / uu.sum()
    # The ratios come out of a few dozen rounded operations.
    if (np.abs(vv - κ * uu) > 1e-10 * κ * uu).any():
        raise ValueError(
            "E v_i² / E u_i² must be the same in all modes, got ratios from "
            f"{(vv / uu).min()} to {(vv / uu).max()}; use sampled_angle"
        )
    weight, c = math.sqrt(κ) * uu[uu > 0], uv[uu > 0]
    weight, c = weight / weight.sum(), c / weight.sum()  # so that no square underflows
    table, counts = np.unique(np.stack([c, weight], axis=1), axis=0, return_counts=True)
    c, weight = table[:, 0], table[:, 1]
    φ = np.arccos(np.clip(c / weight, -1, 1))
    low, high = φ.min(), φ.max()
    if high - low <= 8 * np.finfo(float).eps:
        return Estimate(float(low + high) / 2, float(high - low))

    copies = counts.astype(np.float64)

    def below(nodes: Floats, level: int) -> Floats:
        """P(ρ_g ≤ cos φ) at the nodes φ."""
        return _probability_below_zero(c - np.cos(nodes)[:, None] * weight, copies)(level)

    def rule(level: int) -> float:
        if len(c) > _FEW_MODES:
            return float(low + _bisected(lambda φ: below(φ, level), low, high, tolerance / 4))
        # With few modes the distribution of ρ_g is not smooth where a coefficient changes its sign.
        nodes, dφ = _tanh_sinh(np.unique(φ), level)
        return float(low + dφ @ below(nodes, level))

    return _refined(rule, tolerance, "expected angle")


def sampled_angle(
    covariance: ArrayLike, rng: np.random.Generator, samples: int = 20_000
) -> Estimate:
    """E∠(u, v) = E_g arccos ρ_g for zero means, as an average over g ~ N(0, I); radians.

    ρ_g = Σ c_i g_i² / √(Σ E u_i² g_i² · Σ E v_i² g_i²): unlike `expected_angle` the variances of u
    and v need not be proportional.  In high dimension ρ_g hardly varies, so few samples do.

    Returns the mean and its standard error.  Raises ValueError for a covariance that is not
    positive semi-definite, vectors that vanish and fewer than 2 samples.  Source: as
    `expected_angle`.

    Parameters
    ----------
    covariance : (n, 2, 2), positive semi-definite.
    samples : number of draws of g, ≥ 2.
    """
    uu, vv, uv = _modes(covariance)
    if not (uu.sum() > 0 and vv.sum() > 0):
        raise ValueError(f"E|u|² and E|v|² must be > 0, got {uu.sum()} and {vv.sum()}")
    if samples < 2:
        raise ValueError(f"samples must be >= 2, got {samples}")
    drawn = []
    for size in np.diff(
        np.linspace(0, samples, 1 + -(-samples * len(uu) // 4_000_000)).astype(int)
    ):
        g2 = rng.standard_normal((size, len(uu))) ** 2
        cosine = (g2 @ uv) / np.sqrt((g2 @ uu) * (g2 @ vv))
        drawn.append(np.arccos(np.clip(cosine, -1, 1)))
    angle = np.concatenate(drawn)
    return Estimate(float(angle.mean()), float(angle.std(ddof=1) / math.sqrt(samples)))
