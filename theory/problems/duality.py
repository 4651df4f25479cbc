"""Minimisers of f(x) = (1/N) Σ ℓ(⟨a_i, x⟩, b_i) with a proven lower bound of f*.

Fenchel duality.  For any u in the domain of ℓ* and r = Aᵀu/N,

    f(x) ≥ (1/N) Σ [u_i ⟨a_i, x⟩ − ℓ*(u_i, b_i)] = D(u) + ⟨r, x⟩,   D(u) = −(1/N) Σ ℓ*(u_i, b_i).

In floats r is never quite 0, so f* ≥ D(u) − ‖r‖ρ needs a ball ‖x‖ ≤ ρ with a minimiser in it.  It
comes from any u that keeps a distance ε_i from the ends of the domain: ℓ(z, b) ≥ uz + ε|z| −
max ℓ*(u ± ε, b), hence

    f(x) ≥ ⟨r, x⟩ + (1/N) Σ ε_i |⟨a_i, x⟩| − c ≥ (σ_min(diag(ε)A)/N − ‖r‖) ‖x‖ − c,

which bounds every x with f(x) ≤ f(x̂).  The bound covers the rounding of its own evaluation.
Source: Rockafellar, Convex Analysis (1970), §31.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.problems.convex import Array
from theory.problems.losses import HuberLoss, LogisticLoss, Loss

__all__ = ["Solution", "linear_programme", "minimise"]

_EPS = float(np.finfo(np.float64).eps)


class Solution(NamedTuple):
    """x̂ with minimum_lower ≤ f*; `radius` bounds ‖x‖ where f(x) ≤ f(x̂), ∞ if not known.

    With radius ∞ the lower bound is 0, which every loss has.
    """

    minimiser: Array
    minimum_lower: float
    radius: float


def _scipy_optimize() -> Any:
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError("minimising a problem needs scipy: install the extra `checks`") from error
    return optimize


def linear_programme(
    cost: Array, equalities: Array, target: Array, lower: Array, upper: Array | None = None
) -> tuple[Array, Array] | None:
    """(u, y): u minimises ⟨cost, u⟩ over E u = t, lower ≤ u ≤ upper; y are the multipliers of E.

    The sign of y is such that cost − Eᵀy is ≥ 0 where u is at its lower bound, ≤ 0 at the upper
    one.  None if the programme has no solution.
    Raises RuntimeError if HiGHS stops for another reason, ImportError without scipy.
    """
    upper = np.full_like(lower, np.inf) if upper is None else upper
    solved = _scipy_optimize().linprog(
        cost,
        A_eq=equalities,
        b_eq=target,
        bounds=np.stack([lower, upper], axis=1),
        method="highs",
    )
    if solved.status in (2, 3, 4):  # infeasible, unbounded, or HiGHS cannot say which
        return None
    if solved.status != 0:
        raise RuntimeError(f"HiGHS stopped without a solution: {solved.message}")
    return solved.x, solved.eqlin.marginals


def _column_sums(A: Array, u: Array) -> Array:
    """Aᵀu with sums that are rounded once."""
    return np.array([math.fsum(column) for column in (A * u[:, None]).T])


def _residual(A: Array, u: Array) -> float:
    """An upper bound of ‖Aᵀu‖/N in exact arithmetic, by that of the computed one."""
    r, size = _column_sums(A, u), _column_sums(abs(A), abs(u))
    return float((1 + len(r) * _EPS) * np.linalg.norm(abs(r) + 2 * _EPS * size)) / len(A)


def _project(A: Array, u: Array, low: Array, high: Array) -> Array:
    """u moved towards Aᵀu = 0, most where it is far from the ends of its domain, and clipped."""
    u = np.clip(u, low, high)
    for _ in range(3):  # the first step leaves rounding relative to its own size
        slack = (u - low) * (high - u)
        y = np.linalg.lstsq(A.T @ (slack[:, None] * A), _column_sums(A, u), rcond=None)[0]
        moved = np.clip(u - slack * (A @ y), low, high)
        if _residual(A, moved) >= _residual(A, u):
            break
        u = moved
    return u


def _interior(A: Array, low: Array, high: Array) -> Array:
    """u inside of its domain with Aᵀu ≈ 0; on the boundary where there is none.

    Where 0 is an end of the domain, u_i = ±w_i, w_i ≥ 1 and least in sum, scaled down.  For two
    classes this exists exactly if no x has b_i⟨a_i, x⟩ ≥ 0 for all i, > 0 for one (Stiemke).
    """
    if (low < 0).all() and (high > 0).all():
        return np.zeros_like(low)
    end = np.where(low < 0, low, high)
    ones = np.ones_like(low)
    solved = linear_programme(ones, (A * end[:, None]).T, np.zeros(A.shape[1]), ones)
    if solved is None:
        return np.zeros_like(low)
    w = solved[0]
    return _project(A, end * w / (2 * w.max()), low, high)


def _radius(A: Array, b: Array, loss: Loss, u: Array, level: float) -> float:
    """ρ with ‖x‖ ≤ ρ wherever f(x) ≤ level, by the growth of f that u proves; ∞ if it proves none.

    Twice what the formula gives, which covers its rounding.
    """
    low, high = loss.domain(b)
    ε = np.minimum(u - low, high - u)
    σ = np.linalg.svd(ε[:, None] * A, compute_uv=False)
    growth = σ[-1] / len(A) - _residual(A, u)
    if len(A) < A.shape[1] or growth <= len(A) * _EPS * σ[0]:
        return math.inf
    c = np.maximum(loss.conjugate(u + ε, b), loss.conjugate(u - ε, b)).mean()
    return float(2 * (level + c) / growth)


def _dual_bound(A: Array, b: Array, loss: Loss, u: Array, radius: float) -> float:
    """D(u) − ‖r‖ρ, less the rounding of D: a few units in the last place of each term."""
    terms = loss.conjugate(u, b)
    size = math.fsum(abs(terms)) + math.fsum(abs(u * b))
    return (-math.fsum(terms) - 8 * _EPS * size) / len(A) - _residual(A, u) * radius


def _smooth_minimiser(A: Array, b: Array, loss: HuberLoss | LogisticLoss) -> Array:
    """A stationary point of f by scipy's trust-region Newton method."""

    def curvature(z: Array) -> NDArray[Any]:
        if isinstance(loss, HuberLoss):
            return (abs(z - b) < loss.width) * 1.0
        λ = abs(loss.derivative(z, b))
        return λ * (1 - λ)

    def hessian(x: Array) -> NDArray[Any]:
        return A.T @ (curvature(A @ x)[:, None] * A) / len(A)

    solved = _scipy_optimize().minimize(
        lambda x: loss.value(A @ x, b).mean(),
        np.linalg.lstsq(A, b, rcond=None)[0],
        jac=lambda x: loss.derivative(A @ x, b) @ A / len(A),
        hess=hessian,
        method="trust-exact",
        # As far as rounding allows; the duality gap judges what comes out.
        options={"gtol": 8 * _EPS * loss.lipschitz * float(np.linalg.norm(A, axis=1).mean())},
    )
    return solved.x


def minimise(A: Array, b: Array, loss: Loss) -> Solution:
    """x̂ and a proven lower bound of f* for f(x) = (1/N) Σ ℓ(⟨a_i, x⟩, b_i).

    Absolute and hinge loss: the dual is the linear programme min Σ u_i b_i, Aᵀu = 0, by HiGHS,
    and x̂ its multipliers.  Huber and logistic loss: scipy's `trust-exact`, and u = ℓ'(Ax̂).

    Raises
    ------
    ValueError
        If logistic data are not proven inseparable: then f* may not be attained.
    RuntimeError, ImportError
        If the solver gives up, or without scipy.
    """
    low, high = loss.domain(b)
    centre = _interior(A, low, high)
    at_zero = float(loss.value(np.zeros_like(b), b).mean())
    bounded = math.isfinite(_radius(A, b, loss, centre, at_zero))
    if isinstance(loss, HuberLoss | LogisticLoss):
        if not bounded and isinstance(loss, LogisticLoss):
            raise ValueError(
                "the infimum of the logistic loss is not attained, or not provably: the classes "
                "must not be linearly separable and features must have full column rank"
            )
        x = _smooth_minimiser(A, b, loss)
        u = loss.derivative(A @ x, b)
    else:
        solved = linear_programme(b, A.T, np.zeros(A.shape[1]), low, high)
        if solved is None:
            raise RuntimeError("HiGHS calls a dual infeasible that has the solution u = 0")
        u, x = solved
    u = _project(A, u, low, high)
    level = float(loss.value(A @ x, b).mean())
    radius = min(_radius(A, b, loss, v, level) for v in (centre, u))
    lower = _dual_bound(A, b, loss, u, radius) if math.isfinite(radius) else 0.0
    return Solution(x, max(0.0, lower), radius)
