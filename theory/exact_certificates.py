"""Upper bounds of worst cases, in rational numbers and each with a proof in Fractions.

The setting is that of `theory.exact_problem`; lower bounds are in `theory.exact_witnesses`.  With
multipliers λ_ij, τ, ν_t ≥ 0 and weights w_t ≥ 0 of sum 1,

    bound − Σ_t w_t F_t = Σ_ij λ_ij (f_j − f_i − ⟨g_i, x_j − x_i⟩) + τ (R² − ‖x_0 − x*‖²)
                          + Σ_t ν_t (G² − ‖g_t‖²) + vᵀSv,       v = (x_0 − x*, g_0, g_1, …),

where i and j run over the iterates and x* (g = 0 there).  This is an identity in f and g once the
coefficients of every f_t agree and bound = τR² + G²Σν_t; it *defines* S.  All brackets are ≥ 0, so
that S ⪰ 0 proves Σ w_t F_t ≤ bound, hence the bound on the criterion.  S ⪰ 0 is decided by the
pivots of its LDLᵀ factorization.  No number is ever rounded in the verification.

Source: Drori and Teboulle, Math. Program. 145 (2014), for the dual; Taylor, Hendrickx and Glineur,
Math. Program. 161 (2017), Theorem 4, for which inequalities are enough (their interpolation
conditions); the rational rounding and the closed forms are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

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
from theory.methods import HasStepMatrix, UnifiedMomentum
from theory.worst_case import require

__all__ = [
    "STAR",
    "Multiplier",
    "RationalCertificate",
    "from_theorem_a",
    "from_virtual_steps",
    "ldl_pivots",
    "prove",
]

STAR = -1  # the index of x*; the last row of every list of points belongs to it


class Multiplier(NamedTuple):
    """λ ≥ 0 of f_j ≥ f_i + ⟨g_i, x_j − x_i⟩; the index −1 (`STAR`) stands for x*."""

    i: int
    j: int
    value: Fraction


def ldl_pivots(matrix: Sequence[Sequence[Fraction]]) -> tuple[Fraction, ...]:
    """The pivots d of S = L diag(d) Lᵀ, L unit lower triangular; all ≥ 0 iff S ⪰ 0.

    `matrix` is symmetric, of exact numbers.  Raises `InvalidProof` if S is not positive
    semidefinite: a negative pivot, or a zero pivot whose remaining row is not zero.
    """
    S = [list(row) for row in matrix]
    pivots = []
    for k, row in enumerate(S):
        d = row[k]
        if d < 0:
            raise InvalidProof(f"the slack form must be positive semidefinite, pivot {k} is {d}")
        if d == 0 and any(row[k + 1 :]):
            raise InvalidProof(
                f"the slack form must be positive semidefinite, pivot {k} is 0 and its row is not"
            )
        for i in range(k + 1, len(S) if d else 0):
            ratio = row[i] / d
            for j in range(i, len(S)):
                S[i][j] -= ratio * row[j]
        pivots.append(d)
    return tuple(pivots)


def _slack_form(
    positions: Matrix, multipliers: Sequence[Multiplier], diagonal: Sequence[Fraction]
) -> Matrix:
    """S = diag(τ, ν) − Σ λ_ij ⟨g_i, x_i − x_j⟩ as a symmetric matrix."""
    S = [[Fraction(0)] * len(diagonal) for _ in diagonal]
    for k, value in enumerate(diagonal):
        S[k][k] = value
    for i, j, λ in multipliers:
        if i == STAR:  # g = 0 at x*
            continue
        for k, (a, b) in enumerate(zip(positions[i], positions[j], strict=True)):
            half = λ * (a - b) / 2
            S[i + 1][k] -= half
            S[k][i + 1] -= half
    return S


def _balance(multipliers: Sequence[Multiplier], points: int) -> list[Fraction]:
    """Σ_j λ_tj − Σ_i λ_it for every iterate t: what the weight of F_t must be."""
    balance = [Fraction(0)] * (points + 1)
    for i, j, λ in multipliers:
        balance[i] += λ
        balance[j] -= λ
    return balance[:points]


def _inequality(i: int, j: int) -> str:
    if i == STAR:
        return f"f_{j} ≥ f*"
    target = "*" if j == STAR else f"_{j}"
    return f"f{target} ≥ f_{i} + ⟨g_{i}, x{target} − x_{i}⟩"


@dataclass(frozen=True, kw_only=True)
class RationalCertificate(ExactProblem):
    """A proof, in rational numbers, that the criterion is ≤ `bound` in the worst case.

    Parameters
    ----------
    rates, method, distance, subgradient, criterion : the problem (R and G in `distance` and
        `subgradient`); see the module.
    multipliers : λ_ij ≥ 0, dimensionless.
    weights : w_t ≥ 0, of sum 1, one for each iterate; for "last" all on the last one.
    bounded : ν_t ≥ 0 of ‖g_t‖² ≤ G², units R/G.
    start : τ ≥ 0 of ‖x_0 − x*‖² ≤ R², units G/R.
    bound : τR² + G²Σν_t.

    The functions of this module return verified certificates; one that comes from elsewhere
    proves nothing before `verify()`.  `str()` writes the proof out.
    """

    multipliers: tuple[Multiplier, ...]
    weights: tuple[Fraction, ...]
    bounded: tuple[Fraction, ...]
    start: Fraction
    bound: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = tuple(Multiplier(i, j, exact("every λ", λ)) for i, j, λ in self.multipliers)
        object.__setattr__(self, "multipliers", listed)
        for name in ("weights", "bounded"):
            values = tuple(exact(name, value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        for name in ("start", "bound"):
            object.__setattr__(self, name, exact(name, getattr(self, name)))

    def slack_form(self) -> Matrix:
        """S over the basis (x_0 − x*, g_0, g_1, …): what is left of the identity."""
        return _slack_form(self.positions(), self.multipliers, [self.start, *self.bounded])

    @property
    def pivots(self) -> tuple[Fraction, ...]:
        """The pivots of S, all ≥ 0; their positive ones count its rank.  Else `InvalidProof`."""
        return ldl_pivots(self.slack_form())

    def verify(self) -> None:
        """Checks the identity and all signs, from the problem's data only and in Fractions.

        Raises `InvalidProof`, which names the condition that fails and its value.
        """
        N, R, G = self.points, self.distance, self.subgradient
        self.require_entries("weights", "bounded")
        for i, j, λ in self.multipliers:
            if not (STAR <= i < N and STAR <= j < N and i != j):
                raise InvalidProof(f"no inequality runs from {i} to {j}: indices −1 … {N - 1}")
            if λ < 0:
                raise InvalidProof(f"the multiplier of {_inequality(i, j)} must be ≥ 0, got {λ}")
        for t, (w, ν) in enumerate(zip(self.weights, self.bounded, strict=True)):
            if w < 0:
                raise InvalidProof(f"the weight of f_{t} must be ≥ 0, got {w}")
            if ν < 0:
                raise InvalidProof(f"the multiplier of ‖g_{t}‖² ≤ G² must be ≥ 0, got {ν}")
        if self.start < 0:
            raise InvalidProof(f"the multiplier of ‖x_0 − x*‖² ≤ R² must be ≥ 0, got {self.start}")
        if sum(self.weights) != 1:
            raise InvalidProof(f"the weights must add up to 1, got {sum(self.weights)}")
        if self.criterion == "last" and self.weights[-1] != 1:
            raise InvalidProof(
                f"the criterion 'last' needs all weight on f_{N - 1}, got {self.weights[-1]}"
            )
        # The coefficient of f* follows: the sum of all of them is 0 on both sides.
        for t, value in enumerate(_balance(self.multipliers, N)):
            if value != self.weights[t]:
                raise InvalidProof(
                    f"the coefficients of f_{t} must agree: weight {self.weights[t]}, "
                    f"multipliers {value}"
                )
        ldl_pivots(self.slack_form())
        value = self.start * R**2 + G**2 * sum(self.bounded)
        if self.bound != value:
            raise InvalidProof(f"the bound must be τR² + G²Σν = {value}, got {self.bound}")

    def __str__(self) -> str:
        R, G = self.distance, self.subgradient
        lines = [
            f"{self.criterion_text} − f* ≤ {self.bound} ≈ {float(self.bound):.8g}",
            f"for {self.method}, R = {R}, G = {G}, rates {', '.join(map(str, self.rates))}",
            "since the sum of these inequalities, times their multipliers,",
        ]
        terms = [(_inequality(i, j), λ) for i, j, λ in self.multipliers]
        terms += [(f"‖g_{t}‖² ≤ {G**2}", ν) for t, ν in enumerate(self.bounded) if ν]
        terms.append((f"‖x_0 − x*‖² ≤ {R**2}", self.start))
        width = max(len(text) for text, _ in terms)
        lines += [f"  {text:<{width}}  × {value}" for text, value in terms]
        gaps = " + ".join(f"{w}·f_{t}" for t, w in enumerate(self.weights) if w)
        lines.append(f"is {gaps} − f* ≤ the bound − vᵀSv, v = (x_0 − x*, g_0, …), S ⪰ 0:")
        pivots = ", ".join("0" if not d else f"{float(d):.6g}" for d in self.pivots)
        lines.append(f"  pivots of S, to 6 digits: {pivots}")
        return "\n".join(lines)


def _certificate(
    problem: ExactProblem, multipliers: Sequence[Multiplier], start: Any, bounded: Sequence[Any]
) -> RationalCertificate:
    """The verified certificate with these multipliers, scaled so that the weights add up to 1."""
    balance = _balance(multipliers, problem.points)
    total = sum(balance)
    certificate = RationalCertificate(
        **vars(problem),
        multipliers=tuple(Multiplier(i, j, λ / total) for i, j, λ in sorted(multipliers) if λ),
        weights=tuple(w / total for w in balance),
        bounded=tuple(ν / total for ν in bounded),
        start=start / total,
        bound=(start * problem.distance**2 + problem.subgradient**2 * sum(bounded)) / total,
    )
    certificate.verify()
    return certificate


def from_theorem_a(
    rates: Sequence[Exact],
    method: UnifiedMomentum,
    *,
    distance: Exact,
    subgradient: Exact,
) -> RationalCertificate:
    """min_{t<T} F_t ≤ [R²/2 + eGR + (G²/2) Ση_t²] / (Ση_t + e): Theorem A as a certificate.

    η_t = α_t/(1−β).  The proof of Theorem A takes f* ≥ f_t + ⟨g_t, x* − x_t⟩ times η_t, and
    f_j ≥ f_t + ⟨g_t, x_j − x_t⟩, j < t, times qη_t times the weight of x_j in u_{t−1}; what is
    left, ‖z_T − x*‖²/2, makes S of rank one.  With these the weight of F_0 is W_0, and for
    e = max(0, −W_0) > 0, eF_0 ≤ e⟨g_0, x_0 − x*⟩ ≤ (e/2)(G/R ‖x_0 − x*‖² + R/G ‖g_0‖²) ≤ eGR.

    Exact, without a solver.  Requires exact rates, β and s, and 0 ≤ s ≤ 1/(1−β).  Holds for all
    non-increasing rates; for others `InvalidProof` is raised where a weight W_t, t ≥ 1, is < 0.
    Raises ValueError for s > 1/(1−β), TypeError for numbers that are not exact.
    """
    checks.instance("method", method, UnifiedMomentum)
    problem = exact_problem(rates, method, distance, subgradient)
    β, s = exact("momentum", method.momentum), exact("s", method.s)
    σ = (1 - β) * s
    if σ > 1:
        raise ValueError(f"s must be <= 1/(1 - momentum) = {1 / (1 - β)}, got {s}")
    q = (1 - σ) * β / (1 - (1 - σ) * β)
    r = (1 - β) / (1 - (1 - σ) * β)
    η = [α / (1 - β) for α in problem.rates]
    multipliers = []
    u: list[Fraction] = []  # the weights of x_0 … x_{t−1} in u_{t−1}
    for t, step in enumerate(η):
        multipliers += [Multiplier(t, j, q * step * c) for j, c in enumerate(u)]
        multipliers.append(Multiplier(t, STAR, step))
        u = [(1 - r) * c for c in u] + [r if t else Fraction(1)]
    e = max(Fraction(0), -_balance(multipliers, len(η))[0])
    multipliers = [Multiplier(i, j, λ + e if (i, j) == (0, STAR) else λ) for i, j, λ in multipliers]
    R, G = problem.distance, problem.subgradient
    bounded = [step**2 / 2 for step in η]
    bounded[0] += e * R / G / 2
    return _certificate(problem, multipliers, Fraction(1, 2) + e * G / R / 2, bounded)


def from_virtual_steps(
    steps: Sequence[Exact],
    rates: Sequence[Exact],
    method: HasStepMatrix,
    *,
    distance: Exact,
    subgradient: Exact,
) -> RationalCertificate:
    """min_{t<T} F_t ≤ (R² + G² Σb_t²) / (2 Σb_t) for steps b that the method can carry.

    For any method with a step matrix of non-zero diagonal.  Let z_t = x_0 − Σ_{i<t} b_i g_i.  There
    are unique μ_tj with z_t − x_t = Σ_{j<t} μ_tj (x_t − x_j).  If μ_tj ≥ 0 wherever b_t > 0, then
    convexity gives

        ⟨g_t, z_t − x*⟩ ≥ F_t + Σ_j μ_tj (F_t − F_j),

    and ‖z_{t+1} − x*‖² = ‖z_t − x*‖² − 2b_t⟨g_t, z_t − x*⟩ + b_t²‖g_t‖² adds up to the bound if the
    weights b_t(1 + Σ_jμ_tj) − Σ_{i>t} b_iμ_it that F_t is left with are ≥ 0.  S has rank one.
    Theorem A is b = η, where μ_tj is q times the weight of x_j in u_{t−1}.  The condition μ ≥ 0 is
    affine in b, so that without the one on the weights the best b solve a quadratic programme.
    b_t = 0 leaves out the iterate t; b_{T−1} is free, since no criterion sees x_T.

    Exact, without a solver.  Requires exact numbers and b_t ≥ 0, not all 0.  `InvalidProof` names
    the multiplier b_tμ_tj or the weight that is negative.
    """
    problem = exact_problem(rates, method, distance, subgradient)
    b = [exact("every step", step) for step in steps]
    if len(b) != problem.points:
        raise ValueError(f"steps must have one entry per rate, {problem.points}, got {len(b)}")
    if min(b) < 0 or not any(b):
        raise ValueError(f"steps must be >= 0 and not all 0, got {', '.join(map(str, b))}")
    h = [[-entry for entry in row[1:]] for row in problem.positions()]  # x_t = x_0 − Σ h[t][i] g_i
    multipliers = []
    for t in range(len(b)):
        if b[t]:
            multipliers.append(Multiplier(t, STAR, b[t]))
            μ = _carried(h, b, t)
            multipliers += [Multiplier(t, j, b[t] * value) for j, value in enumerate(μ)]
    return _certificate(problem, multipliers, Fraction(1, 2), [step**2 / 2 for step in b])


def _carried(h: Matrix, b: Sequence[Fraction], t: int) -> list[Fraction]:
    """μ with Σ_{j<t} μ_j (h[t] − h[j]) = b − h[t] in the entries i < t, by back substitution."""
    if not t:
        return []
    if any(h[i + 1][i] == 0 for i in range(t)):
        raise ValueError("every iterate must move along its own subgradient: a diagonal entry is 0")
    total = (b[t - 1] - h[t][t - 1]) / h[t][t - 1]  # Σμ: no earlier iterate has seen g_{t−1}
    μ = [Fraction(0)] * t
    for i in range(t - 2, -1, -1):
        seen = dot(μ, [h[j][i] for j in range(t)])
        μ[i + 1] = (total * h[t][i] - (b[i] - h[t][i]) - seen) / h[i + 1][i]
    μ[0] = total - sum(μ)
    return μ


def _dual(problem: ExactProblem) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """λ among the iterates, weights and (τ, ν) of the best certificate, in units R = G = 1."""
    cvxpy, X, N = require("cvxpy"), normalised(problem), problem.points
    Λ = cvxpy.Variable((N, N + 1), nonneg=True)  # the last column belongs to x*
    weights = cvxpy.Variable(N, nonneg=True)
    diagonal = cvxpy.Variable(N + 1, nonneg=True)
    outgoing = cvxpy.sum(Λ, axis=1)
    towards = cvxpy.diag(outgoing) @ X[:N] - Λ @ X  # row i: Σ_j λ_ij (x_i − x_j)
    form = cvxpy.vstack([np.zeros((1, N + 1)), towards])
    constraints = [
        cvxpy.diag(Λ[:, :N]) == 0,
        weights == outgoing - cvxpy.sum(Λ[:, :N], axis=0),
        cvxpy.sum(weights) == 1,
        cvxpy.diag(diagonal) - (form + form.T) / 2 >> 0,
    ]
    if problem.criterion == "last":
        constraints.append(weights[: N - 1] == 0)
    solve(cvxpy.Minimize(cvxpy.sum(diagonal)), constraints)
    return Λ.value[:, :N], weights.value, diagonal.value


def prove(
    rates: Sequence[Exact],
    method: HasStepMatrix,
    *,
    distance: Exact,
    subgradient: Exact,
    criterion: str = "best",
    max_denominator: int = 10**8,
) -> RationalCertificate:
    """A verified rational certificate close to the exact worst case, from the numerical dual.

    The dual semidefinite programme is solved in floats; all λ_ij between iterates and the weights
    are rounded to multiples of 1/max_denominator, the multipliers of f* ≥ f_t + … take what the
    coefficients of f_t lack, and τ and ν grow by the same amount (in units with R = G = 1, also
    multiples of 1/max_denominator) until S ⪰ 0 holds exactly.  The excess over the exact worst
    case is of the order of (1/max_denominator + 1e-8) N² max|H|, H and the excess in these units,
    N the number of iterates: rates far above R/G cost digits.

    Requires exact rates and an exact method (`UnifiedMomentum`, `TorchMomentum`, or any object
    with `step_matrix`); TypeError otherwise.  ImportError without cvxpy (extra `checks`),
    RuntimeError if the solver fails.
    """
    D = checks.positive_integer("max_denominator", max_denominator)
    problem = exact_problem(rates, method, distance, subgradient, criterion)
    N, unit = problem.points, problem.subgradient / problem.distance
    Λ, w, numerical = _dual(problem)
    multipliers = [
        Multiplier(i, j, Fraction(k, D))
        for (i, j), value in np.ndenumerate(Λ)
        if i != j and (k := max(0, round(value * D)))
    ]
    weights = [Fraction(max(0, round(value * D)), D) for value in w]
    if criterion == "last":
        weights = [Fraction(0)] * (N - 1) + [Fraction(1)]
    heaviest = max(range(N), key=weights.__getitem__)
    weights[heaviest] += 1 - sum(weights)
    for t, value in enumerate(_balance(multipliers, N)):
        missing = weights[t] - value
        edge = (t, STAR) if missing >= 0 else (STAR, t)
        multipliers.append(Multiplier(*edge, abs(missing)))
    units = [unit] + [1 / unit] * N
    diagonal = [Fraction(math.ceil(value * D), D) for value in numerical]
    positions = problem.positions()
    shift = Fraction(1, D)
    while True:
        grown = [(value + shift) * u for value, u in zip(diagonal, units, strict=True)]
        try:
            ldl_pivots(_slack_form(positions, multipliers, grown))
        except InvalidProof:
            shift *= 2
        else:
            return _certificate(problem, multipliers, grown[0], grown[1:])
