"""Virtual steps: a bound on min_t E F_t for any momentum method, whatever its rates, with noise.

F_t = f(x_t) − f*, f convex, ‖∂f‖ ≤ G, E G_t = g_t ∈ ∂f(x_t), E‖G_t − g_t‖² ≤ δ², V = G² + δ²,
x_t = x_0 − Σ_{i<t} h_ti G_i with h_{t+1,t} ≠ 0.  For b_0, …, b_{T−1} ≥ 0 let

    z_t = x_0 − Σ_{i<t} b_i G_i,      z_t − x_t = Σ_{j<t} μ_tj (x_t − x_j),
    w_t = b_t (1 + Σ_j μ_tj) − Σ_{i>t} b_i μ_it.

The μ are unique: each x_{j+1} moves along a gradient that no earlier iterate has seen.

**Theorem.**  If μ_tj ≥ 0 wherever b_t > 0, then Σ_t w_t E F_t ≤ (R² + V Σb²)/2, and Σw = Σb.  So
if w_t ≥ 0 for t ≥ 1, with e = max(0, −w_0),

    min_t E F_t ≤ [R²/2 + eF_0 + ½V Σb²] / (Σb + e).

Proof.  z_t and x_t depend on G_0 … G_{t−1} only, so that E⟨G_t, z_t − x*⟩ = E⟨g_t, z_t − x*⟩, and
E‖z_{t+1} − x*‖² = E‖z_t − x*‖² − 2b_tE⟨g_t, z_t − x*⟩ + b_t²E‖G_t‖², E‖G_t‖² ≤ V; sum over t.
The μ are constants; convexity, for g_t towards x* and towards each x_j, gives
⟨g_t, z_t − x*⟩ ≥ F_t + Σ_j μ_tj (F_t − F_j), whose expectations, times b_t, sum up to Σ_t w_tE F_t.

**For all b ≥ 0**, with μ⁺ in place of μ in w, ‖h_t‖₁ = Σ_i|h_ti|, and c_ti given by
z_t − x_t = Σ_j μ⁺_tj (x_t − x_j) + Σ_{i<t} c_ti G_i:

    min_t E F_t ≤ [R²/2 + ½V Σb² + G√V Σ_ti b_t|c_ti| + Σ_t w⁻_t (F_0 + G√V ‖h_t‖₁)] / (Σb + Σw⁻),

since E⟨g_t, G_i⟩ ≥ −G√V, and F_t ≤ F_0 + ⟨g_t, x_t − x_0⟩.  This is what is evaluated: b that
satisfy the conditions up to the accuracy of a solver pay for the rest, and are a bound too.

b = η is Theorem A (`theory.potential`), also for s > 1/(1−β); b_t = v_tη_t/v_{−1} is Theorem C of
`theory.multipliers`: v_N (z_{N+1} − y_N) = v_{−1} (x_0 − x* − Σ b_tG_t) there.  Without noise it is
the rank-one case of the dual of performance estimation (`theory.exact_certificates`).

Source: derived here; the dual is that of Drori and Teboulle, Math. Program. 145 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.constants import Constants, constants
from theory.methods import HasStepMatrix, TorchMomentum, UnifiedMomentum
from theory.potential import potential, rate_list

__all__ = ["VirtualSteps", "at_steps", "virtual_steps"]

Array = NDArray[np.float64]

SEARCHES = 240  # local searches times T: more of them hardly ever gain, and they take the time


@dataclass(frozen=True)
class VirtualSteps:
    """Σ_t weights[t] E F_t ≤ value, weights ≥ 0 of sum 1: so min_t E F_t ≤ value.

    steps : b, shape (T,), in units of R/G.
    excess : Σ_t w⁻_t, the e of the module's docstring where the conditions hold; inf where the
        bound is F_0 ≤ gap itself, and then b = 0.
    """

    value: float
    steps: tuple[float, ...]
    weights: tuple[float, ...]
    excess: float


class _Geometry:
    """The affine map b → μ of a method, in units with R = V = 1."""

    def __init__(self, rates: Sequence[Any], method: HasStepMatrix, unit: float) -> None:
        H = np.asarray(method.step_matrix([float(rate) for rate in rates]), dtype=float)
        if not np.isfinite(H).all():
            raise ValueError("the method's step_matrix must be finite: some step overflows")
        if not np.diag(H).all():
            t = int(np.argmin(np.abs(np.diag(H))))
            raise ValueError(f"every step must follow its own gradient, got H[{t}, {t}] = 0")
        T = len(H)
        self.h = np.vstack([np.zeros(T), H[:-1]]) / unit
        self.slope, self.constant = np.zeros((T, T, T)), np.zeros((T, T))
        for t in range(1, T):
            # Σ_j μ_tj (h_t − h_j) = b − h_t in the entries i < t.
            inverse = np.linalg.inv((self.h[t] - self.h[:t])[:, :t].T)
            self.slope[t, :t, :t] = inverse
            self.constant[t, :t] = -inverse @ self.h[t, :t]

    def μ(self, b: Array) -> Array:
        return self.slope @ b + self.constant

    def w(self, b: Array, μ: Array) -> Array:
        weights: Array = b * (1 + μ.sum(axis=1)) - b @ μ
        return weights

    def w_gradient(self, b: Array) -> Array:
        """∂w_t/∂b_k for w(b, μ(b)), shape (T, T)."""
        μ = self.μ(b)
        fixed = np.diag(1 + μ.sum(axis=1)) - μ.T
        moved: Array = b[:, None] * self.slope.sum(axis=1) - np.einsum("i,ijk->jk", b, self.slope)
        return fixed + moved

    def bound(self, b: Array, F_0: float, share: float) -> VirtualSteps:
        """The bound of the module's docstring for any b ≥ 0, not all 0; `share` is G/√V."""
        h, μ = self.h, np.maximum(self.μ(b), 0)
        μ[b == 0] = 0
        w = self.w(b, μ)
        left = np.tril(h - b, -1) - (μ.sum(axis=1)[:, None] * -h + μ @ h)
        short = np.maximum(-w, 0)
        excess = float(short.sum())
        spent = 0.5 + b @ b / 2 + share * (b @ np.abs(left).sum(axis=1))
        spent += short @ (F_0 + share * np.abs(h).sum(axis=1))
        total = float(b.sum()) + excess
        weights = (w + short) / total
        return VirtualSteps(
            float(spent) / total, tuple(b.tolist()), tuple(weights.tolist()), excess
        )

    def relaxed(self, k: int, value: float) -> tuple[float, Array] | None:
        """The least (1 + Σb²)/(2Σb) with b_t = 0 from k on, μ_tj ≥ 0 for t < k, any w; its b.

        None if it is not below `value`.  Dinkelbach: (1 + ‖b‖²)/2 < vΣb has a solution iff the one
        of least distance to (v, …, v) is one; that projection is a non-negative least-squares
        problem (Lawson and Hanson, Solving Least Squares Problems (1974), Section 23.4).
        """
        from scipy.optimize import nnls

        rows, columns = np.tril_indices(k, -1)
        normals = np.vstack([self.slope[rows, columns, :k], np.eye(k)])
        offsets = np.concatenate([self.constant[rows, columns], np.zeros(k)])
        size = np.linalg.norm(normals, axis=1)
        normals, offsets = normals / size[:, None], offsets / size
        best = None
        while True:
            lack = -(offsets + value * normals.sum(axis=1))
            unit = np.zeros(k + 1)
            unit[k] = 1
            try:
                dual, _ = nnls(np.vstack([normals.T, lack]), unit)
            except RuntimeError:  # its iterations ran out: this prefix is left out
                return best
            residual = np.append(normals.T @ dual, lack @ dual - 1)
            if residual[k] > -np.finfo(float).eps:  # no b satisfies the conditions
                return best
            b = np.maximum(value - residual[:k] / residual[k], 0)
            found = float((1 + b @ b) / (2 * b.sum())) if b.any() else math.inf
            if not found < value * (1 - 1e-12):  # what rounding can gain is no progress
                return best
            value, best = found, (found, b)

    def nearby(self, start: Array, value: float, F_0: float) -> Array:
        """A local minimum of ½ + eF_0 + ½Σb² − v(Σb + e), v = `value`, with μ, w, e ≥ 0: its b.

        b_t = 0 after the entries of `start`.  By SLSQP, so that the conditions hold to its accuracy
        if at all.
        """
        from scipy.optimize import minimize

        k, T = len(start), len(self.h)
        rows, columns = np.tril_indices(k, -1)
        normals = np.pad(self.slope[rows, columns, :k], ((0, 0), (0, 1)))  # of (b, e)
        offsets = self.constant[rows, columns]
        first = np.eye(k, 1)
        prices = np.append(np.full(k, -value), F_0 - value)

        def whole(x: Array) -> Array:
            return np.pad(x[:k], (0, T - k))

        def objective(x: Array) -> tuple[float, Array]:
            return float(x[:k] @ x[:k] / 2 + prices @ x), np.append(x[:k], 0) + prices

        def weights(x: Array) -> Array:
            b = whole(x)
            return self.w(b, self.μ(b))[:k] + first[:, 0] * x[k]

        def weight_gradients(x: Array) -> Array:
            return np.hstack([self.w_gradient(whole(x))[:k, :k], first])

        solution = minimize(
            objective,
            np.append(start, max(0.0, -float(weights(np.append(start, 0))[0]))),
            jac=True,
            bounds=[(0, None)] * (k + 1),
            constraints=[
                {"type": "ineq", "fun": weights, "jac": weight_gradients},
                {"type": "ineq", "fun": lambda x: normals @ x + offsets, "jac": lambda x: normals},
            ],
            method="SLSQP",
            options={"maxiter": 60, "ftol": 1e-12},
        )
        return np.maximum(solution.x[:k], 0)


def _start(c: Constants, T: int) -> VirtualSteps:
    """min_t F_t ≤ F_0 ≤ min(gap, GR)."""
    F_0 = min(float(c.F0), float(c.G) * float(c.R))
    return VirtualSteps(F_0, (0.0,) * T, (1.0,) + (0.0,) * (T - 1), math.inf)


def _scaled(found: VirtualSteps, c: Constants) -> VirtualSteps:
    """From the units R = V = 1 to those of the constants."""
    R, root = float(c.R), math.sqrt(c.second_moment)
    return replace(
        found,
        value=found.value * R * root,
        steps=tuple(step * R / root for step in found.steps),
        excess=found.excess * R / root,
    )


def at_steps(
    steps: Sequence[float],
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> VirtualSteps:
    """The bound of the module's docstring at given b ≥ 0, whether or not the conditions hold.

    `steps` holds one b_t, finite and in units of R/G, for each rate, not all 0; the other
    parameters are those of `virtual_steps`, and so are the errors.
    """
    c = constants(distance, gap, subgradient, noise)
    listed = rate_list(rates)
    b = np.array([float(step) for step in steps])
    if len(b) != len(listed):
        raise ValueError(f"steps must have one entry per rate, {len(listed)}, got {len(b)}")
    if not (np.isfinite(b).all() and b.min() >= 0 and b.any()):
        raise ValueError(f"steps must be finite, >= 0 and not all 0, got {b.tolist()}")
    none = _start(c, len(listed))
    if none.value == 0:
        return none
    R, root = float(c.R), math.sqrt(c.second_moment)
    geometry = _Geometry(listed, method, R / root)
    found = geometry.bound(b * root / R, none.value / (R * root), float(c.G) / root)
    return _scaled(found, c)


def virtual_steps(
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> VirtualSteps:
    """min_t E F_t ≤ [R²/2 + eF_0 + ½V Σb²] / (Σb + e) with the best virtual steps b found.

    Over all t < T, in particular over those that b_t = 0 leaves out; b_t > 0 for t < k only, for
    each k.  Without the condition on w the best b of a k solve a quadratic programme; where they
    violate it, they may start a local search (SLSQP) under all conditions.  Whatever these
    return is evaluated as the module describes, so that the result is a bound up to the rounding
    of one formula.  Never above min(gap, GR), nor, but for rounding, above `bounds.unified`.

    Parameters
    ----------
    rates : α_0 … α_{T−1}, each finite and > 0, in any order: a `StepwiseSchedule` or a sequence.
        0.1 s at T = 12, 1 s at T = 30, 10 to 20 s at T = 60.
    method : `UnifiedMomentum` with any s, `TorchMomentum`, or whatever has a `step_matrix` with a
        non-zero diagonal.
    distance, subgradient, gap, noise : R, G, F_0 (default GR) and δ, a standard deviation.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong type.
    """
    c = constants(distance, gap, subgradient, noise)
    listed = rate_list(rates)
    if not hasattr(method, "step_matrix"):
        raise TypeError(f"method must have a step_matrix, got {method!r}")
    T = len(listed)
    none = _start(c, T)
    if none.value == 0:
        return none
    R, root = float(c.R), math.sqrt(c.second_moment)
    geometry = _Geometry(listed, method, R / root)
    best = replace(none, value=none.value / (R * root))
    F_0, share = best.value, float(c.G) / root

    def better(b: Array) -> bool:
        nonlocal best
        if not b.any():
            return False
        found = geometry.bound(np.pad(b, (0, T - len(b))), F_0, share)
        # What rounding can gain is no progress.
        progress = found.value < best.value * (1 - 1e-9)
        best = min(best, found, key=lambda bound: bound.value)
        return progress

    closed = [np.array(η) * root / R for η in _theorem_a(listed, method)]
    for η in closed:
        better(η)
    starts = []
    for k in range(1, T + 1):
        found = geometry.relaxed(k, best.value)
        if found is not None:
            starts += [(found[0], b) for b in (found[1], *(closed if k == T else []))]
            better(found[1])
    for value, start in sorted(starts, key=lambda pair: pair[0])[: max(1, SEARCHES // T)]:
        b = start
        while value < best.value * (1 - 1e-9):
            b = geometry.nearby(b, best.value, F_0)
            if not better(b):
                break
    result = _scaled(best, c)
    return result if result.value < none.value else none


def _theorem_a(rates: Sequence[Any], method: HasStepMatrix) -> list[list[float]]:
    """[η] for the methods that Theorem A covers, [] for others."""
    if isinstance(method, UnifiedMomentum):
        return [[float(rate / (1 - method.momentum)) for rate in rates]]
    if isinstance(method, TorchMomentum) and not method.nesterov:
        return [[float(step) for step in potential(method, rates).steps]]
    return []
