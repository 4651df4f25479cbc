"""The exact worst case under two-point noise: at each node of a tree the oracle returns g ± n.

A node of depth t is a history of t fair coins.  At its iterate x the oracle returns g + n or g − n,
g ∈ ∂f(x) and the noise n, ‖n‖ ≤ δ, chosen by the adversary anew at every node; one convex f has all
these subgradients.  That is a semidefinite programme over the 2ᵀ − 1 nodes, as in
`theory.worst_case`.  It does not grow so fast after a reduction by symmetry:

Exchanging the two subtrees below a node, with the sign of its n, changes neither the constraints
nor E F_t, and both are linear in the Gram matrix and the values; so the average of a solution over
all such exchanges is a solution.  In it F is the same at all nodes of one depth, and the
subgradient at the node of coins ε_0 … ε_{t−1} = ±1 is

    g = ḡ_t + Σ_{a<t} ε_a h_{t,a},

where ḡ_t is the mean over the depth, and h_{t,a}, the mean effect at depth t of the coin tossed at
the ancestor of depth a, is orthogonal to the ḡ, to the effects of all other nodes' coins and to
all other nodes' n.  What remains is one Gram matrix for x_0 − x*, ḡ_0, …, ḡ_{T−1} and one for n and
h_{a+1,a}, …, h_{T−1,a} at each depth a, of order ≤ T + 1; and one convexity condition for each pair
of depths and each depth at which the two nodes' histories part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.methods import HasStepMatrix
from theory.worst_case import (
    MAX_ITERATIONS,
    Normalized,
    check_solution,
    check_status,
    installed_solver,
    normalize,
    positive,
    require,
    solving,
)

__all__ = ["NoiseTree", "noise_tree_worst_case"]

Array = NDArray[np.float64]

MAX_NOISY_ITERATIONS = 16


@dataclass(frozen=True, eq=False)
class NoiseTree:
    """The worst case over functions and two-point noise.

    value : the worst case, from the dual.
    attained : what the solution found attains; `value` is larger by at most
        1e-6 max(GR, value).
    criterion, solver, status, rates : what was asked for, and the solver's verdict.
    gaps : shape (N,): E F_t in a worst case, for t < N; N = T + 1 if x_T counts, else T.
    """

    value: float
    attained: float
    criterion: str | tuple[float, ...]
    solver: str
    status: str
    rates: tuple[float, ...]
    gaps: Array


def noise_tree_worst_case(
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    noise: float,
    gap: float | None = None,
    criterion: str | ArrayLike = "best",
    solver: str = "CLARABEL",
) -> NoiseTree:
    """max over f and n of min_{t<T} E F_t, G_t = g_t ± n with equal probability, ‖n‖ ≤ δ.

    f convex, ‖∂f‖ ≤ G, ‖x_0 − x*‖ ≤ R, in any dimension; n may depend on the history.  So it is a
    lower bound of the worst case over all noise with E‖n‖² ≤ δ², and every bound that claims to
    hold for such noise must lie above it.  At δ = 0 it is `worst_case`, by a second route.

    Parameters
    ----------
    rates, method, distance, subgradient, gap, criterion, solver : as for `worst_case`; T ≤ 16,
        or T ≤ 30 where δ = 0.  "best" is min_t E F_t, not E min_t F_t.
    noise : δ ≥ 0.

    Raises
    ------
    ImportError
        If cvxpy is missing (extra `checks`).
    ValueError, TypeError
        If an argument is out of range, T is too large, or the solver is not installed.
    RuntimeError
        If the solver does not reach an optimum with agreeing primal and dual values.
    """
    δ = positive("noise", noise, zero=True)
    question = normalize(
        rates,
        method,
        distance=distance,
        subgradient=subgradient,
        gap=gap,
        criterion=criterion,
        max_iterations=MAX_NOISY_ITERATIONS if δ else MAX_ITERATIONS,
    )
    return _solve(question, δ / subgradient, installed_solver(solver))


@dataclass(frozen=True, eq=False)
class _Constraints:
    """values[r] · F + Σ_b blocks[b][r] · vec(Gram matrix b) ≤ bounds[r]."""

    values: Array
    blocks: list[Array]
    bounds: Array


def _product(left: list[Array], right: list[Array], shared: int, part: bool) -> list[Array]:
    """⟨left, right⟩ as coefficients of the Gram matrices, vectors at two nodes of the tree.

    The nodes share the coins of the depths < `shared`; if they `part`, the coin after these is +1
    for one and −1 for the other.  Later coins belong to different nodes: no inner product.
    """
    matrices = []
    for b, (u, w) in enumerate(zip(left, right, strict=False)):
        sign = 1 if b <= shared else -1 if part and b == shared + 1 else 0
        matrices.append(sign * (np.outer(u, w) + np.outer(w, u)).ravel() / 2)
    return matrices


def _constraints(question: Normalized, δ: float) -> _Constraints:
    H, N = question.steps, question.objectives.shape[1]
    coins = N - 1 if δ else 0  # depths whose noise is felt at an iterate that counts
    sizes = [N + 1] + [N - a for a in range(coins)]
    g, x = [], []  # at a node of depth t: a coefficient vector for each Gram matrix
    for t in range(N):
        past = -H[t - 1, :t] if t else np.zeros(0)
        g.append([np.eye(N + 1)[1 + t]] + [np.eye(N - a)[t - a] for a in range(min(t, coins))])
        x.append([np.pad([1.0, *past], (0, N - t))])
        x[t] += [np.pad([δ * past[a], *past[a + 1 :]], (0, N - t)) for a in range(min(t, coins))]

    values: list[Array] = []
    rows: list[list[Array]] = [[] for _ in sizes]
    bounds: list[float] = []

    def add(F: Any, products: list[Array], bound: float) -> None:
        values.append(np.asarray(F, dtype=float))
        bounds.append(bound)
        for b, size in enumerate(sizes):
            rows[b].append(products[b] if b < len(products) else np.zeros(size**2))

    F = np.eye(N)
    for j in range(N):
        own = _product(g[j], x[j], j, False)
        add(F[j], [-matrix for matrix in own], 0)  # f* ≥ F_j + ⟨g_j, x* − x_j⟩
        add(-F[j], [], 0)
        add(0 * F[j], _product(g[j], g[j], j, False), 1)
        for i in range(N):
            first = min(i, j)  # where one node is an ancestor of the other, or the same
            for shared in range(first + 1) if coins else [first]:
                if i == j == shared:
                    continue
                other = _product(g[j], x[i], shared, shared < first)
                other += [np.zeros_like(matrix) for matrix in own[len(other) :]]
                change = [p - q for p, q in zip(other, own, strict=False)]
                add(F[j] - F[i], change, 0)  # f_i ≥ f_j + ⟨g_j, x_i − x_j⟩
    for a in range(coins):
        n = [np.zeros(size**2) for size in sizes[: a + 2]]
        n[a + 1][0] = 1  # of n/δ, so that all Gram matrices have diagonals of order 1
        add(0 * F[0], n, 1)
    add(0 * F[0], [np.eye(1, (N + 1) ** 2)[0]], 1)
    if question.gap is not None:
        add(F[0], [], question.gap)
    return _Constraints(np.array(values), [np.array(row) for row in rows], np.array(bounds))


def _psd(matrix: Array) -> Array:
    """The nearest positive semidefinite matrix."""
    λ, V = np.linalg.eigh((matrix + matrix.T) / 2)
    return (V * np.maximum(λ, 0)) @ V.T


def _solve(question: Normalized, δ: float, solver: str) -> NoiseTree:
    cp = require("cvxpy")
    system = _constraints(question, δ)
    orders = [round(rows.shape[1] ** 0.5) for rows in system.blocks]
    grams = [cp.Variable((order, order), PSD=True) for order in orders]
    F = cp.Variable(system.values.shape[1])
    worst = cp.Variable()
    left = system.values @ F + sum(
        rows @ cp.vec(gram, order="C") for rows, gram in zip(system.blocks, grams, strict=True)
    )
    conditions = left <= system.bounds
    programme = cp.Problem(cp.Maximize(worst), [conditions, worst <= question.objectives @ F])
    with solving(solver):
        programme.solve(solver=solver)
    check_status(solver, programme.status)
    value = float(system.bounds @ conditions.dual_value)
    attained = float((question.objectives @ F.value).min())
    met = system.values @ F.value + sum(
        rows @ _psd(gram.value).ravel() for rows, gram in zip(system.blocks, grams, strict=True)
    )
    check_solution(solver, value, attained, float((met - system.bounds).max()))
    return NoiseTree(
        value=question.scale * value,
        attained=question.scale * attained,
        criterion=question.criterion,
        solver=solver,
        status=programme.status,
        rates=question.rates,
        gaps=question.scale * F.value,
    )
