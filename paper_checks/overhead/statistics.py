"""Medians of paired ratios, with intervals that assume no law of the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy import stats

__all__ = ["Estimate", "median_of", "mixture", "paired"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; low and high are None where the values are too few for one."""

    value: float
    low: float | None
    high: float | None

    def __format__(self, spec: str) -> str:
        """The number and, in brackets, its interval."""
        if self.low is None or self.high is None:
            return format(self.value, spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def median_of(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The median, and the interval between two order statistics that covers it.

    For independent values of any one law it covers the law's median with at least that confidence.
    The values of a benchmark follow each other in time, so that the confidence is nominal.
    At 0.95 it takes six values, at 0.975 seven. Raises ValueError for no value.
    """
    if not values:
        raise ValueError("values must hold at least one number, got none")
    found = stats.quantile_test(np.asarray(values), p=0.5).confidence_interval(confidence)
    known = bool(np.isfinite(found.low) and np.isfinite(found.high))
    return Estimate(
        median(values), float(found.low) if known else None, float(found.high) if known else None
    )


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The median of the quotients within a round, with its interval at 0.95.

    Raises ValueError unless there are as many of both.
    """
    return median_of([a / b for a, b in zip(numerators, denominators, strict=True)])


def mixture(often: Sequence[float], seldom: Sequence[float], share: float) -> Estimate:
    """(1 − share)·median of `often` + share·median of `seldom`, with its interval at 0.95.

    Both medians have intervals at 0.975, so that they hold together (Bonferroni). share is in
    [0, 1]; what has no weight need not have values.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must satisfy 0 <= share <= 1, got {share}")
    if share in (0, 1):
        return median_of(seldom if share else often)
    a, b = median_of(often, 0.975), median_of(seldom, 0.975)
    low = high = None
    if a.low is not None and b.low is not None and a.high is not None and b.high is not None:
        low = (1 - share) * a.low + share * b.low
        high = (1 - share) * a.high + share * b.high
    return Estimate((1 - share) * a.value + share * b.value, low, high)
