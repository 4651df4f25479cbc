"""Rules that see how far the iterates get: `autodrop.detectors.VarianceRatio`, and an angle.

Vectorised over trajectories; `VarianceRatioTest` makes the drops of the package's own detector, as
`published.Scalar` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autodrop import DropPolicy, Rule
from autodrop.detectors import VarianceRatio, VarianceRatioState
from autodrop.motion import COPIES, LAGS
from theory.testbed.contenders import Observation, Observe, lowered, row_dot

__all__ = ["GeometricAngle", "VarianceRatioTest"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]


class _Stages:
    """Times and snapshots of the stages of S trajectories, at the ends of windows."""

    def __init__(self, weights: Array, shortest: int) -> None:
        S = len(weights)
        self.shortest = shortest
        self.updates = np.full(S, -1)
        self.marks = np.zeros(S, dtype=np.int64)
        self.stored = np.zeros(S, dtype=np.int64)
        self.taken = np.zeros((S, COPIES), dtype=np.int64)
        self.snapshots = np.zeros((S, COPIES, weights.shape[1]))

    def advance(self, window: int) -> tuple[Mask, Mask, Mask]:
        """One more window: whose stage starts with its end, who may test, who keeps a snapshot."""
        starts = self.updates < 0
        self.updates = np.where(starts, 0, self.updates + window)
        j = 4 * np.log2(np.maximum(self.updates, 1) / self.shortest) + 1e-9
        marks = np.where(self.updates < self.shortest, 0, np.floor(j).astype(np.int64) + 1)
        passed = marks - self.marks
        keeps = (passed > 1) | ((passed == 1) & (self.marks % 2 == 0))
        self.marks = marks
        return starts, (passed > 0) & (self.stored >= COPIES), keeps

    def oldest(self, rows: Integers, age: int = 0) -> Integers:
        """The slot of the oldest snapshot, or of that many after it."""
        return (self.stored[rows] + age) % COPIES

    def store(self, rows: Integers, x: Array) -> Integers:
        """Keep x for the oldest snapshot; its slot."""
        slot = self.oldest(rows)
        self.snapshots[rows, slot] = x[rows]
        self.taken[rows, slot] = self.updates[rows]
        self.stored[rows] += 1
        return slot

    def end(self, drop: Mask) -> None:
        """These stages are over."""
        self.updates[drop] = -1
        self.marks[drop] = 0
        self.stored[drop] = 0


class _Probe:
    """Sums of ‖x − a‖² over lags, a taken anew every LAGS[-1] updates."""

    def __init__(self, weights: Array) -> None:
        S = len(weights)
        self.anchor = weights.copy()
        self.age = np.zeros(S, dtype=np.int64)
        self.sums = np.zeros((S, len(LAGS)))
        self.counts = np.zeros((S, len(LAGS)), dtype=np.int64)

    def note(self, seen: Observation) -> None:
        self.age += 1
        # Powers of two, which all lags are.
        due = np.flatnonzero(self.age & (self.age - 1) == 0)
        if not len(due):
            return
        x = seen.weights
        d = x[due] - self.anchor[due]
        lag = np.log2(self.age[due]).astype(np.int64)
        self.sums[due, lag] += row_dot(d, d)
        self.counts[due, lag] += 1
        self.restart(due[self.age[due] == LAGS[-1]], x)

    def restart(self, rows: Integers, x: Array) -> None:
        self.anchor[rows] = x[rows]
        self.age[rows] = 0


def _window_steps(weights: Array, window: int) -> Callable[[Observation], Array | None]:
    """‖y_i − y_{i−1}‖², (S,), at the end of every window, else None.  The first is of no use."""
    total, previous, pending = weights.copy(), weights, np.zeros_like(weights)

    def see(seen: Observation) -> Array | None:
        nonlocal total, previous, pending
        if window == 1:
            step, pending = pending, seen.step
            return row_dot(step, step)
        if seen.updates % window:
            np.add(total, seen.weights, out=total)
            return None
        step = (total - previous) / window
        previous, total = total, seen.weights
        return row_dot(step, step)

    return see


@dataclass(frozen=True)
class VarianceRatioTest:
    """`autodrop.detectors.VarianceRatio` with windows of k updates, dropping by `factor`."""

    window: int = 16
    factor: float = VarianceRatio.factor
    detector: VarianceRatio = field(default_factory=VarianceRatio)
    name: str = ""

    def __post_init__(self) -> None:
        Rule(self.window, self.detector, DropPolicy(self.factor))  # checks
        if not self.name:
            object.__setattr__(self, "name", f"variance ratio k={self.window} ρ={self.factor:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        S, k = len(weights), self.window
        stages, probe = _Stages(weights, self.detector.shortest), _Probe(weights)
        steps = _window_steps(weights, k)
        sums_at = np.zeros((S, COPIES, len(LAGS)))
        counts_at = np.zeros((S, COPIES, len(LAGS)), dtype=np.int64)
        stage, pairs, tests = (np.zeros(S, dtype=np.int64) for _ in range(3))
        differences, log_step = np.zeros(S), np.full(S, np.nan)
        lags = np.array(LAGS)

        def settled(rows: Integers, x: Array) -> Mask:
            slot = stages.oldest(rows)
            span = stages.updates[rows] - stages.taken[rows, slot]
            terms = probe.counts[rows] - counts_at[rows, slot]
            with np.errstate(divide="ignore", invalid="ignore"):
                κ = np.nan_to_num((probe.sums[rows] - sums_at[rows, slot]) / terms / lags, nan=0.0)
            best = κ.argmax(axis=1)
            every = np.arange(len(rows))
            able = (κ[every, best] > 0) & (span >= self.detector.span * lags[best])
            d = x[rows] - stages.snapshots[rows, slot]
            ratio = row_dot(d, d) / span / np.where(able, κ[every, best], np.inf)
            tests[rows[able]] += 1
            limits = [
                self.detector.threshold(
                    VarianceRatioState(
                        stage=int(stage[b]),
                        tests=int(tests[b]),
                        differences=float(differences[b]),
                        pairs=int(pairs[b]),
                    ),
                    int(terms[i, best[i]]),
                )
                if able[i]
                else 0.0
                for i, b in enumerate(rows.tolist())
            ]
            return able & (ratio < limits)

        def observe(seen: Observation) -> Array | None:
            nonlocal log_step, differences, pairs
            probe.note(seen)
            square = steps(seen)
            if square is None:
                return None
            starts, due, keeps = stages.advance(k)
            with np.errstate(divide="ignore"):
                new = np.log(square)
            change = np.where(starts, np.nan, new - log_step)
            known = np.isfinite(change)
            differences += np.where(known, change, 0.0) ** 2
            pairs += known
            log_step = np.where(starts | ~np.isfinite(new), np.nan, new)
            drop = np.zeros(S, dtype=bool)
            if not (starts.any() or due.any() or keeps.any()):
                return None
            x = seen.weights
            rows = np.flatnonzero(due)
            if len(rows):
                drop[rows] = settled(rows, x)
            rows = np.flatnonzero(keeps & ~drop)
            slot = stages.store(rows, x)
            sums_at[rows, slot], counts_at[rows, slot] = probe.sums[rows], probe.counts[rows]
            rows = np.flatnonzero(starts)
            probe.restart(rows, x)
            probe.sums[rows], probe.counts[rows] = 0.0, 0
            stage[drop] += 1
            for each in (differences, pairs, tests):
                each[drop] = 0
            stages.end(drop)
            return lowered(drop, self.factor, seen.rates)

        return observe


@dataclass(frozen=True)
class GeometricAngle:
    """cos ∠(x_t − x_u, x_u − x_w) < threshold, with t, u, w in geometric progression.

    Times since the last drop, w about t/2.6 and u about t/1.8.  What an angle alone can do on all
    time scales: tests and snapshots are those of `VarianceRatio`, without its noise level.
    """

    window: int = 16
    factor: float = 0.5
    threshold: float = -0.2
    shortest: int = 64
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            label = f"geometric angle k={self.window} ρ={self.factor:g} cos<{self.threshold:g}"
            object.__setattr__(self, "name", label)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        stages = _Stages(weights, self.shortest)

        def observe(seen: Observation) -> Array | None:
            if seen.updates % self.window:
                return None
            _, due, keeps = stages.advance(self.window)
            if not (due.any() or keeps.any()):
                return None
            x = seen.weights
            drop = np.zeros(len(x), dtype=bool)
            rows = np.flatnonzero(due)
            if len(rows):
                w = stages.snapshots[rows, stages.oldest(rows)]
                u = stages.snapshots[rows, stages.oldest(rows, 1)]
                new, old = x[rows] - u, u - w
                length = np.sqrt(row_dot(new, new) * row_dot(old, old))
                drop[rows] = row_dot(new, old) < self.threshold * length
            stages.store(np.flatnonzero(keeps & ~drop), x)
            stages.end(drop)
            return lowered(drop, self.factor, seen.rates)

        return observe
