"""Proofs of the identities behind the bounds, for symbolic rates, β and s: exact normal forms.

Everything is a rational function over ℚ, so an identity holds if and only if the difference of its
two sides is the zero of the field.  Vectors are lists of coefficients over x_0 − x*, g_0, g_1, …;
inner products of these stay symbols of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sympy import QQ
from sympy.polys.fields import field

__all__ = ["Induction", "induction_step", "theorem_a_identity", "theorem_c_identity"]

Vector = list[Any]
Products = dict[tuple[int, int], Any]


@dataclass(frozen=True)
class Induction:
    """What must vanish for the recursions to pass from t to t + 1, whatever x_t, yˢ_t and G_t are.

    eq_24 : x_{t+1} + p_{t+1} − (x_t + p_t − α_t G_t/(1−β)), p_t = β/(1−β) (x_t − yˢ_t).
    eq_25 : v_{t+1} − βv_t − ((1−β)s − 1)α_t G_t, v_t = x_t − yˢ_t.
    average : x_{t+1} − (1−σ)u_{t+1} − σz_{t+1}, where u_{t+1} = βu_t + (1−β)z_{t+1},
        z_t = x_t + p_t, σ = (1−β)s and x_t = (1−σ)u_t + σz_t.
    """

    eq_24: Any
    eq_25: Any
    average: Any


def induction_step(factor: int = 1) -> Induction:
    """The three differences for one step of eq. (9) with symbolic β, s, α_t, x_t, yˢ_t, G_t.

    `factor` multiplies the momentum term of eq. (9): anything but 1 is a negative control.
    """
    _, β, s, α, x, ys, G = field("b,s,a,x,y,G", QQ)
    following = x - α * G + factor * β * (x - s * α * G - ys)
    ys_next = x - s * α * G
    p, p_next = β / (1 - β) * (x - ys), β / (1 - β) * (following - ys_next)
    z = x + p
    σ = (1 - β) * s
    u = (x - σ * z) / (1 - σ)
    z_next = z - α / (1 - β) * G
    u_next = β * u + (1 - β) * z_next
    return Induction(
        eq_24=following + p_next - (x + p - α / (1 - β) * G),
        eq_25=(following - ys_next) - β * (x - ys) - ((1 - β) * s - 1) * α * G,
        average=following - (1 - σ) * u_next - σ * z_next,
    )


@dataclass(frozen=True)
class _Run:
    """T steps of eq. (9), relative to x*, in coefficients over x_0 − x*, g_0 … g_{T−1}."""

    one: Any
    η: list[Any]
    q: Any
    r: Any
    x: list[Vector]
    z: list[Vector]
    u_weights: list[list[Any]]  # u_t = Σ_j u_weights[t][j] x_j


def _axpy(c: Any, a: Vector, b: Vector) -> Vector:
    return [c * i + j for i, j in zip(a, b, strict=True)]


def _run(β: Any, s: Any, α: list[Any]) -> _Run:
    T = len(α)
    one, zero = β / β, β - β

    def gradient(t: int) -> Vector:
        return [one if i == t + 1 else zero for i in range(T + 1)]

    x = ys = [one] + [zero] * T
    xs, zs, z = [x], [x], x
    for t, rate in enumerate(α):
        g = gradient(t)
        y, ys_next = _axpy(-rate, g, x), _axpy(-s * rate, g, x)
        x = _axpy(β, _axpy(-one, ys, ys_next), y)
        ys = ys_next
        z = _axpy(-rate / (1 - β), g, z)
        xs.append(x)
        zs.append(z)
    σ = (1 - β) * s
    below = 1 - (1 - σ) * β
    q, r = (1 - σ) * β / below, (1 - β) / below
    weights = [[one] + [zero] * T]
    for t in range(1, T + 1):
        weights.append([(1 - r) * w for w in weights[-1]])
        weights[-1][t] = r
    return _Run(one, [rate / (1 - β) for rate in α], q, r, xs, zs, weights)


def _add_product(into: Products, c: Any, a: Vector, b: Vector) -> None:
    """into += c ⟨a, b⟩, as coefficients of the products of basis vectors."""
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            if left and right:
                key = (min(i, j), max(i, j))
                into[key] = into.get(key, 0) + c * left * right


def _nonzero(parts: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in parts.items() if value}


def theorem_a_identity(T: int, exchange: bool = False) -> dict[Any, Any]:
    """What is left of the identity behind Theorem A: empty if and only if it holds.

    For symbolic β, s, α_0 … α_{T−1}, with slack(a, b) = ⟨g_a, x_a − x_b⟩ − (F_a − F_b) ≥ 0,

        ½‖x_0 − x*‖² + ½Ση_t²‖g_t‖² − ΣW_tF_t
            = Σ_t η_t slack(t, *) + Σ_{t≥1} η_t q Σ_{j<t} U_{t−1,j} slack(t, j) + ½‖z_T − x*‖²,

    U_{t,j} the weight of x_j in u_t and W_t as in `theory.bounds.unified`.  `exchange` swaps q and
    r: a negative control.
    """
    names = ",".join(["b", "s", *(f"a{t}" for t in range(T))])
    _, β, s, *α = field(names, QQ)
    run = _run(β, s, α)
    q, r, η = run.q, run.r, run.η
    if exchange:
        q, r = r, q
    left: Products = {}
    values: dict[int, Any] = dict.fromkeys(range(T), 0 * run.one)
    half = run.one / 2
    _add_product(left, half, run.x[0], run.x[0])
    _add_product(left, -half, run.z[T], run.z[T])
    for t in range(T):
        g = [run.one * (i == t + 1) for i in range(T + 1)]
        _add_product(left, η[t] ** 2 / 2, g, g)
        _add_product(left, -η[t], g, run.x[t])
        values[t] += η[t]
        for j in range(t):
            share = η[t] * q * run.u_weights[t - 1][j]
            _add_product(left, -share, g, _axpy(-run.one, run.x[j], run.x[t]))
            values[t] += share
            values[j] -= share
        tail = sum((η[τ] * (1 - r) ** (τ - 1 - t) for τ in range(t + 1, T)), 0 * run.one)
        values[t] -= η[0] - q * tail if t == 0 else (1 + q) * η[t] - q * r * tail
    return _nonzero({**left, **values})


def theorem_c_identity(N: int, swap_parts: bool = False) -> dict[Any, Any]:
    """What is left of the identity behind Theorem C: empty if and only if it holds.

    For symbolic β, s, α_0 … α_{N−1}, v_{−1} … v_{N−1} and S_N, with v_N = v_{N−1}, η_N = S_N/v_N,

        ½v_{−1}²‖x_0 − x*‖² + ½Σ_t v_t²η_t²‖g_t‖² − ½v_N²‖z_{N+1} − y_N‖²
            = Σ_t η_tv_t ⟨g_t, v_t(z_t − y_t)⟩,   and   Σ_t η_tv_t Σ_j b_{tj} F_j = Σ_j W_j F_j,

    t = 0 … N, where z_t = Σ_j Z_tj x_j (which is checked too) and
    v_t z_t − Σ_{s≤t} ζ_s z_s = Σ_j b_{tj} x_j.  `swap_parts` takes the other sign
    of D_s = v_{s−1}S_s − v_sS_{s+1}: a negative control.
    """
    names = ["b", "s", *(f"a{t}" for t in range(N)), *(f"v{t}" for t in range(N + 1)), "S"]
    _, β, s, *rest = field(",".join(names), QQ)
    α, v, S_N = rest[:N], rest[N : 2 * N + 1], rest[-1]
    v = [*v, v[-1]]  # v[t + 1] is v_t
    last = S_N / v[-1]
    run = _run(β, s, [*α, last * (1 - β)])
    η, T = run.η, N + 1
    zero = 0 * run.one
    left: Products = {}
    _add_product(left, v[0] ** 2 / 2, run.x[0], run.x[0])
    ζ = [v[t + 1] - v[t] for t in range(T)]
    point = [zero] * (T + 1)  # v_t (y_t − x*) = Σ_{s≤t} ζ_s (z_s − x*)
    # z_t = Σ_j Z[t][j] x_j
    Z = [[run.one] + [zero] * N]
    for t in range(1, T):
        row = [-run.q * w for w in run.u_weights[t - 1][:T]]
        row[t] += 1 + run.q
        Z.append(row)
    values = [zero] * T
    apart: dict[Any, Any] = {}
    for t in range(T):
        combined = [zero] * (T + 1)
        for j in range(t + 1):
            combined = _axpy(Z[t][j], run.x[j], combined)
        for k, c in enumerate(_axpy(-run.one, run.z[t], combined)):
            apart["z", t, k] = c
        point = _axpy(ζ[t], run.z[t], point)
        g = [run.one * (i == t + 1) for i in range(T + 1)]
        _add_product(left, (v[t + 1] * η[t]) ** 2 / 2, g, g)
        _add_product(left, -η[t] * v[t + 1], g, _axpy(v[t + 1], run.z[t], [-c for c in point]))
        for j in range(t + 1):
            b = v[t + 1] * Z[t][j] - sum((ζ[i] * Z[i][j] for i in range(j, t + 1)), zero)
            values[j] += η[t] * v[t + 1] * b
    end = _axpy(v[-1], run.z[T], [-c for c in point])
    _add_product(left, -run.one / 2, end, end)
    S = [zero] * (T + 1)
    for t in range(N, -1, -1):
        S[t] = S[t + 1] + η[t] * v[t + 1]
    D = [v[t] * S[t] - v[t + 1] * S[t + 1] for t in range(T)]
    if swap_parts:
        D = [-d for d in D]
    for j in range(T):
        values[j] -= sum((D[t] * Z[t][j] for t in range(j, T)), zero)
    return _nonzero({**left, **dict(enumerate(values)), **apart})
