"""The exact risk at the end of every stage of a schedule, and its gradient in the rates.

Per mode, the second moments w = (E x², E xd, E d²) obey, with M and b of `theory.linear`,

    w ← K w + v (b_x², b_x b_d, b_d²)ᵀ,     K the action of S ↦ M S Mᵀ on symmetric S,

and w = E x² alone for β = 0, where x does not read d.  A stage of k iterations is the k-th power of
this affine map, w ← A_i w + c_i; it is built by repeated squaring, and its derivative by the rate
with it, so that a stage costs the same whatever its length.  Risks are linear in w, so that

    λ_S = (a/2, 0, 0),    λ_i = A_iᵀ λ_{i+1},    ∂R/∂α̂_i = Σ λ_{i+1} · (A_i' w_i + c_i')

over the modes gives all S derivatives of the final risk for the price of a second pass.

Sources: the model, UAI 2024, Definition 3.1; the method, eq. (9); the adjoint is the method of
Lagrange multipliers for a recursion, or reverse-mode differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["Gradient", "StageRisks", "final_risk", "risk_gradient", "stage_risks"]

Array = NDArray[Any]

# Stages are taken in chunks whose numbers fit in a cache, and the maps of some chunks are kept.
_CHUNK = 2**16
_KEPT = 8


class _Maps(NamedTuple):
    """w ← A w + c for each stage and mode, and the derivatives by the stage's rate.

    A, dA : (S, m, m, n);  c, dc : (S, m, n), with m = 1 for β = 0, else 3.
    """

    A: Array
    c: Array
    dA: Array
    dc: Array

    def after(self, first: _Maps) -> _Maps:
        """These maps applied after `first`."""
        A, c, dA, dc = first
        return _Maps(
            _product(self.A, A),
            _product(self.A, c) + self.c,
            _product(self.dA, A) + _product(self.A, dA),
            _product(self.dA, c) + _product(self.A, dc) + self.dc,
        )

    def of(self, stages: Any) -> _Maps:
        return _Maps(*(part[stages] for part in self))


def _product(A: Array, B: Array) -> Array:
    """A B or A b for every stage and mode."""
    return np.einsum("sijn,sjkn->sikn" if B.ndim == 4 else "sijn,sjn->sin", A, B)


def _one_iteration(problem: NoisyQuadratic, method: UnifiedMomentum, rates: Array) -> _Maps:
    """The maps of one iteration at each of the rates."""
    a, v = (np.asarray(x, dtype=np.float64) for x in (problem.curvature, problem.noise_variance))
    β = method.momentum
    # The first column of M is (1 − p, −q), with b = (p, q) and p, q in proportion to the rate.
    dp, dq = (gain * a for gain in method.gains)
    p, q = rates[:, None] * dp, rates[:, None] * dq
    r = 1 - p
    if β == 0:
        parts = (r * r, v * p * p, -2 * dp * r, 2 * v * dp * p)
        A, c, dA, dc = (part[:, None] for part in parts)
        return _Maps(A[:, None], c, dA[:, None], dc)
    S, n = p.shape
    dtype = p.dtype
    A, dA = np.empty((S, 3, 3, n), dtype=dtype), np.zeros((S, 3, 3, n), dtype=dtype)
    c, dc = np.empty((S, 3, n), dtype=dtype), np.empty((S, 3, n), dtype=dtype)
    A[:, 0, 0], A[:, 0, 1], A[:, 0, 2] = r * r, 2 * β * r, β * β
    A[:, 1, 0], A[:, 1, 1], A[:, 1, 2] = -q * r, β * (r - q), β * β
    A[:, 2, 0], A[:, 2, 1], A[:, 2, 2] = q * q, -2 * β * q, β * β
    dA[:, 0, 0], dA[:, 0, 1] = -2 * dp * r, -2 * β * dp
    dA[:, 1, 0], dA[:, 1, 1] = q * dp - dq * r, -β * (dp + dq)
    dA[:, 2, 0], dA[:, 2, 1] = 2 * dq * q, -2 * β * dq
    c[:, 0], c[:, 1], c[:, 2] = v * p * p, v * p * q, v * q * q
    dc[:, 0], dc[:, 1], dc[:, 2] = 2 * v * dp * p, v * (dp * q + dq * p), 2 * v * dq * q
    return _Maps(A, c, dA, dc)


def _powers(step: _Maps, counts: Array) -> _Maps:
    """Each map applied `counts` times, 0 allowed, by repeated squaring."""
    result = _Maps(*(np.zeros_like(part) for part in step))
    diagonal = range(step.A.shape[1])
    result.A[:, diagonal, diagonal] = 1
    while True:
        odd = counts % 2 == 1
        if odd.any():
            for part, new in zip(result, step.of(odd).after(result.of(odd)), strict=True):
                part[odd] = new
        counts = counts // 2
        if not counts.any():
            return result
        step = step.after(step)


class _Stages(NamedTuple):
    """The maps of some stages, and the derivatives of A and c by real lengths."""

    maps: _Maps
    by_length: tuple[Array, Array] | None


def _stages(
    problem: NoisyQuadratic, method: UnifiedMomentum, rates: Array, lengths: Array
) -> _Stages:
    one = _one_iteration(problem, method, rates)
    if lengths.dtype.kind in "iu":
        return _Stages(one if (lengths == 1).all() else _powers(one, lengths), None)
    whole = np.floor(lengths)
    share = lengths - whole
    powers = _powers(one, whole.astype(np.int64))
    moved = one.A.copy()  # what one more iteration adds: A − 1 and c
    diagonal = range(moved.shape[1])
    moved[:, diagonal, diagonal] -= 1
    by_stage = share[:, None, None]
    last = _Maps(
        by_stage[..., None] * moved,
        by_stage * one.c,
        by_stage[..., None] * one.dA,
        by_stage * one.dc,
    )
    last.A[:, diagonal, diagonal] += 1
    by_length = _product(moved, powers.A), _product(moved, powers.c) + one.c
    return _Stages(last.after(powers), by_length)


class Gradient(NamedTuple):
    """Derivatives by the rates and, where lengths are real, by the lengths; each (S,)."""

    by_rate: Array
    by_length: Array | None


@dataclass(frozen=True, eq=False)
class StageRisks:
    """What `stage_risks` returns.

    Attributes
    ----------
    risks : (S,), E f after each stage; not finite where a moment overflows.
    moments : (S + 1, m, n), the second moments w at the start and after each stage.
    """

    risks: Array
    moments: Array
    _curvature: Array
    _stages: Callable[[int], _Stages]  # from this stage on, `_size` of them
    _size: int

    def gradient(self, weights: Array | None = None) -> Gradient:
        """Of Σ_i weights_i · risks_i; default: of the last risk alone."""
        S, m, n = len(self.risks), *self.moments.shape[1:]
        weights = np.eye(1, S, S - 1)[0] if weights is None else weights
        by_rate, by_length = np.empty((2, S), dtype=self.risks.dtype)
        real = False
        λ = np.zeros((m, n), dtype=self.moments.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in reversed(range(0, S, self._size)):
                (A, _, dA, dc), lengthened = self._stages(first)
                here = slice(first, first + len(A))
                after = np.empty_like(dc)
                for i in reversed(range(len(A))):
                    if weights[first + i]:
                        λ[0] += weights[first + i] * self._curvature / 2
                    after[i] = λ
                    λ = A[i, 0] * λ if m == 1 else np.einsum("ijn,in->jn", A[i], λ)
                before = self.moments[:-1][here]
                by_rate[here] = (after * (_product(dA, before) + dc)).sum(axis=(1, 2))
                if real := lengthened is not None:
                    lA, lc = lengthened
                    by_length[here] = (after * (_product(lA, before) + lc)).sum(axis=(1, 2))
        return Gradient(by_rate, by_length if real else None)


def stage_risks(
    problem: NoisyQuadratic, method: UnifiedMomentum, rates: Array, lengths: Array
) -> StageRisks:
    """E f after each of S stages from `problem.start`, and what its gradient needs.

    rates : (S,), float or complex (analytic in them).
    lengths : (S,), ≥ 0, integers or real numbers.  Of the last iteration of a stage, a real length
        makes the fraction θ: w ← (1 − θ) w + θ (K w + …), as if it were made with probability θ.
        Risks are then continuous in the lengths, and exact where these are whole numbers.

    Neither is checked: this is the inner loop of a search.  `final_risk` and `risk_gradient` check.
    """
    a, start = (np.asarray(x, dtype=np.float64) for x in (problem.curvature, problem.start))
    method = UnifiedMomentum(float(method.momentum), float(method.s))
    S, n = len(rates), problem.dimension
    m = 1 if method.momentum == 0 else 3
    size = max(64, _CHUNK // (m * n))

    @lru_cache(maxsize=_KEPT)
    def stages(first: int) -> _Stages:
        here = slice(first, first + size)
        with np.errstate(over="ignore", invalid="ignore"):
            return _stages(problem, method, rates[here], lengths[here])

    moments = np.zeros((S + 1, m, n), dtype=np.result_type(rates, a))
    moments[0, 0] = start**2
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, S, size):
            A, c, *_ = stages(first).maps
            for i, w in enumerate(moments[first : first + len(A)]):
                moved = A[i, 0] * w if m == 1 else np.einsum("ijn,jn->in", A[i], w)
                np.add(moved, c[i], out=moments[first + i + 1])
        risks = moments[1:, 0] @ a / 2
    return StageRisks(risks, moments, a, stages, size)


def risk_gradient(
    problem: NoisyQuadratic, method: UnifiedMomentum, schedule: StepwiseSchedule
) -> tuple[float, Array]:
    """E f(x_T), and its derivatives by the rates of the stages, shape (S,), float64.

    Raises TypeError for a problem, method or schedule of another kind, OverflowError if the risk
    or a derivative is not a finite float.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    checks.instance("schedule", schedule, StepwiseSchedule)
    rates, lengths = np.array(schedule.rates, dtype=np.float64), np.array(schedule.lengths)
    found = stage_risks(problem, method, rates, lengths)
    risk, gradient = float(found.risks[-1]), found.gradient().by_rate
    if not (np.isfinite(risk) and np.isfinite(gradient).all()):
        raise OverflowError(
            "the final risk or its gradient is no finite float: max learning_rate * max curvature "
            f"is {max(schedule.rates) * max(problem.curvature)}, stable is "
            f"< {method.max_stable_step}"
        )
    return risk, gradient


def final_risk(
    problem: NoisyQuadratic, method: UnifiedMomentum, schedule: StepwiseSchedule
) -> float:
    """E f(x_T), in floats, the last risk of `moments.evolve`; errors as `risk_gradient`."""
    return risk_gradient(problem, method, schedule)[0]
