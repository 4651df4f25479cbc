"""Does a rule sense, or count?  The problem's time is stretched, and the drops should follow.

On `suite.stretched(problem, c)` the same process takes c times as many iterations.  A rule that
senses it drops c times later, so that log(drop time) against log c has slope 1; a clock has 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.testbed.contenders import Contender
from theory.testbed.engine import Run, simulate
from theory.testbed.suite import stretched
from theory.testbed.worlds import Quadratic

__all__ = ["Equivariance", "drop_times", "measure"]

Array = NDArray[np.float64]

_RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class Equivariance:
    """One contender.

    stretches : c, shape (C,).
    times : (C, J), the median over trajectories of the iteration of the j-th drop; ∞ where fewer
        than half of them got there.
    slope : of log time on log c, the mean over the drops that every stretch has; nan if none.
    interval : of the slope, 95 %, by resampling trajectories.
    """

    name: str
    stretches: Array
    times: Array
    slope: float
    interval: tuple[float, float]


def drop_times(run: Run, drops: int) -> Array:
    """(S, J): the iterations of the first J drops of every trajectory, ∞ for those not made."""
    S = len(run.risk)
    times = np.full((S, drops), np.inf)
    for s in range(S):
        at = run.drops.of(s)[0][:drops]
        times[s, : len(at)] = at
    return times


def _slope(log_stretches: Array, times: Array) -> Array:
    """(..., C, J) medians to (...): the mean slope over the j whose times are all finite."""
    finite = np.isfinite(times).all(axis=-2)
    y = np.log(np.where(np.isfinite(times), times, 1.0))
    x = log_stretches - log_stretches.mean()
    slopes = np.einsum("c,...cj->...j", x, y) / (x @ x)
    count = finite.sum(axis=-1)
    total = np.where(finite, slopes, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def measure(
    contenders: Sequence[Contender],
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    *,
    learning_rate: float,
    iterations: int,
    stretches: Sequence[float] = (1, 4, 16),
    drops: int = 3,
    trajectories: int = 50,
    seed: int = 0,
) -> tuple[Equivariance, ...]:
    """The first drops of every contender on the problem and on its stretched versions.

    learning_rate : α_0, at every stretch.   iterations : T at c = 1; c·T at c.
    Choose α_0 a_max k well below 4, k the window: a fixed window is then short at every stretch.
    """
    runs = [
        simulate(
            Quadratic(stretched(problem, c)),
            method,
            contenders,
            learning_rate=learning_rate,
            horizons=[round(iterations * c)],
            trajectories=trajectories,
            seed=seed,
        )
        for c in stretches
    ]
    log_stretches = np.log(np.asarray(stretches, dtype=np.float64))
    chosen = np.random.default_rng(seed).integers(trajectories, size=(_RESAMPLES, trajectories))
    found = []
    for r, contender in enumerate(contenders):
        times = np.stack([drop_times(run[r], drops) for run in runs])  # (C, S, J)
        # Each stretch has its own trajectories; the same choice serves, as their noise is shared.
        resampled = np.median(times[:, chosen], axis=2).swapaxes(0, 1)
        slopes = _slope(log_stretches, resampled)
        slopes = slopes[np.isfinite(slopes)]
        low, high = np.quantile(slopes, [0.025, 0.975]) if len(slopes) else (np.nan, np.nan)
        medians = np.median(times, axis=1)
        found.append(
            Equivariance(
                contender.name,
                np.exp(log_stretches),
                medians,
                float(_slope(log_stretches, medians)),
                (float(low), float(high)),
            )
        )
    return tuple(found)
