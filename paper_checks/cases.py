"""The instances that several claims share: the paper's quadratic, and random exact ones."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, simulate
from theory.simulate import Ensemble

RATES = (0.06, 0.03, 0.01, 0.001)  # Section 3, p. 3605 ("0, 001" is read as 0.001)
SGD = UnifiedMomentum.sgd()


def rational_cases(
    rng: np.random.Generator, count: int, max_step: Fraction = Fraction(2)
) -> Iterator[tuple[NoisyQuadratic, Fraction]]:
    """Random (problem, rate) in exact rationals with 0 < αa_i < max_step, n from 1 to 5."""

    def fraction(low: int, high: int) -> Fraction:
        return Fraction(int(rng.integers(low, high)), int(rng.integers(1, 12)))

    for _ in range(count):
        n = int(rng.integers(1, 6))
        a = [fraction(1, 30) for _ in range(n)]
        v = [fraction(1, 20) for _ in range(n)]
        x0 = [fraction(-20, 21) for _ in range(n)]
        share = Fraction(int(rng.integers(1, 1000)), 1000)
        yield NoisyQuadratic(a, v, x0), share * max_step / max(a)


@lru_cache(maxsize=8)
def stationary_pairs(rate: float, pairs: int, seed: int, device: str = "cpu") -> Ensemble:
    """Independent pairs of successive steps of SGD on the paper's quadratic, at stationarity."""
    return simulate.run(
        NoisyQuadratic.paper(),
        SGD,
        StepwiseSchedule.constant(rate, 3),
        trajectories=pairs,
        seed=seed,
        device=device,
        dtype=torch.float32,
        from_stationary=True,
    )


@lru_cache(maxsize=4)
def last_pairs(rate: float, iterations: int, runs: int, seed: int, device: str = "cpu") -> Ensemble:
    """Independent runs of SGD on the paper's quadratic from x_0 = 0; read their last pair of steps.

    The start is deterministic, so that nothing of the stationary law enters the simulation.
    """
    return simulate.run(
        NoisyQuadratic.paper(start=0.0),
        SGD,
        StepwiseSchedule.constant(rate, iterations),
        trajectories=runs,
        seed=seed,
        device=device,
    )


def standard_error(sample: np.ndarray) -> float:
    """s/√N of independent values."""
    return float(sample.std(ddof=1) / np.sqrt(sample.size))
