"""Error probabilities of the Monte-Carlo tests.

A test compares m sample means with m expectations and rejects when one |z| exceeds `critical_z`.
By Bonferroni it does so with at most the stated probability when all expectations are right,
whatever the dependence of the means. It sees a discrepancy of `detectable(…)` in any one of them
with a probability of 99.9 %.
"""

import numpy as np
from scipy.stats import norm

FALSE_ALARM = 1e-6
MISS = 1e-3


def critical_z(comparisons):
    """z with P(max |z_i| > z) ≤ FALSE_ALARM over `comparisons` standard normal z_i."""
    return float(norm.isf(FALSE_ALARM / (2 * comparisons)))


def standard_error(samples):
    """Of the mean over the last axis."""
    return samples.std(axis=-1, ddof=1) / np.sqrt(samples.shape[-1])


def z_scores(samples, expected):
    """(mean − expected)/standard error over the last axis."""
    return (samples.mean(axis=-1) - expected) / standard_error(samples)


def detectable(samples, comparisons):
    """The discrepancy that a test of `comparisons` means finds with probability 1 − MISS."""
    return (critical_z(comparisons) + norm.isf(MISS)) * standard_error(samples)
