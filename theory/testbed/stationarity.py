"""SASA+: a test of stationarity with a confidence interval by batch means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from theory import checks
from theory.testbed.contenders import Observation, Observe, lowered, row_dot

__all__ = ["StationarityTest"]

Array = NDArray[np.float64]


@lru_cache(maxsize=4096)
def _quantile(level: float, freedom: int) -> float:
    return float(stats.t.ppf(1 - level / 2, freedom))


@dataclass(frozen=True)
class StationarityTest:
    """SASA+: drop when 0 lies in the interval of the mean of Δ_t = ⟨x_{t+1}, d_t⟩ + ½α‖d_t‖².

    d_t = (x_t − x_{t+1})/α, so that Δ = (‖x_t‖² − ‖x_{t+1}‖²)/2α, of mean 0 at stationarity for
    every method.  The mean and its error by batch means are those of the latest 1/`keep` of the
    values since the last drop; both halves must agree in sign, and for the first drop both must
    pass alone.

    period : updates between tests.  least : values without which none is made.  level : of the
    interval.  warm_up : updates before the first drop.

    Sources: Lang, Xiao and Zhang, "Using statistics to automate stochastic optimization", NeurIPS
    2019; Zhang, Lang, Liu and Xiao, "Statistical adaptive stochastic gradient methods", arXiv
    2002.10597 (2020); the details are those of the authors' package `statopt`.
    """

    period: int = 100
    least: int = 1000
    level: float = 0.05
    factor: float = 0.1
    keep: int = 8
    warm_up: int = 1000
    name: str = ""

    def __post_init__(self) -> None:
        for each in ("period", "least", "keep"):
            checks.positive_integer(each, getattr(self, each))
        checks.positive_integer("warm_up", self.warm_up, 0)
        if not 0 < self.level < 1:
            raise ValueError(f"level must satisfy 0 < level < 1, got {self.level}")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must satisfy 0 < factor < 1, got {self.factor}")
        if not self.name:
            object.__setattr__(self, "name", f"SASA+ least={self.least} ρ={self.factor:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        S = len(weights)
        values = np.empty((1024, S))  # of all updates; rows before the oldest start are not used
        begun = np.zeros(S, dtype=np.int64)
        square = row_dot(weights, weights)
        first = np.ones(S, dtype=bool)

        def observe(seen: Observation) -> Array | None:
            nonlocal values, square
            t, x = seen.updates, seen.weights
            now = row_dot(x, x)
            if t > len(values):
                values = np.concatenate([values, np.empty_like(values)])
            values[t - 1] = (square - now) / (2 * seen.rates)
            square = now
            if t % self.period or t <= self.warm_up:
                return None
            drop = np.zeros(S, dtype=bool)
            for s in range(S):
                count = -(-(t - begun[s]) // self.keep)
                if count > self.least:
                    drop[s] = self._stationary(values[t - count : t, s], bool(first[s]))
            begun[drop], first[drop] = t, False
            return lowered(drop, self.factor, seen.rates)

        return observe

    def _stationary(self, Δ: Array, both: bool) -> bool:
        size = math.isqrt(len(Δ))
        batches = Δ[: len(Δ) // size * size].reshape(-1, size).mean(axis=1)
        mean = Δ.mean()
        deviation = math.sqrt(size / (len(batches) - 1) * ((batches - mean) ** 2).sum())
        half = deviation * _quantile(self.level, size - 1) / math.sqrt(len(Δ))
        early, late = Δ[: len(Δ) // 2].mean(), Δ[len(Δ) // 2 :].mean()
        inside = max(abs(early), abs(late)) < half if both else abs(mean) < half
        return bool(inside and early * late > 0)
