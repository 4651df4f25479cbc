"""Deterministic convex functions: |x − c|, ‖x − c‖ and the maximum of affine functions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.problems.convex import Array, ConvexProblem, finite_array, like

__all__ = ["AbsoluteValue", "MaxAffine", "Norm"]


@dataclass(frozen=True, eq=False, init=False)
class Norm(ConvexProblem):
    """f(x) = G‖x − c‖₂, f* = 0 at x* = c, exactly; ∂f(c) ∋ 0 is what `subgradient` returns there.

    Parameters
    ----------
    scale : G > 0.
    centre : c, shape (n,).
    start : x_0, scalar or shape (n,).

    Raises
    ------
    ValueError
        If G is not positive and finite, or a shape does not fit.
    """

    def __init__(self, scale: float, centre: Any, start: Any) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be finite and > 0, got {scale}")
        c = finite_array("centre", centre, 1)
        self._set_start(start, c.size)
        self._set(
            minimiser=c,
            minimum=0.0,
            minimum_lower=0.0,
            subgradient_bound=float(scale),
            noise=0.0,
        )

    def value(self, x: Any) -> Any:
        """G‖x − c‖₂; shapes (…, n) to (…)."""
        xp = self._namespace(x)
        return self.subgradient_bound * xp.linalg.norm(x - like(self.minimiser, x), axis=-1)

    def subgradient(self, x: Any) -> Any:
        """G(x − c)/‖x − c‖, and 0 at c; shapes (…, n) to (…, n)."""
        xp = self._namespace(x)
        d = x - like(self.minimiser, x)
        norm = xp.linalg.norm(d, axis=-1)[..., None]
        return self.subgradient_bound * d / xp.where(norm > 0, norm, 1 + norm)


class AbsoluteValue(Norm):
    """f(x) = G|x − c| on R, f* = 0 at x* = c, exactly; arguments as for `Norm`, scalars."""

    def __init__(self, scale: float = 1.0, centre: float = 0.0, start: float = 1.0) -> None:
        super().__init__(scale, centre, start)
        if self.dimension != 1:
            raise ValueError(f"centre must be a number, got shape {self.minimiser.shape}")

    def value(self, x: Any) -> Any:
        """G|x − c|; shapes (…, 1) to (…)."""
        self._namespace(x)
        return self.subgradient_bound * abs(x - like(self.minimiser, x))[..., 0]

    def subgradient(self, x: Any) -> Any:
        """G sign(x − c), 0 at c; shapes (…, 1) to (…, 1)."""
        xp = self._namespace(x)
        return self.subgradient_bound * xp.sign(x - like(self.minimiser, x))


def _solve_exactly(columns: list[list[Fraction]], target: list[Fraction]) -> list[Fraction] | None:
    """λ with Σ_j λ_j columns[j] = target in rational arithmetic (free λ_j are 0), or None."""
    rows = [[*row, goal] for *row, goal in zip(*columns, target, strict=True)]
    pivots: list[int] = []
    for j in range(len(columns)):
        done = len(pivots)
        found = next((i for i in range(done, len(rows)) if rows[i][j]), None)
        if found is None:
            continue
        rows[done], rows[found] = rows[found], rows[done]
        head = [entry / rows[done][j] for entry in rows[done]]
        rows[done] = head
        for i, row in enumerate(rows):
            if i != done and (factor := row[j]):
                rows[i] = [a - factor * b for a, b in zip(row, head, strict=True)]
        pivots.append(j)
    if any(row[-1] for row in rows[len(pivots) :]):
        return None
    λ = [Fraction(0)] * len(columns)
    for i, j in enumerate(pivots):
        λ[j] = rows[i][-1]
    return λ


def _exact_lower_bound(A: Array, b: Array, support: NDArray[Any]) -> Fraction | None:
    """Σ λ_j b_j ≤ f* with λ ≥ 0, Σ λ_j = 1, Σ λ_j a_j = 0 exactly, λ = 0 off the support."""
    columns = [[*map(Fraction, A[j].tolist()), Fraction(1)] for j in support.tolist()]
    λ = _solve_exactly(columns, [Fraction(0)] * A.shape[1] + [Fraction(1)]) if columns else None
    if λ is None or min(λ) < 0:
        return None
    terms = (λ_j * Fraction(b_j) for λ_j, b_j in zip(λ, b[support].tolist(), strict=True))
    return sum(terms, Fraction(0))


# HiGHS takes a multiplier below its default feasibility tolerance for 0.
_HIGHS_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False, init=False)
class MaxAffine(ConvexProblem):
    """f(x) = max_j ⟨a_j, x⟩ + b_j, with G = max_j ‖a_j‖.

    x̂ solves the linear programme min τ, ⟨a_j, x⟩ + b_j ≤ τ, by HiGHS.  `minimum_lower` needs no
    tolerance: on the support of the solver's dual multipliers the system Σ λ_j a_j = 0, Σ λ_j = 1
    is solved again in rational arithmetic, and for such a λ ≥ 0 weak duality, f(x) ≥
    Σ λ_j (⟨a_j, x⟩ + b_j) = Σ λ_j b_j at every x, holds exactly.

    Parameters
    ----------
    slopes : a, shape (m, n).
    intercepts : b, scalar or shape (m,).
    start : x_0, scalar or shape (n,).

    Raises
    ------
    ValueError
        If a shape does not fit, or f is not bounded below: 0 must lie in the convex hull of the
        slopes, exactly as they are stored.
    ImportError
        Without scipy (extra `checks`).
    """

    slopes: Array
    intercepts: Array

    def __init__(self, slopes: Any, intercepts: Any, start: Any = 0.0) -> None:
        A = finite_array("slopes", slopes, 2)
        b = finite_array("intercepts", intercepts, 1)
        if b.size not in (1, len(A)):
            raise ValueError(
                f"intercepts must be a scalar or have shape ({len(A)},), got {b.shape}"
            )
        b = np.broadcast_to(b, (len(A),)).copy()
        self._set_start(start, A.shape[1])
        self._set(slopes=A, intercepts=b)
        x, lower = self._minimise()
        minimum = float(self.value(x))
        self._set(
            minimiser=x,
            minimum=minimum,
            minimum_lower=min(lower, minimum),  # f(x̂) rounds down, too
            subgradient_bound=float(np.linalg.norm(A, axis=1).max()),
            noise=0.0,
        )

    def _minimise(self) -> tuple[Array, float]:
        from theory.problems.duality import linear_programme

        A, b = self.slopes, self.intercepts
        # The dual, max Σ λ_j b_j over the simplex with Σ λ_j a_j = 0; its multipliers are (x, τ).
        equalities = np.vstack([A.T, np.ones(len(A))])
        solved = linear_programme(-b, equalities, np.eye(A.shape[1] + 1)[-1], np.zeros(len(A)))
        if solved is not None:
            λ, x = solved
            for tolerance in (_HIGHS_TOLERANCE, 0.0):
                lower = _exact_lower_bound(A, b, np.flatnonzero(tolerance < λ))
                if lower is not None:
                    rounded = float(lower)
                    if rounded > lower:
                        rounded = float(np.nextafter(rounded, -np.inf))
                    return x[:-1].copy(), rounded
        raise ValueError(
            "f is not bounded below: 0 must lie in the convex hull of the slopes, exactly as stored"
        )

    @property
    def footprint(self) -> int:
        """max(m, n)."""
        return max(self.slopes.shape)

    def _pieces(self, x: Any) -> Any:
        return x @ like(self.slopes, x).T + like(self.intercepts, x)

    def value(self, x: Any) -> Any:
        """max_j ⟨a_j, x⟩ + b_j; shapes (…, n) to (…)."""
        xp = self._namespace(x)
        return xp.amax(self._pieces(x), axis=-1)

    def subgradient(self, x: Any) -> Any:
        """a_j of the first piece j that attains the maximum; shapes (…, n) to (…, n)."""
        self._namespace(x)
        return like(self.slopes, x)[self._pieces(x).argmax(-1)]
