"""Drops against the truth: when was the exact risk of a stage at its floor?

For plain SGD with the rates that a trajectory realised, mode by mode within a stage,

    E x² = V + (q − V)(1 − αa)^{2t},   V = αav/(2 − αa),

q at its start; so risk and floor ½ Σ aV are known at every t.  The rates are taken as fixed
beforehand, though a rule chose them by the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["LIMIT", "StageTimes", "stage_times"]

Array = NDArray[np.float64]

LIMIT = 400  # stages, by default
_FOREVER = 2**40  # where a rate is so small that nothing moves any more


@dataclass(frozen=True, eq=False)
class StageTimes:
    """Of the stages of a schedule that ended in a drop; each (D,).

    length : updates from the start of the stage to the drop.
    due : the least t ≥ 0 with risk ≤ (1 + η)·floor, were the rate kept; at most 2⁴⁰.
    excess : risk/floor − 1 at the drop.
    eta : η.
    """

    length: NDArray[np.int64]
    due: NDArray[np.int64]
    excess: Array
    eta: float

    @property
    def premature(self) -> NDArray[np.bool_]:
        """Drops before the risk was within 1 + η of its floor."""
        return self.excess > self.eta


def stage_times(
    problem: NoisyQuadratic, schedule: StepwiseSchedule, *, eta: float = 0.1, limit: int = LIMIT
) -> StageTimes:
    """The truth on every stage but the last, which no drop ended; at most the first `limit`.

    Requires αa < 2 and noise in some mode; ValueError otherwise.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    if not eta > 0:
        raise ValueError(f"eta must be > 0, got {eta}")
    a, v = (np.asarray(x, dtype=np.float64) for x in (problem.curvature, problem.noise_variance))
    rates = np.array(schedule.rates[:-1][:limit], dtype=np.float64)
    lengths = np.array(schedule.lengths[:-1][:limit], dtype=np.int64)
    h = rates[:, None] * a
    if (h >= 2).any() or not (v > 0).any():
        raise ValueError(
            f"a floor needs learning_rate * curvature < 2 and noise, got {h.max(initial=0.0)} and "
            f"variance <= {v.max()}"
        )
    V = h * v / (2 - h)
    excess = np.empty_like(h)  # a(q − V)/2 at the start of each stage
    q = np.asarray(problem.start, dtype=np.float64) ** 2
    decay = (1 - h) ** 2
    for i, length in enumerate(lengths):
        excess[i] = a * (q - V[i]) / 2
        q = V[i] + (q - V[i]) * decay[i] ** int(length)
    floor = (a * V).sum(axis=1) / 2

    def left(t: NDArray[np.int64]) -> Array:
        return (excess * decay ** t[:, None]).sum(axis=1) / floor

    low, high = np.full(len(rates), -1), np.zeros(len(rates), dtype=np.int64)
    while (late := (high < _FOREVER) & (left(high) > eta)).any():
        low = np.where(late, high, low)
        high = np.where(late, np.minimum(2 * high + 1, _FOREVER), high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        late = left(np.maximum(middle, 0)) > eta
        low, high = np.where(late, middle, low), np.where(late, high, middle)
    return StageTimes(lengths, high, left(lengths), float(eta))
