"""Paired comparisons: mean differences over seeds and intervals that hold for all of them together.

Source: Student's t for paired samples; Bonferroni's inequality for several comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean difference and its two-sided interval; n: pairs."""

    mean: float
    low: float
    high: float
    n: int

    def below(self, bound: float = 0.0) -> bool:
        """Whether all of the interval is below the bound."""
        return self.high < bound

    def above(self, bound: float = 0.0) -> bool:
        """Whether all of the interval is above the bound."""
        return self.low > bound


def difference(ours: Sequence[float], theirs: Sequence[float], comparisons: int = 1) -> Interval:
    """Mean of ours − theirs, entry by entry, with the t interval at 1 − 0.05/comparisons.

    With so many comparisons all intervals cover together with probability ≥ 95 % (for normal
    differences). Raises ValueError unless both have the same number of entries, at least 2, and
    comparisons ≥ 1.
    """
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(
            f"ours and theirs must be pairs, at least 2 of them, got {len(ours)} and {len(theirs)}"
        )
    if comparisons < 1:
        raise ValueError(f"comparisons must be >= 1, got {comparisons}")
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    n = len(d)
    t = stats.t.ppf(1 - (1 - COVERAGE) / (2 * comparisons), n - 1)
    half = float(t * d.std(ddof=1) / math.sqrt(n))
    mean = float(d.mean())
    return Interval(mean, mean - half, mean + half, n)
