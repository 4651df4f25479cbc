"""Lower bounds of worst cases, in rational numbers: a function on which a method does that badly.

The setting is that of `theory.exact_problem`; upper bounds are in `theory.exact_certificates`.

    f(x) = max(0, max_t ⟨g_t, x⟩ + c_t)   with c_t ≤ 0, x* = 0 and rational g_t,

on which the method is run: piece t is active at x_t, so g_t is a subgradient there.

Source: Taylor, Hendrickx and Glineur, Math. Program. 161 (2017), Theorem 4, for this form of f;
the rational rounding and the offsets are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.exact_problem import (
    Exact,
    ExactProblem,
    InvalidProof,
    Matrix,
    dot,
    exact,
    exact_problem,
    normalised,
    solve,
)
from theory.methods import HasStepMatrix
from theory.worst_case import require

__all__ = ["RationalWitness", "coordinate_witness", "witness"]


@dataclass(frozen=True, kw_only=True)
class RationalWitness(ExactProblem):
    """A rational function on which the method's criterion is exactly `bound`.

    f(x) = max(0, max_t ⟨g_t, x⟩ + c_t) on Q^d, x* = 0.

    Parameters
    ----------
    rates, method, distance, subgradient, criterion : the problem; see the module.
    slopes : the g_t, one for each iterate, ‖g_t‖ ≤ G.
    offsets : the c_t ≤ 0, so that f(0) = 0 is the minimum.
    initial : x_0, ‖x_0‖ ≤ R.
    bound : the criterion on this f: a lower bound of the worst case.
    """

    slopes: tuple[tuple[Fraction, ...], ...]
    offsets: tuple[Fraction, ...]
    initial: tuple[Fraction, ...]
    bound: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        slopes = tuple(tuple(exact("every slope", g) for g in row) for row in self.slopes)
        object.__setattr__(self, "slopes", slopes)
        for name in ("offsets", "initial"):
            values = tuple(exact(name, value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        object.__setattr__(self, "bound", exact("bound", self.bound))

    def __call__(self, x: Sequence[Exact]) -> Fraction:
        """f(x), exact for exact x; shape (d,)."""
        point = [Fraction(value) for value in x]
        pieces = zip(self.slopes, self.offsets, strict=True)
        return max([Fraction(0), *(dot(g, point) + c for g, c in pieces)])

    def iterates(self) -> Matrix:
        """x_0, x_1, … of the method when the oracle answers with g_t at x_t."""
        vectors = [self.initial, *self.slopes]
        rows = self.positions()[:-1]
        return [[dot(row, column) for column in zip(*vectors, strict=True)] for row in rows]

    def verify(self) -> None:
        """Runs the method in Fractions and checks every condition on f.

        Raises `InvalidProof`, which names the condition that fails and its value.
        """
        R, G = self.distance, self.subgradient
        self.require_entries("slopes", "offsets")
        if any(len(g) != len(self.initial) for g in self.slopes):
            raise InvalidProof(f"every slope must have {len(self.initial)} entries, like x_0")
        if dot(self.initial, self.initial) > R**2:
            size = dot(self.initial, self.initial)
            raise InvalidProof(f"‖x_0 − x*‖² must be ≤ {R**2}, got {size}")
        for t, (g, c) in enumerate(zip(self.slopes, self.offsets, strict=True)):
            if dot(g, g) > G**2:
                raise InvalidProof(f"‖g_{t}‖² must be ≤ {G**2}, got {dot(g, g)}")
            if c > 0:
                raise InvalidProof(f"c_{t} must be ≤ 0 for a minimum at 0, got {c}")
        values = []
        for t, x in enumerate(self.iterates()):
            values.append(self(x))
            piece = dot(self.slopes[t], x) + self.offsets[t]
            if piece != values[t]:
                raise InvalidProof(
                    f"g_{t} must be a subgradient at x_{t}: its piece is {piece}, f is {values[t]}"
                )
        gap = values[-1] if self.criterion == "last" else min(values)
        if self.bound != gap:
            raise InvalidProof(f"the bound must be {self.criterion_text} = {gap}, got {self.bound}")

    def __str__(self) -> str:
        rates = ", ".join(map(str, self.rates))
        lines = [
            f"{self.criterion_text} − f* = {self.bound} ≈ {float(self.bound):.8g}",
            f"for {self.method}, R = {self.distance}, G = {self.subgradient}, rates {rates},",
            f"started at ({', '.join(map(str, self.initial))}), on f(x) = max of 0 and of",
        ]
        for g, c in zip(self.slopes, self.offsets, strict=True):
            lines.append(f"  ⟨({', '.join(map(str, g))}), x⟩ + {c}")
        return "\n".join(lines)


def _witness(
    problem: ExactProblem,
    initial: Sequence[Fraction],
    slopes: Sequence[Sequence[Fraction]],
) -> RationalWitness:
    """The verified witness with these slopes and the greatest offsets that they allow.

    F_i ≤ ⟨g_i, x_i⟩ and F_i ≤ F_j − ⟨g_i, x_j − x_i⟩ are difference constraints: a shortest path.
    """
    found = RationalWitness(
        **vars(problem),
        slopes=tuple(tuple(g) for g in slopes),
        offsets=(Fraction(0),) * problem.points,
        initial=tuple(initial),
        bound=Fraction(0),
    )
    x = found.iterates()
    products = [[dot(g, point) for point in x] for g in found.slopes]
    F = [row[i] for i, row in enumerate(products)]
    for _ in range(len(F)):  # Bellman and Ford
        F = [
            min([F[i]] + [F[j] - row[j] + row[i] for j in range(len(F))])
            for i, row in enumerate(products)
        ]
    verified = replace(
        found,
        offsets=tuple(F[i] - row[i] for i, row in enumerate(products)),
        bound=F[-1] if problem.criterion == "last" else min(F),
    )
    verified.verify()
    return verified


def coordinate_witness(
    rates: Sequence[Exact],
    method: HasStepMatrix,
    *,
    distance: Exact,
    subgradient: Exact,
    criterion: str = "best",
    max_denominator: int = 10**8,
) -> RationalWitness:
    """GR/√N from f(x) = G max(0, max_t x_t), N iterates: no method with H ≥ 0 does better.

    x_0 = (c, …, c) with c the greatest rational c ≤ R/√N of denominator N·max_denominator times
    that of R, which is R/√N itself when N is a square.  The oracle answers with the coordinate that
    no earlier answer has touched.  Exact, without a solver; `InvalidProof` for an H with entries
    < 0 on which another piece takes over.

    Source: Nesterov, Introductory Lectures on Convex Optimization (2004), Section 3.2.1; the
    constant for N evaluations is Drori and Teboulle, Math. Program. 160 (2016).
    """
    D = checks.positive_integer("max_denominator", max_denominator)
    problem = exact_problem(rates, method, distance, subgradient, criterion)
    N, R, G = problem.points, problem.distance, problem.subgradient
    c = Fraction(math.isqrt(R.numerator**2 * N * D**2), R.denominator * N * D)
    slopes = [[G if i == t else Fraction(0) for i in range(N)] for t in range(N)]
    return _witness(problem, [c] * N, slopes)


def _primal(problem: ExactProblem, margin: float) -> NDArray[np.float64]:
    """x_0 − x*, g_0, g_1, … as the rows of a triangular matrix, R = G = 1, slacks ≥ `margin`."""
    cvxpy, X, N = require("cvxpy"), normalised(problem), problem.points
    Γ = cvxpy.Variable((N + 1, N + 1), PSD=True)
    F = cvxpy.Variable(N)
    products = Γ[1:] @ X.T  # row i, column j: ⟨g_i, x_j − x*⟩
    own = cvxpy.reshape(cvxpy.diag(products[:, :N]), (N, 1), order="C")
    column, row = np.ones((1, N)), np.ones((N, 1))
    slack = (
        row @ cvxpy.reshape(F, (1, N), order="C")
        - cvxpy.reshape(F, (N, 1), order="C") @ column
        - products[:, :N]
        + own @ column
    )
    constraints = [
        slack >= margin * (1 - np.eye(N)),
        cvxpy.diag(products[:, :N]) - F >= margin,
        cvxpy.min(F) >= margin,
        cvxpy.diag(Γ) <= 1 - margin,
    ]
    solve(cvxpy.Maximize(F[N - 1] if problem.criterion == "last" else cvxpy.min(F)), constraints)
    size, axes = np.linalg.eigh(Γ.value)
    # Γ = VVᵀ; the triangular factor of Vᵀ = QR turns V into a matrix with the same products.
    upper = np.linalg.qr((axes * np.sqrt(np.maximum(size, 0))).T)[1]
    return upper.T * np.where(np.diag(upper) < 0, -1, 1)


def witness(
    rates: Sequence[Exact],
    method: HasStepMatrix,
    *,
    distance: Exact,
    subgradient: Exact,
    criterion: str = "best",
    max_denominator: int = 10**8,
) -> RationalWitness:
    """A verified rational function close to the worst one, from the numerical primal.

    The vectors x_0 − x* and g_t of the best Gram matrix, found with a margin in every inequality,
    are rounded to multiples of 1/max_denominator (in units with R = G = 1); the margin is what
    rounding and the solver can destroy, so that the rounded vectors belong to a convex function.

    Requirements and errors as for `theory.exact_certificates.prove`; RuntimeError if
    max_denominator leaves no room for the margin.
    """
    D = checks.positive_integer("max_denominator", max_denominator)
    problem = exact_problem(rates, method, distance, subgradient, criterion)
    N = problem.points
    reach = np.abs(normalised(problem)).sum(axis=1).max()  # ‖x_t − x*‖ ≤ reach
    # A vector moves by ε ≤ √(N+1)/(2D), ⟨g_i, x_j − x_i⟩ by (2·reach)ε from each of its factors.
    margin = 4 * reach * math.sqrt(N + 1) / (2 * D) + 1e-7  # clarabel stops at 1e-8
    R, G = problem.distance, problem.subgradient
    try:
        rounded = [[Fraction(round(v * D), D) for v in row] for row in _primal(problem, margin)]
        initial, *slopes = rounded
        return _witness(problem, [R * v for v in initial], [[G * v for v in g] for g in slopes])
    except (InvalidProof, RuntimeError) as error:
        raise RuntimeError(
            f"no witness with denominators up to {D}, a larger max_denominator may help: {error}"
        ) from error
