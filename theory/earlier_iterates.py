"""Performance estimation under noise: the best proof that compares x_t with earlier iterates only.

F_t = f(x_t) − f*, f convex, ‖∂f‖ ≤ G, E G_t = g_t ∈ ∂f(x_t), E‖G_t − g_t‖² ≤ δ², V = G² + δ²,
x_t = x_0 − Σ_{i<t} h_ti G_i.

**Theorem.**  For a_t, λ_tj, e, τ, ν_t ≥ 0 (j < t) let w_t = a_t + Σ_{j<t} λ_tj − Σ_{i>t} λ_it, w_0
with e added.  If all w_t ≥ 0 and, as a quadratic form in v = (x_0 − x*, G_0, …, G_{T−1}),

    vᵀSv = τ‖x_0 − x*‖² + Σ_t ν_t‖G_t‖² − Σ_t ⟨G_t, a_t (x_t − x*) + Σ_{j<t} λ_tj (x_t − x_j)⟩

is positive semidefinite, then Σ_t w_t E F_t ≤ τR² + V Σν_t + eF_0, which bounds min_t E F_t if
Σw = 1.

Proof.  Convexity: Σ_t w_tE F_t − eF_0 ≤ E Σ_t ⟨g_t, a_t (x_t − x*) + Σ_j λ_tj (x_t − x_j)⟩.  The
second factor depends on G_0 … G_{t−1} only, so G_t may stand for its conditional mean g_t.  What
stands there then is τ‖x_0 − x*‖² + Σν_tE‖G_t‖² − E vᵀSv, and E‖G_t‖² ≤ V.

The best multipliers solve a semidefinite programme.  Without noise it is the dual of
`theory.worst_case` less the inequalities that compare g_t with a *later* x_j, to which the step
above does not apply, and which change little.  Theorems A (s ≤ 1/(1−β)) and C and the virtual steps
of `theory.virtual_steps` that satisfy its conditions are feasible points with S of rank one.
Theorem B adds a diagonally dominant matrix to it; its price G√V is V here, so that under much
noise it can be the smaller one.

Source: derived here, from the dual of Drori and Teboulle, Math. Program. 145 (2014) 451–482.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.constants import constants
from theory.methods import HasStepMatrix
from theory.potential import rate_list
from theory.worst_case import check_status, installed_solver, require, solving

__all__ = ["EarlierIterates", "earlier_iterates"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EarlierIterates:
    """Σ_t weights[t] E F_t ≤ value, weights ≥ 0 of sum 1, and what proves it.

    In the units R = V = 1, value / (R√V) = distance + Σ_t squares[t] + gap · F_0 / (R√V).

    weights : w, shape (T,).
    minimizer : a, shape (T,), of f* ≥ f_t + ⟨g_t, x* − x_t⟩.
    earlier : λ, shape (T, T), strictly lower triangular: of f_j ≥ f_t + ⟨g_t, x_j − x_t⟩.
    distance, squares, gap : τ; ν, shape (T,); e.
    """

    value: float
    weights: Array
    minimizer: Array
    earlier: Array
    distance: float
    squares: Array
    gap: float


def _solve(h: Array, F_0: float, solver: str) -> tuple[Array, Array, Array, float]:
    """a, λ, (τ, ν) and e, up to the solver's accuracy, R = V = 1."""
    cp, T = require("cvxpy"), len(h)
    λ, a = cp.Variable((T, T), nonneg=True), cp.Variable(T, nonneg=True)
    diagonal, e = cp.Variable(T + 1, nonneg=True), cp.Variable(nonneg=True)
    weights = a + cp.sum(λ, axis=1) - cp.sum(λ, axis=0) + e * np.eye(T)[0]
    along = λ @ h - cp.diag(a + cp.sum(λ, axis=1)) @ h  # a_t (x_t − x*) + Σ_j λ_tj (x_t − x_j)
    form = cp.vstack([np.zeros((1, T + 1)), cp.hstack([cp.reshape(a, (T, 1), order="C"), along])])
    programme = cp.Problem(
        cp.Minimize(cp.sum(diagonal) + F_0 * e),
        [
            cp.multiply(λ, np.triu(np.ones((T, T)))) == 0,
            weights >= 0,
            cp.sum(weights) == 1,
            cp.diag(diagonal) - (form + form.T) / 2 >> 0,
        ],
    )
    with solving(solver):
        programme.solve(solver=solver)
    check_status(solver, programme.status)
    return a.value, λ.value, diagonal.value, float(e.value)


def earlier_iterates(
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
    solver: str = "CLARABEL",
) -> EarlierIterates:
    """min_t E F_t ≤ τR² + V Σν_t + eF_0 with the best multipliers on earlier iterates.

    What the solver returns is made to satisfy every condition: multipliers < 0 are set to 0, what
    a weight lacks is added to a_t, and τ and ν grow until S is positive semidefinite by more than
    its rounding errors.  So the result is a bound whatever the solver's accuracy.

    Parameters
    ----------
    rates : α_0 … α_{T−1}, each finite and > 0, in any order: a `StepwiseSchedule` or a sequence.
        0.3 s at T = 30, 8 s at T = 60.
    method : `UnifiedMomentum`, `TorchMomentum`, or whatever has a `step_matrix`.
    distance, subgradient, gap, noise : R, G, F_0 (default GR) and δ, a standard deviation.
    solver : as cvxpy names it; it must handle semidefinite programmes.

    Raises
    ------
    ImportError
        If cvxpy is missing (extra `checks`).
    ValueError, TypeError
        If an argument is out of range or of the wrong type, or the solver is not installed.
    RuntimeError
        If the solver does not reach an optimum.
    """
    c = constants(distance, gap, subgradient, noise)
    listed = [float(rate) for rate in rate_list(rates)]
    if not hasattr(method, "step_matrix"):
        raise TypeError(f"method must have a step_matrix, got {method!r}")
    solver = installed_solver(solver)
    T, R, root = len(listed), float(c.R), math.sqrt(c.second_moment)
    F_0 = min(float(c.F0), float(c.G) * R)
    H = np.asarray(method.step_matrix(listed), dtype=float)
    if not np.isfinite(H).all():
        raise ValueError("the method's step_matrix must be finite: some step overflows")
    if F_0 == 0:
        first = np.eye(T)[0]
        return EarlierIterates(0.0, first, 0 * first, np.zeros((T, T)), 0.0, 0 * first, 1.0)

    h = np.vstack([np.zeros(T), H[:-1]]) * (root / R)
    a, λ, diagonal, e = _solve(h, F_0 / (R * root), solver)
    a, λ, e = np.maximum(a, 0), np.tril(np.maximum(λ, 0), -1), max(e, 0.0)
    weights = a + λ.sum(axis=1) - λ.sum(axis=0) + e * np.eye(T)[0]
    lack = np.maximum(-weights, 0)
    a, weights = a + lack, weights + lack
    form = np.vstack([np.zeros(T + 1), np.column_stack([a, λ @ h - np.diag(a + λ.sum(1)) @ h])])
    S = np.diag(np.maximum(diagonal, 0)) - (form + form.T) / 2
    # An entry of S is a sum of T terms of size ≤ that of (|λ| + |a|)|h|, and as many form a row.
    size = float(np.abs(S).max() + (λ.sum(axis=1) + a).max() * max(1.0, np.abs(h).max()))
    rounding = 4 * (T + 1) ** 2 * np.finfo(float).eps * size
    shift = max(0.0, rounding - float(np.linalg.eigvalsh(S)[0]))
    total = float(weights.sum())
    τ, *ν = (np.maximum(diagonal, 0) + shift) / total
    value = float(τ + sum(ν)) * R * root + e / total * F_0
    return EarlierIterates(
        min(value, F_0), weights / total, a / total, λ / total, float(τ), np.array(ν), e / total
    )
