"""Have the iterates stopped getting anywhere? The variance ratio of long displacements to short.

A random walk gets √m times as far in m steps as in one, a drift m times, and iterates that are
held near a minimum no further however long they go. The ratio of ‖x_t − x_u‖² to what a random walk
of the same short steps would have (Lo and MacKinlay, "Stock market prices do not follow random
walks", Review of Financial Studies 1, 1988) tells them apart on every time scale, where the angle
of successive steps sees one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

from autodrop.checks import check_integer, check_number
from autodrop.motion import COPIES, LAGS, Motion, Observes, Plan

__all__ = ["VarianceRatio", "VarianceRatioState"]

# Confidence with which the variance of log ‖s‖² is not larger than assumed.
_CONFIDENCE = 0.9
_NONE = (0,) * len(LAGS)


@dataclass(frozen=True)
class VarianceRatioState:
    """What is remembered of a stage, which starts with the first whole window after a drop.

    stage: drops so far. updates: since the stage's start; None before it. marks: times t_j that
    have passed. taken: when the held snapshots were taken, oldest first; stored: how many ever.
    sums, counts: of the probe, for each lag, since the start. sums_at, counts_at: the same when
    each snapshot was taken, one after the other. log_step: log ‖s‖² of the last window.
    differences: Σ of the squared changes of log_step, and pairs: how many. tests: of this stage.
    """

    stage: int = 0
    updates: int | None = None
    marks: int = 0
    stored: int = 0
    taken: tuple[int, ...] = ()
    sums: tuple[float, ...] = (0.0,) * len(LAGS)
    counts: tuple[int, ...] = _NONE
    sums_at: tuple[float, ...] = ()
    counts_at: tuple[int, ...] = ()
    log_step: float | None = None
    differences: float = 0.0
    pairs: int = 0
    tests: int = 0


@dataclass(frozen=True)
class VarianceRatio:
    """‖x_t − x_u‖²/((t − u) κ) < min(c_i, q), κ = max_ℓ mean ‖x_{τ+ℓ} − x_τ‖²/ℓ over u < τ ≤ t.

    Tests are made at t_j = shortest·2^{j/4} updates after the start of a stage, at the first end of
    a window from there on; u, about t/2.6, is that of the oldest of three snapshots, taken at every
    second t_j.
    Lags ℓ are 1, 2, 4, …, 64: at the one that attains it, κ is how fast the steps spread, momentum
    included. There is no test unless t − u is 4 times that lag.

    c_i = min(last, first·growth^i) in stage i, which says how much the risk may still fall. With
    plain SGD on a quadratic E‖x_{t+1} − x_t‖² is 4α times the excess risk at which it settles, and
    a steady drift that lowers the risk by Δ has ‖x_t − x_u‖² = α(t − u)Δ to first order in α: so
    the test asks that since u the risk has fallen by less than 4c times the level where it settles.
    The numbers are heuristic: chosen on noisy quadratics, with windows of 1, 4, 16 and 64 updates,
    without and with momentum, from a range in which they matter little (`theory.testbed`).

    q stands for the level-quantile of the ratio under a random walk, a χ²_ν/ν over the largest of
    several: that of χ²_μ/μ over 1 + √(2/νn), μ = νn/(n + 1), n the number of terms in κ. The
    effective dimension ν = (Σλ)²/Σλ² of steps with variances λ is read from the variance ψ'(ν/2)
    of log ‖y_i − y_{i−1}‖² (successive differences, upper 90 % confidence limit). This is heuristic
    but tested by simulation: a stage that still moves, as a random walk or with a drift, is taken
    for a settled one with probability at most `level` at each test, for Gaussian steps of effective
    dimension 3 and more (rates and intervals: claim variance-ratio-senses of the audit).
    per_stage: spend `level` over all tests of a stage, level/(n(n+1)) on its n-th: safer, and
    slower where ν is small.

    level: in (0, 0.5). first, last: > 0, first ≤ last. growth: ≥ 1. shortest: ≥ 1 updates.

    It sees `Motion`, not angles, of windows that are means. It knows no degrees, and nothing of the
    problem, the window, the dimension, the horizon or the optimizer. factor is what a drop should
    multiply the rate with. Memory: four vectors of about 2¹⁸ sampled coordinates at most.

    Raises TypeError for what is no number, ValueError for parameters out of range.
    """

    level: float = 0.05
    first: float = 0.015
    growth: float = 4.0
    last: float = 0.5
    shortest: int = 64
    per_stage: bool = False

    observes: ClassVar[Observes] = "motion"
    factor: ClassVar[float] = 0.25
    span: ClassVar[int] = 4
    """A test needs this many times the lag at which the steps spread fastest: what came before the
    last drop, which the momentum still carries, must be forgotten."""

    def __post_init__(self) -> None:
        check_number("level", self.level, "in (0, 0.5)", lambda p: 0.0 < p < 0.5)
        check_number("last", self.last, "finite and > 0", lambda c: 0.0 < c < math.inf)
        check_number("first", self.first, "in (0, last]", lambda c: 0.0 < c <= self.last)
        check_number("growth", self.growth, "finite and >= 1", lambda g: 1.0 <= g < math.inf)
        check_integer("shortest", self.shortest, 1)

    def init(self) -> VarianceRatioState:
        """The state before the first window."""
        return VarianceRatioState()

    def restart(self, state: VarianceRatioState) -> VarianceRatioState:
        """The same stage, measured anew from the next whole window on."""
        return VarianceRatioState(state.stage)

    def plan(self, state: VarianceRatioState, window: int) -> Plan:
        """What to measure and to keep at the end of the next window, of so many updates."""
        if state.updates is None:
            return Plan(restart=True)
        marks = self._marks(state.updates + window)
        if marks == state.marks:
            return Plan()
        slot = state.stored % COPIES  # the oldest
        full = state.stored >= COPIES
        return Plan(slot if full else None, slot if _keeps(state.marks, marks) else None)

    def update(
        self, state: VarianceRatioState, motion: Motion | None
    ) -> tuple[VarianceRatioState, bool]:
        """The state after one more window, and whether the iterates have settled.

        None is for a window that did not move or is not finite. Measured by the plan of this state.
        """
        if motion is None or not all(map(math.isfinite, (motion.step, *motion.sums))):
            return self.restart(state), False
        if state.updates is None:
            return replace(self.restart(state), updates=0), False
        before, state = state, _moved(state, motion)
        assert state.updates is not None
        state = replace(state, marks=self._marks(state.updates))
        if motion.displacement is not None and len(state.taken) == COPIES:
            state, settled = self._test(state, motion.displacement)
            if settled:
                return VarianceRatioState(state.stage + 1), True
        return (_stored(state) if _keeps(before.marks, state.marks) else state), False

    def threshold(self, state: VarianceRatioState, terms: int) -> float:
        """min(c_i, q) at the last of `state.tests`, κ the mean of `terms`; 0 while ν is unknown."""
        c = min(self.last, self.first * self.growth ** min(state.stage, 64))
        variance = _upper_limit(state.differences, state.pairs)
        if not variance < math.inf:
            return 0.0
        spent = state.tests * (state.tests + 1) if self.per_stage else 1
        # ψ'(x) ≈ 1/x + 1/2x², so that ψ'(ν/2) = v at about ν/2 = 1/v + 1/2
        ν = 2.0 / max(variance, 1e-12) + 1.0
        # κ is the mean of as many χ²_ν/ν, and the largest of those of all lags.
        q = _chi_square_quantile(self.level / spent, ν * terms / (terms + 1.0))
        return min(c, q / (1.0 + math.sqrt(2.0 / (ν * terms))))

    def _test(
        self, state: VarianceRatioState, displacement: float
    ) -> tuple[VarianceRatioState, bool]:
        assert state.updates is not None
        span = state.updates - state.taken[0]
        κ, lag, terms = _spread(state)
        if not κ > 0.0 or span < self.span * lag:
            return state, False
        state = replace(state, tests=state.tests + 1)
        ratio = displacement / span / κ
        return state, ratio < self.threshold(state, terms)

    def _marks(self, updates: int) -> int:
        """How many t_j = shortest·2^{j/4} are ≤ updates."""
        if updates < self.shortest:
            return 0
        j = math.floor(4.0 * math.log2(updates / self.shortest) + 1e-9)
        return j + 1


def _moved(state: VarianceRatioState, motion: Motion) -> VarianceRatioState:
    """With what one more window adds to the sums."""
    assert state.updates is not None
    log_step = math.log(motion.step) if motion.step > 0.0 else None
    differences, pairs = state.differences, state.pairs
    if log_step is not None and state.log_step is not None:
        differences += (log_step - state.log_step) ** 2
        pairs += 1
    return replace(
        state,
        updates=state.updates + motion.updates,
        sums=tuple(a + b for a, b in zip(state.sums, motion.sums, strict=True)),
        counts=tuple(a + b for a, b in zip(state.counts, motion.counts, strict=True)),
        log_step=log_step,
        differences=differences,
        pairs=pairs,
    )


def _keeps(before: int, after: int) -> bool:
    """Whether a t_j with even j is among those that passed: numbers before … after − 1."""
    return after > before and (after - before > 1 or before % 2 == 0)


def _stored(state: VarianceRatioState) -> VarianceRatioState:
    """With the iterate of now for the newest snapshot."""
    assert state.updates is not None
    first = 1 if len(state.taken) == COPIES else 0
    L = len(LAGS)
    return replace(
        state,
        stored=state.stored + 1,
        taken=(*state.taken[first:], state.updates),
        sums_at=state.sums_at[first * L :] + state.sums,
        counts_at=state.counts_at[first * L :] + state.counts,
    )


def _spread(state: VarianceRatioState) -> tuple[float, int, int]:
    """κ since the oldest snapshot, the lag that attains it, and its number of terms; 0s if none."""
    best, at, terms = 0.0, 0, 0
    for i, lag in enumerate(LAGS):
        count = state.counts[i] - state.counts_at[i]
        if count > 0:
            κ = (state.sums[i] - state.sums_at[i]) / count / lag
            if κ > best:
                best, at, terms = κ, lag, count
    return best, at, terms


def _upper_limit(differences: float, pairs: int) -> float:
    """Of the variance of independent normal numbers, from Σ (x_{i+1} − x_i)²; inf for < 3 pairs.

    Half the mean square of successive differences has about 2/3 as many degrees of freedom as
    there are (von Neumann, Annals of Mathematical Statistics 12, 1941).
    """
    if pairs < 3:
        return math.inf
    return differences / (2 * pairs) / _chi_square_quantile(1.0 - _CONFIDENCE, 2.0 / 3.0 * pairs)


def _chi_square_quantile(p: float, ν: float) -> float:
    """Of χ²_ν/ν, after Wilson and Hilferty (1931); for p ≤ ½ it is at most 0.02 too small."""
    h = 2.0 / (9.0 * ν)
    return max(0.0, 1.0 - h + NormalDist().inv_cdf(p) * math.sqrt(h)) ** 3
