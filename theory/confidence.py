"""Tests of E X ≤ m and lower confidence bounds of E X for i.i.d. X ≥ 0, unbounded above.

The gaps f(x_t) − f* of simulated trajectories are such X: no range, and no variance need be known.
For λ in [0, 1] and E X ≤ m the wealth

    K_n(λ) = Π_{i≤n} (1 + λ(X_i/m − 1))

of somebody who bets on X > m is ≥ 0 and a supermartingale of mean ≤ 1, and so is its average over
a fixed grid of λ.  By Ville's inequality P(sup_n K_n ≥ 1/a) ≤ a: the tests hold at every sample
size, and also when one looks after each sample.  E X ≥ m is not testable without an upper bound
of X, so there are no upper confidence bounds here.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
86 (2024) 1–27, whose capital process needs X ≥ 0 only for this one side; Ville (1939).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["detectable_factor", "evidence_against", "lower_confidence_bound"]

# λ = 1, 2^{-1/2}, …, 2^{-31/2}: the best λ is about (E X − m) m/Var X, and a grid of 32 costs at
# most log 32 = 3.5 of the log wealth of the best of them.
_LOG_BETS = -0.5 * math.log(2) * np.arange(32)
_BISECTION_ACCURACY = 1e-6  # relative, of the bound; on its conservative side


def _samples(samples: ArrayLike) -> NDArray[np.float64]:
    X = np.asarray(samples, dtype=np.float64)
    if X.ndim != 1:
        raise ValueError(f"samples must have one axis, got shape {X.shape}")
    bad = ~((X >= 0) & np.isfinite(X))
    if bad.any():
        raise ValueError(f"samples must be finite and >= 0, got {X[bad][0]}")
    return X


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must satisfy 0 < {name} < 1, got {value}")


def _log(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """log X, −∞ at 0."""
    return np.log(X, out=np.full_like(X, -np.inf), where=X > 0)


def _largest_log_wealth(log_samples: NDArray[np.float64], log_bound: float) -> float:
    """max_{n≥0} log mean_λ K_n(λ), with log K = Σ log((1−λ) + λX/m) from logarithms alone."""
    total = np.full(len(log_samples), -np.inf)
    for log_bet in _LOG_BETS:
        keep = math.log(-math.expm1(log_bet)) if log_bet else -math.inf
        total = np.logaddexp(
            total, np.cumsum(np.logaddexp(keep, log_bet + (log_samples - log_bound)))
        )
    return max(0.0, float(total.max(initial=-np.inf)) - math.log(len(_LOG_BETS)))


def evidence_against(samples: ArrayLike, bound: float) -> float:
    """max_n log K_n against E X ≤ bound; by Ville P(evidence ≥ log(1/a)) ≤ a if E X ≤ bound.

    Parameters
    ----------
    samples : X_1 … X_n, independent with one law, in an order that does not depend on their
        values; shape (n,), n ≥ 0, each ≥ 0.
    bound : m ≥ 0, in the units of X.

    Returns
    -------
    Nats, ≥ 0 (no sample: 0); ∞ if bound = 0 and a sample is positive.

    Raises
    ------
    ValueError
        If a sample is negative or not finite, or bound is negative or not a number.
    """
    X = _samples(samples)
    if not 0 <= bound <= math.inf:
        raise ValueError(f"bound must be >= 0, got {bound}")
    if bound == 0:
        return math.inf if (X > 0).any() else 0.0
    return 0.0 if math.isinf(bound) else _largest_log_wealth(_log(X), math.log(bound))


def lower_confidence_bound(samples: ArrayLike, error_probability: float) -> float:
    """The largest m such that E X ≤ m is rejected: P(E X ≤ it and it > 0) ≤ error_probability.

    K_n falls as m grows, so what is rejected is an interval, found by bisection of log m to a
    relative 1e-6; the value returned is itself rejected.  0 if nothing is.

    Parameters
    ----------
    samples : as for `evidence_against`.
    error_probability : a, 0 < a < 1.

    Raises
    ------
    ValueError
        If a sample is negative or not finite, or a is out of range.
    """
    X = _samples(samples)
    _check_probability("error_probability", error_probability)
    if not (X > 0).any():
        return 0.0
    log_samples, needed = _log(X), -math.log(error_probability)

    def rejected(log_bound: float) -> bool:
        return _largest_log_wealth(log_samples, log_bound) >= needed

    high = float(log_samples.max())  # no factor exceeds 1 there
    width = 1.0
    while not rejected(high - width):
        high -= width
        width *= 2
    low = high - width
    while high - low > _BISECTION_ACCURACY:
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return math.exp(low)


def detectable_factor(samples: ArrayLike, bound: float, error_probability: float) -> float:
    """c = bound/lower_confidence_bound: from which factor c on the samples cX reject the bound.

    It says what "no violation of the bound is detected" is worth: a c of 1.1 means that gaps 10 %
    larger would have been a detected violation.  Below 1 (to the accuracy of the bisection) the
    bound is rejected as it is; ∞ if no factor is enough, as when all samples are 0.

    Raises
    ------
    ValueError
        As `lower_confidence_bound`, or if bound is not positive and finite.
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"bound must be positive and finite, got {bound}")
    lowest = lower_confidence_bound(samples, error_probability)
    return bound / lowest if lowest > 0 else math.inf
