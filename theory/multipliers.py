"""Theorem C: sharper bounds from multipliers, for the last and for the best iterate.

Let x_0 … x_N be the iterates of a method with the potential z (`theory.potential`: η_t, q_t, r),
v_{−1} ≥ 0, v_0 … v_{N−1} > 0, S_N > 0, and, with `Potential.weights`,

    S_t = S_{t+1} + η_t v_t,   D_s = v_{s−1} S_s − v_s S_{s+1},   D_N = v_{N−1} S_N,
    W = weights(D),   ζ_s = v_s − v_{s−1} (ζ_N = 0),   c = 1 − r,
    P_j = Σ_{s>j} ζ_s q_s c^{s−1−j} − v_{N−1} q_N c^{N−1−j}.

**Theorem C.**  If (1 + q_j) ζ_j ≥ r P_j for 1 ≤ j < N and ζ_0 ≥ P_0, then

    Σ_j W_j F_j ≤ ½ [v_{−1}² R² + (G² + δ²) Σ_{t<N} v_t² η_t² + G² S_N²],    Σ_j W_j = v_{−1} S_0.

Proof.  Compare with moving points, v_t y_t = v_{−1} x* + Σ_{s≤t} ζ_s z_s, so that
v_t (z_t − y_t) = v_{t−1} (z_t − y_{t−1}).  Multiply E‖z_{t+1} − y_t‖² = E‖z_t − y_t‖² −
2η_t E⟨∂f(x_t), z_t − y_t⟩ + η_t² E‖G_t‖² by v_t² and sum over t = 0 … N, with v_N = v_{N−1} and a
last step η_N = S_N/v_N of the analysis alone, along ∂f(x_N), without noise.  In
v_t z_t − Σ_{s≤t} ζ_s z_s = Σ_j b_{tj} x_j the coefficients with j < t are ≤ 0: they rise with t,
since q_t ≥ c q_{t+1}, and at t = N that is the hypothesis.  So convexity gives
v_t ⟨∂f(x_t), z_t − y_t⟩ ≥ Σ_j b_{tj} F_j, and summing by parts, η_s v_s² − ζ_s S_s = D_s, so
Σ_t η_t v_t Σ_j b_{tj} F_j = Σ_j W_j F_j.

Constant v gives Theorem A, with the last rate, which moves none of the iterates, free.
W = (0, …, 0, 1) gives a bound for the *last* iterate.  For SGD, with rates in any order, it was
equal to the exact worst case in every case tried, and so it was with momentum wherever the S_N that
minimises the bound satisfies the hypothesis.

Sources: for SGD, Zamani and Glineur (2023), whose lemma has arbitrary steps and multipliers, and
Liu and Zhou (2024) for the noise; for z, Ghadimi, Feyzmahdavian and Johansson (2015).  The averages
u_t, the hypothesis on P_j and the use of F_0 are derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import bounds, checks
from theory.constants import constants
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.potential import Potential, potential, rate_list

__all__ = ["best_iterate", "last_iterate", "last_iterate_rates", "path_length"]

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
    evaluate: Callable[[Array], tuple[Array, Array]], centre: float, rounds: int = 5
) -> float:
    """The least feasible value over a positive parameter, by grids that close in on it.

    `evaluate` maps a grid to (values, feasible); inf if nothing is feasible.
    """
    low, high = np.log(centre) - 9.0, np.log(centre) + 9.0
    best = np.inf
    for attempt in range(rounds):
        grid = np.linspace(low, high, 101 if attempt else 401)  # a feasible window may be narrow
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

    D solves weights(D) = (0, …, 0, 1); then v_{s−1} = E_s/S_s, E_s = Σ_{τ≥s} D_τ, runs backwards
    from S_N, which is chosen to minimise the bound.  v_{−1} may be smaller, at the price of eF_0,
    e = 1 − v_{−1}S_0: where ζ_0 ≥ P_0 asks for it, or F_0 is small.

    Where no S_N satisfies the hypothesis (β near 1 with N of the order of 1/(1−β), or rates that
    fall or rise too suddenly for a large β), `path_length` is returned; the result is never above
    it.  The rates may be in any order.  It is a bound up to rounding (the hypothesis is tested to
    1e-13 of v).

    Raises
    ------
    ValueError
        For s > 1/(1−β) or torch's Nesterov momentum (`theory.potential`), or if an argument is out
        of range.
    """
    c = constants(distance, gap, subgradient, noise)
    form = _Form.of(potential(method, rates))
    η, N = form.η, len(form.η)
    D = _weights_of_last(form)
    E = np.cumsum(D[::-1])[::-1]

    def evaluate(last: Array) -> tuple[Array, Array]:
        S = last.copy()
        squares = c.G**2 * S**2
        v = np.empty((N + 1, len(S)))
        v[N] = E[N] / S
        for t in range(N - 1, -1, -1):
            moved = η[t] * v[t + 1]
            squares += c.second_moment * moved**2
            S += moved
            v[t] = E[t] / S
        holds, P = _signs(form, v)
        first = np.minimum(np.minimum(v[0], v[1] - P), S * unit)
        e = (v[0] - first) * S
        return (first**2 * c.R**2 + squares) / 2 + e * c.F0, holds & (first >= 0)

    unit = float(c.F0) / float(c.R) ** 2 if c.R > 0 else np.inf
    away = path_length(
        rates, method, distance=distance, subgradient=subgradient, gap=gap, noise=noise
    )
    return min(_smallest(evaluate, float(np.sqrt(D[N] * η[-1]))), away)


def _weights_of_last(form: _Form) -> Array:
    """D with x_N = Σ_s D_s z_s, which is weights(D) = (0, …, 0, 1)."""
    q, r, N = form.q, form.r, len(form.η)
    D = np.zeros(N + 1)
    D[N] = 1 / (1 + q[N])
    Q = 0.0
    for j in range(N - 1, -1, -1):
        Q = q[j + 1] * D[j + 1] + (1 - r) * Q
        D[j] = r * Q / (1 + q[j]) if j > 0 else Q
    return D


def path_length(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> float:
    """E f(x_N) − f* ≤ F_0 + G√(G²+δ²) Σ_t η_tE_{t+1}: x_N is not farther than that from x_0.

    E as in `last_iterate`; always true, and never small.  Raises ValueError as `last_iterate`.
    """
    c = constants(distance, gap, subgradient, noise)
    form = _Form.of(potential(method, rates))
    E = np.cumsum(_weights_of_last(form)[::-1])[::-1]
    return float(c.F0) + float(c.product) * float(np.sum(form.η * E[1:]))


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

    Never above `bounds.unified` (v constant) nor F_0; below them where late rates are small
    compared with the bound, since then weight can be moved towards the late iterates, and because
    α_{T−1} moves none of x_0 … x_{T−1}.  `bounds.theorem_b` can be smaller for β near 1.

    Raises ValueError as `last_iterate`.
    """
    given: dict[str, Any] = {
        "distance": distance,
        "subgradient": subgradient,
        "gap": gap,
        "noise": noise,
    }
    c = constants(distance, gap, subgradient, noise)
    listed = rate_list(rates)
    if len(listed) == 1:
        return min(float(c.F0), float(c.G) * float(c.R))
    full = _Form.of(potential(method, listed))
    form = _Form(full.η[:-1], full.q[:-1], full.r)
    η, q, r, N = form.η, form.q, form.r, len(form.η)

    def evaluate(base: Array) -> tuple[Array, Array]:
        S = np.ones_like(base)
        squares = c.G**2 * S**2
        v = np.empty((N + 1, len(S)))
        v[N] = np.maximum(base, 1 / η[N - 1])
        holds = np.ones(len(base), dtype=bool)
        D, Q = v[N] * S, np.zeros_like(base)
        for s in range(N - 1, -1, -1):
            Q = q[s + 1] * D + (1 - r) * Q
            inner, moved = v[s + 1] * S, η[s] * v[s + 1]
            squares = squares + c.second_moment * moved**2
            S = S + moved
            if s == 0:
                break
            least = (inner + r * Q / (1 + q[s])) / S
            v[s] = np.minimum(v[s + 1], np.maximum(least, np.maximum(base, 1 / η[s - 1])))
            D = v[s] * S - inner
            holds &= (1 + q[s]) * D - r * Q >= -1e-13 * D
        v[0] = v[1]
        signs, P = _signs(form, v)
        most, even = v[1] - P, (inner + Q) / S  # W_0 ≥ 0 from v_{−1} = even on
        feasible = holds & signs & (most >= 0)
        values = []
        for wanted in (np.maximum(np.sqrt(squares) * per_R, even), np.minimum(S * unit, even)):
            first = np.maximum(np.minimum(most, wanted), 0)
            e = np.maximum(0, inner + Q - first * S)
            values.append(((first**2 * c.R**2 + squares) / 2 + e * c.F0) / (first * S + e))
        return np.minimum(*values), feasible

    per_R = 1 / float(c.R) if c.R > 0 else np.inf
    unit = float(c.F0) * per_R**2 if c.R > 0 else np.inf
    found = min(_smallest(evaluate, 1 / float(np.median(η))), float(c.F0))
    if (np.array(potential(method, listed).weights(list(full.η)))[1:] >= 0).all():
        found = min(found, float(bounds.unified(listed, method, **given)))
    return found


def last_iterate_rates(
    iterations: int,
    method: UnifiedMomentum,
    *,
    distance: float,
    subgradient: float,
    noise: float = 0.0,
) -> Array:
    """α_t = (1−β) R (N−t−1+h) / (√V (N+h)^{3/2} (1 − (1−σ)β^{N−t})), V = G²+δ², h = V/G².

    Linear decay, corrected for momentum, t = 0 … N−1: v_tη_t is constant, and Theorem C's bound of
    the last iterate is R√V/√(N+h), the least that it can be, as long as its hypothesis holds.
    Without noise that is GR/√(N+1), which no method can beat with N + 1 subgradients.

    Returns shape (N,), in units of R/G.  The hypothesis holds for SGD, and, as far as we tried
    (N ≤ 200), for β up to 1/3 (s = 0) or 0.51 (s = 1).  With more momentum ζ_0 ≥ P_0 fails, and the
    exact worst case is above the optimum too.

    Requires G > 0, 0 ≤ s ≤ 1/(1−β); ValueError otherwise.  Source: for SGD without noise, Zamani
    and Glineur (2023); the bound no method can beat, Drori and Teboulle (2016).
    """
    N = checks.positive_integer("iterations", iterations)
    checks.instance("method", method, UnifiedMomentum)
    c = constants(distance, None, subgradient, noise)
    if c.G == 0:
        raise ValueError("subgradient must be > 0, got 0")
    β, σ = float(method.momentum), float((1 - method.momentum) * method.s)
    if σ > 1:
        raise ValueError(f"s must be <= 1/(1 - momentum) = {1 / (1 - β)}, got {method.s}")
    h = float(c.second_moment) / float(c.G) ** 2
    left = np.arange(N, 0, -1)
    scale = float(c.R) / (np.sqrt(float(c.second_moment)) * (N + h) ** 1.5)
    return (1 - β) * scale * (left - 1 + h) / (1 - (1 - σ) * β**left)
