"""Risk and angle at a constant rate, from any law of the iterate, at any time.

With M of `theory.linear` and D the second moments of (x, d) less their stationary ones, per mode,

    D_t = Mᵗ D Mᵗᵀ,     E f(x_t) = floor + ½ Σ a e_xᵀ D_t e_x,

and for the steps u, v of the three windows that start at iteration t, u = g_u·(x, d) + noise,

    E‖u‖² = N* + Σ g_uᵀ D_t g_u,    E⟨u, v⟩ = I* + Σ g_uᵀ D_t g_v,    E‖v‖² = N* + Σ g_vᵀ D_t g_v:

mixtures of the same exponentials, with weights of their own.  Times on a line t, t + s, t + 2s, …
are evaluated together, as one product of matrices that does not depend on D.

Sources: the model, UAI 2024, Definition 3.1; the angle, Definition 3.3; derived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks, linear, moments
from theory.final_risk import stage_risks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["OneRate", "at_one_rate", "moments_at_stages"]

Array = NDArray[np.float64]

_KEPT = 32  # sets of forms; each is as large as the number of times by that of modes


@dataclass(frozen=True, eq=False)
class OneRate:
    """What `at_one_rate` returns: all that the rate and the window decide.

    `deviation` in the methods below is D, of shape (m, n): see `from_moments`.

    Attributes
    ----------
    rate : α;  window : k.
    floor : lim E f, the excess risk at stationarity.
    limit : of the ratio angle, arccos I*/N*, in radians.
    squared_norm, inner : N* and I*.
    """

    rate: float
    window: int
    floor: float
    limit: float
    squared_norm: float
    inner: float
    _stationary: Array  # (m, n): xx for β = 0, else xx, xd, dd
    _transition: Array  # (n, 2, 2)
    _risk_forms: Callable[[int, int], Array]
    _step_forms: Callable[[int, int], Array]

    def from_moments(self, second_moments: Array) -> Array:
        """D: the second moments of (x, d), (m, n) as in `final_risk.StageRisks`, less the limit."""
        return second_moments - self._stationary

    def moved(self, deviation: Array, iterations: int) -> Array:
        """D after this many iterations at the rate."""
        if iterations == 0:
            return deviation
        if len(deviation) == 1:
            return deviation * self._transition[:, 0, 0] ** (2.0 * iterations)
        M = np.linalg.matrix_power(self._transition, iterations)
        xx, xd, dd = deviation
        S = np.stack([np.stack([xx, xd], -1), np.stack([xd, dd], -1)], -2)
        S = M @ S @ M.swapaxes(-1, -2)
        return np.stack([S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]])

    def moments_after(self, deviation: Array, iterations: int) -> Array:
        """The second moments after this many iterations at the rate, (m, n)."""
        return self._stationary + self.moved(deviation, iterations)

    def risk(self, deviation: Array, first: int = 0, stride: int = 1, count: int = 1) -> Array:
        """E f(x_t) at t = first + stride · (0 … count − 1) iterations, shape (count,)."""
        D = self.moved(deviation, first)
        return self.floor + self._risk_forms(stride, count)[:, 0] @ D.reshape(-1)

    def angle(self, deviation: Array, first: int = 0, stride: int = 1, count: int = 1) -> Array:
        """The ratio angle of windows j, j+1, j+2, j = first + stride · (0 … count − 1); radians.

        arccos of E⟨u, v⟩/√(E‖u‖² E‖v‖²).  Windows are counted from where D holds; angle j can be
        seen once k(j + 3) iterations are done.
        """
        D = self.moved(deviation, self.window * first)
        uu, uv, vv = self._step_forms(stride, count).transpose(1, 0, 2) @ D.reshape(-1)
        N = self.squared_norm
        return np.arccos(np.clip((self.inner + uv) / np.sqrt((N + uu) * (N + vv)), -1, 1))

    def risk_bound(self, deviation: Array, iterations: int) -> float:
        """Σ over the modes of |their part of E f − floor| after this many iterations."""
        D = self.moved(deviation, iterations).reshape(-1)
        return float(np.abs(self._risk_forms(1, 1)[0, 0] * D).sum())

    def angle_bound(self, deviation: Array, windows: int) -> float:
        """Of |ratio − its limit| at window j; 1 or more where it says nothing.

        With ε the sum of the modes' |parts| of E‖u‖², E⟨u, v⟩, E‖v‖² less their limits, the largest
        of the three, over N*: |I − I*| ≤ εN* and √(E‖u‖²E‖v‖²) within (1 ± ε)N*, so that the ratio
        changes by at most 2ε/(1 − ε).
        """
        D = self.moved(deviation, self.window * windows).reshape(-1)
        ε = float(np.abs(self._step_forms(1, 1)[0] * D).sum(axis=-1).max()) / self.squared_norm
        return 2 * ε / (1 - ε) if ε < 1 / 3 else 1.0


def at_one_rate(
    problem: NoisyQuadratic, method: UnifiedMomentum, rate: Any, window: int = 1
) -> OneRate:
    """The limits of risk and angle at the rate α with windows of k, and the ways to them; floats.

    Requires 0 < αa < 2(1 + β)/(1 + 2βs) and some noise; ValueError otherwise.
    """
    k = checks.positive_integer("window", window)
    linear.require_stable(problem, rate, method)
    # Floats from here on: times are real numbers.
    problem = NoisyQuadratic(
        *(
            np.asarray(x, dtype=np.float64)
            for x in (problem.curvature, problem.noise_variance, problem.start)
        )
    )
    method, rate = UnifiedMomentum(float(method.momentum), float(method.s)), float(rate)
    h = linear.steps(problem, rate)
    a, n = problem.curvature, problem.dimension
    M = linear.transition(h, method)
    S = linear.stationary_covariance(h, problem.noise_variance, method)
    parts = [(0, 0)] if method.momentum == 0 else [(0, 0), (0, 1), (1, 1)]
    gain, noise = moments.step_map(problem, method, rate, k)
    N, I = (  # noqa: E741
        float((np.einsum("ni,nik,nk->n", gain[:, 0], S, gain[:, j]) + noise[:, 0, j]).sum())
        for j in (0, 1)
    )
    root = np.zeros((n, 2))
    root[:, 0] = np.sqrt(a / 2)

    def forms(rows: list[Array], pairs: list[tuple[int, int]], stride: int, count: int) -> Array:
        """leftᵀ D_t right for each pair of rows, as forms on D: (count, pairs, m n)."""
        power = np.linalg.matrix_power(M, stride)
        if len(parts) == 1:  # β = 0: x does not read d, and a mode is a number
            rows, power = [row[:, :1] for row in rows], power[:, :1, :1]
        moved = [_moved_rows(row, power, count) for row in rows]
        form = np.empty((count, len(pairs), len(parts), n))
        for i, (left, right) in enumerate(pairs):
            for p, (x, d) in enumerate(parts):
                form[:, i, p] = moved[left][..., x] * moved[right][..., d]
                if x != d:
                    form[:, i, p] += moved[left][..., d] * moved[right][..., x]
        return form.reshape(count, len(pairs), -1)

    @lru_cache(maxsize=_KEPT)
    def risk_forms(stride: int, count: int) -> Array:
        return forms([root], [(0, 0)], stride, count)

    @lru_cache(maxsize=_KEPT)
    def step_forms(stride: int, count: int) -> Array:
        return forms([gain[:, 0], gain[:, 1]], [(0, 0), (0, 1), (1, 1)], k * stride, count)

    return OneRate(
        rate=rate,
        window=k,
        floor=float(a @ S[:, 0, 0] / 2),
        limit=float(np.arccos(I / N)),
        squared_norm=N,
        inner=I,
        _stationary=np.stack([S[:, x, d] for x, d in parts]),
        _transition=M,
        _risk_forms=risk_forms,
        _step_forms=step_forms,
    )


def _moved_rows(row: Array, power: Array, count: int) -> Array:
    """row · powerʲ for j = 0 … count − 1, by doubling: (count, n, m), m that of the row (n, m)."""
    rows = row[None]
    while len(rows) < count:
        after = rows * power[:, 0] if row.shape[1] == 1 else (rows[..., None, :] @ power)[..., 0, :]
        rows = np.concatenate([rows, after])
        power = power @ power
    return rows[:count]


def moments_at_stages(
    problem: NoisyQuadratic, method: UnifiedMomentum, schedule: StepwiseSchedule
) -> Array:
    """E (x², xd, d²) at the start of each stage, and at the end: (S + 1, m, n), m = 1 for β = 0."""
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    checks.instance("schedule", schedule, StepwiseSchedule)
    rates, lengths = np.array(schedule.rates, dtype=np.float64), np.array(schedule.lengths)
    found: Any = stage_risks(problem, method, rates, lengths).moments
    return found
