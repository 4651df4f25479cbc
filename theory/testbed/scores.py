"""Regret, and how it is summarised: risk over the oracle's, with intervals over trajectories.

The regret of a contender on an instance at a horizon is mean risk/oracle risk, a *cell*.  Over many
cells it is summarised by geometric mean, median and 90th percentile.  Intervals come from the
bootstrap over trajectories: each instance is resampled by itself, and all horizons of a trajectory
together.  Regrets pooled over the horizons of one run judge it at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["RESAMPLES", "Estimate", "Regrets", "Summary", "regrets"]

Array = NDArray[np.float64]

RESAMPLES = 400


@dataclass(frozen=True)
class Estimate:
    """A value with the 95 % interval of the bootstrap."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Array) -> Estimate:
        """With the quantiles of the resampled values; none for exact values."""
        low, high = np.quantile(resampled, [0.025, 0.975])
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Summary:
    """Of the regrets of many cells."""

    geometric: Estimate
    median: Estimate
    percentile90: Estimate
    cells: int


@dataclass(frozen=True, eq=False)
class Regrets:
    """Of one contender on one instance.

    value : (H,), at each horizon.   resampled : (RESAMPLES, H).
    """

    value: Array
    resampled: Array

    @classmethod
    def exact(cls, value: ArrayLike) -> Regrets:
        """Without sampling: every resample is the value."""
        value = np.asarray(value, dtype=np.float64)
        return cls(value, np.broadcast_to(value, (RESAMPLES, *value.shape)))

    def at(self, h: int) -> Regrets:
        """At one horizon alone."""
        return Regrets(self.value[h : h + 1], self.resampled[:, h : h + 1])

    def below(self, bound: float) -> NDArray[np.bool_]:
        """(H,): whether the whole interval, at 1 − 10⁻³ by the normal law, lies below `bound`.

        The bootstrap of a mean is normal but for the skewness of few trajectories.
        """
        return self.value + 3.3 * self.resampled.std(axis=0) < bound


def regrets(risk: ArrayLike, oracle: ArrayLike, seed: int) -> Regrets:
    """Mean risks over the oracle's.

    risk : (S, H), of S trajectories.   oracle : (H,), > 0.   seed : of the resamples.
    """
    risk, oracle = (np.asarray(x, dtype=np.float64) for x in (risk, oracle))
    if risk.ndim != 2 or oracle.shape != risk.shape[1:] or not (oracle > 0).all():
        raise ValueError(
            f"risk must be (S, H) and oracle (H,) > 0, got shapes {risk.shape} and {oracle.shape}"
        )
    S = len(risk)
    chosen = np.random.default_rng(seed).multinomial(S, np.full(S, 1 / S), size=RESAMPLES)
    return Regrets(risk.mean(axis=0) / oracle, np.einsum("bs,sh->bh", chosen / S, risk) / oracle)


def summarise(found: list[Regrets]) -> Summary:
    """Over all cells: every horizon of every instance."""
    if not found:
        raise ValueError("found must hold at least one instance, got none")
    value = np.concatenate([each.value for each in found])
    resampled = np.concatenate([each.resampled for each in found], axis=1)
    return Summary(
        Estimate.of(np.exp(np.log(value).mean()), np.exp(np.log(resampled).mean(axis=1))),
        Estimate.of(np.median(value), np.median(resampled, axis=1)),
        Estimate.of(np.quantile(value, 0.9), np.quantile(resampled, 0.9, axis=1)),
        len(value),
    )
