"""Schedules and methods that several convergence claims use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from theory import StepwiseSchedule, UnifiedMomentum

__all__ = ["METHODS", "STEPWISE", "random_schedules"]

# Two drops in twelve iterations, α̂_i = 1/(i+2): small enough for exact worst cases.
STEPWISE = StepwiseSchedule([1 / 2, 1 / 3, 1 / 4], [3, 4, 5])

METHODS = (
    ("SGD", UnifiedMomentum.sgd()),
    ("heavy ball, β = ½", UnifiedMomentum.heavy_ball(0.5)),
    ("Nesterov, β = ½", UnifiedMomentum.nesterov(0.5)),
    ("s = 1/(1−β), β = ½", UnifiedMomentum(0.5, 2.0)),
    ("Nesterov, β = 0.9", UnifiedMomentum.nesterov(0.9)),
)


def random_schedules(
    rng: np.random.Generator, count: int, longest: int = 12
) -> Iterator[tuple[list[float], UnifiedMomentum]]:
    """Non-increasing step-wise rates around 0.3, and UM with 0 ≤ β < 1, 0 ≤ s ≤ 1/(1−β)."""
    for _ in range(count):
        T = int(rng.integers(1, longest + 1))
        drops = rng.random(T) < 0.4
        logs = np.cumsum(np.where(drops, -rng.exponential(0.5, T), 0.0))
        β = float(rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0.5, 0.99)]))
        s = float(rng.choice([0.0, 1.0, rng.uniform(0, 1 / (1 - β)), 1 / (1 - β)]))
        rates = np.exp(logs + rng.normal(-1.2, 1.0))
        yield rates.tolist(), UnifiedMomentum(β, min(s, 1 / (1 - β)))
