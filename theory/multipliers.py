"""Theorem C: sharper bounds from increasing multipliers, for the last and for the best iterate.

Let x_0 … x_N be the iterates of a method with the potential z (`theory.potential`: η_t, q_t, r),
v_{−1} ≤ v_0 ≤ … ≤ v_{N−1} positive, S_N > 0, and

    S_t = S_{t+1} + η_t v_t,   D_s = v_{s−1} S_s − v_s S_{s+1},   D_N = v_{N−1} S_N,
    W = weights(D),   ζ_s = v_s − v_{s−1} (ζ_N = 0),   c = 1 − r,
    P_j = Σ_{s>j} ζ_s q_s c^{s−1−j} − v_{N−1} q_N c^{N−1−j}.

**Theorem C.**  If (1 + q_j) ζ_j ≥ r P_j for 1 ≤ j < N and ζ_0 ≥ P_0, then

    Σ_j W_j F_j ≤ ½ [v_{−1}² R² + (G² + δ²) (Σ_{t<N} v_t² η_t² + S_N²)],    Σ_j W_j = v_{−1} S_0.

Proof.  Compare with moving points, v_t y_t = v_{−1} x* + Σ_{s≤t} ζ_s z_s, so that
v_t (z_t − y_t) = v_{t−1} (z_t − y_{t−1}).  Multiply E‖z_{t+1} − y_t‖² = E‖z_t − y_t‖² −
2η_t E⟨∂f(x_t), z_t − y_t⟩ + η_t² E‖G_t‖² by v_t² and sum over t = 0 … N, with v_N = v_{N−1} and the
free step η_N = S_N/v_N, which moves nothing.  In v_t z_t − Σ_{s≤t} ζ_s z_s = Σ_j b_{tj} x_j the
coefficients with j < t are ≤ 0: they rise with t (since q_t ≥ c q_{t+1}), and at t = N that is the
hypothesis.  So convexity gives v_t ⟨∂f(x_t), z_t − y_t⟩ ≥ Σ_j b_{tj} F_j, and summing by parts,
η_s v_s² − ζ_s S_s = D_s, so Σ_t η_t v_t Σ_j b_{tj} F_j = Σ_j W_j F_j.

Constant v gives Theorem A (with the last, idle, rate free).  W = (0, …, 0, 1) gives a bound for the
*last* iterate: for SGD, and wherever the condition holds with e = 0, we found it equal to the exact
worst case.  SGD: after Zamani and Glineur (2023); the extension to momentum, to
arbitrary rates and to other weights W is this toolkit's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.constants import constants
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.potential import Potential, potential, rate_list

__all__ = ["best_iterate", "last_iterate", "last_iterate_rates"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Form:
    """The potential in floats, with q_0 … q_N."""

    η: Array
    q: Array
    r: float

    @classmethod
    def of(cls, form: Potential) -> _Form:
        return cls(np.array(form.steps, float), np.array(form.extrapolation, float), float(form.r))


def _smallest(
    evaluate: Callable[[Array], tuple[Array, Array]], centre: float, rounds: int = 6
) -> float:
    """The least feasible value over a positive parameter, by grids that close in on it.

    `evaluate` maps a grid to (values, feasible); inf if nothing is feasible.
    """
    low, high = np.log(centre) - 9.0, np.log(centre) + 9.0
    best = np.inf
    for _ in range(rounds):
        grid = np.linspace(low, high, 121)
        values, feasible = evaluate(np.exp(grid))
        values = np.where(feasible, values, np.inf)
        at = int(np.argmin(values))
        if not np.isfinite(values[at]):
            break
        best = min(best, float(values[at]))
        low, high = grid[max(at - 2, 0)], grid[min(at + 2, len(grid) - 1)]
    return best


def _signs(form: _Form, v: Array) -> tuple[Array, Array]:
    """(whether the hypothesis holds for 1 ≤ j < N, P_0), for v of shape (N + 1, grid): v_{−1} …."""
    q, r, N = form.q, form.r, len(form.η)
    c = 1 - r
    P = -v[N] * q[N]  # j = N − 1
    holds = np.ones(v.shape[1], dtype=bool)
    for j in range(N - 1, 0, -1):
        ζ = v[j + 1] - v[j]
        # P_j vanishes by cancellation where q = 0 or the growth is at its limit.
        holds &= (1 + q[j]) * ζ >= r * P - 1e-13 * v[N]
        P = ζ * q[j] + c * P
    return holds, P


def last_iterate(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> float:
    """A bound of E f(x_N) − f* after N updates: Theorem C with W = (−e, 0, …, 0, 1).

    D solves weights(D) = (0, …, 0, 1); then v_{s−1} = Σ_{τ≥s} D_τ / S_s runs backwards from S_N,
    which is chosen to minimise the bound.  Where ζ_0 ≥ P_0 fails, v_{−1} is lowered to v_0 − P_0,
    at the price of eF_0, e = 1 − v_{−1}S_0.  The rates may be any that satisfy the hypothesis.

    Raises
    ------
    ValueError
        If no S_N satisfies the hypothesis (large β with N of the order of 1/(1−β), or rates that
        fall too suddenly for a large β), or an argument is out of range.
    """
    c = constants(distance, gap, subgradient, noise)
    form = _Form.of(potential(method, rates))
    η, q, r, N = form.η, form.q, form.r, len(form.η)
    D = np.zeros(N + 1)
    D[N] = 1 / (1 + q[N])
    Q = 0.0
    for j in range(N - 1, -1, -1):
        Q = q[j + 1] * D[j + 1] + (1 - r) * Q
        D[j] = r * Q / (1 + q[j]) if j > 0 else Q
    E = np.cumsum(D[::-1])[::-1]

    def evaluate(last: Array) -> tuple[Array, Array]:
        S = last.copy()
        squares = S**2
        v = np.empty((N + 1, len(S)))
        v[N] = E[N] / S
        for t in range(N - 1, -1, -1):
            moved = η[t] * v[t + 1]
            squares += moved**2
            S += moved
            v[t] = E[t] / S
        holds, P = _signs(form, v)
        first = np.minimum(v[0], v[1] - P)
        e = (v[0] - first) * S
        value = (first**2 * c.R**2 + c.second_moment * squares) / 2 + e * c.F0
        return value, holds & (first >= 0)

    value = _smallest(evaluate, float(np.sqrt(D[N] * η[-1])))
    if not np.isfinite(value):
        raise ValueError(
            "Theorem C does not apply to the last iterate: with "
            f"momentum = {method.momentum} and {N} updates no multipliers satisfy its hypothesis"
        )
    return value


def best_iterate(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> float:
    """A bound of min_t E f(x_t) − f* over x_0 … x_{T−1}: Theorem C with v_t near max(m, X/η_t).

    Never above `bounds.unified`, which is v constant; smaller where late rates are below the value
    of the bound, since then the weights can be moved towards the late iterates, and because α_{T−1}
    moves none of x_0 … x_{T−1}.

    Raises ValueError if an argument is out of range, or no multipliers satisfy the hypothesis.
    """
    c = constants(distance, gap, subgradient, noise)
    listed = rate_list(rates)
    if len(listed) == 1:
        return float(c.F0)
    full = _Form.of(potential(method, listed))
    form = _Form(full.η[:-1], full.q[:-1], full.r)
    η, q, r, N = form.η, form.q, form.r, len(form.η)

    def evaluate(base: Array) -> tuple[Array, Array]:
        S = np.ones_like(base)
        squares = S**2
        v = np.empty((N + 1, len(S)))
        v[N] = np.maximum(base, 1 / η[N - 1])
        holds = np.ones(len(base), dtype=bool)
        D, Q = v[N] * S, np.zeros_like(base)
        for s in range(N - 1, -1, -1):
            Q = q[s + 1] * D + (1 - r) * Q
            inner, moved = v[s + 1] * S, η[s] * v[s + 1]
            squares = squares + moved**2
            S = S + moved
            if s == 0:
                break
            least = (inner + r * Q / (1 + q[s])) / S
            v[s] = np.minimum(v[s + 1], np.maximum(least, np.maximum(base, 1 / η[s - 1])))
            D = v[s] * S - inner
            holds &= (1 + q[s]) * D - r * Q >= -1e-13 * D
        v[0] = v[1]
        signs, P = _signs(form, v)
        wanted = np.maximum(np.sqrt(c.second_moment * squares) / c.R, (inner + Q) / S)
        first = np.minimum(v[1] - P, wanted)
        e = np.maximum(0, inner + Q - first * S)
        value = (first**2 * c.R**2 + c.second_moment * squares) / 2 + e * c.F0
        return value / (first * S + e), holds & signs & (first >= 0)

    return min(_smallest(evaluate, 1 / float(np.median(η))), float(c.F0))


def last_iterate_rates(
    iterations: int,
    method: UnifiedMomentum,
    *,
    distance: float,
    subgradient: float,
    noise: float = 0.0,
) -> Array:
    """α_t = (1−β) R (N−t) / (√(G²+δ²) (N+1)^{3/2} (1 − (1−σ)β^{N−t})), t = 0 … N−1.

    Linear decay, corrected for momentum: with these rates Theorem C's bound of the last iterate has
    v_tη_t constant and is R√(G²+δ²)/√(N+1), which no method can beat with N + 1 subgradients, as
    long as its hypothesis holds.  SGD: Zamani and Glineur (2023).
    """
    N = checks.positive_integer("iterations", iterations)
    c = constants(distance, None, subgradient, noise)
    β, σ = float(method.momentum), float((1 - method.momentum) * method.s)
    left = np.arange(N, 0, -1)
    scale = float(c.R) / (np.sqrt(float(c.second_moment)) * (N + 1) ** 1.5)
    return (1 - β) * scale * left / (1 - (1 - σ) * β**left)
