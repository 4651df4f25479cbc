"""Rival rules that test for stationarity, each from its source, for many trajectories at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.testbed.contenders import Observation, Observe, lowered, row_dot

__all__ = ["Distance", "GradientProducts", "WeightNorm"]

Array = NDArray[np.float64]

_TINY = float(np.finfo(np.float64).tiny)  # a stage whose rate is too small to move at all


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor must satisfy 0 < factor < 1, got {factor}")


@dataclass(frozen=True)
class GradientProducts:
    """Pflug's statistic: drop when Σ ⟨G_t, G_{t−1}⟩ since the burn-in is negative.

    burn_in : updates after the start and after each drop that only give the first gradient.

    Sources: Pflug, "Non-asymptotic confidence bounds for stochastic approximation algorithms with
    constant step size", Monatsh. Math. 110 (1990) 297–314; Chee and Toulis, "Convergence
    diagnostics for stochastic gradient descent with constant learning rate", AISTATS 2018,
    Algorithm 1, which halves.
    """

    burn_in: int = 100
    factor: float = 0.5
    name: str = ""

    def __post_init__(self) -> None:
        checks.positive_integer("burn_in", self.burn_in)
        _check_factor(self.factor)
        if not self.name:
            label = f"Pflug burn-in={self.burn_in} ρ={self.factor:g}"
            object.__setattr__(self, "name", label)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        S = len(weights)
        total, age = np.zeros(S), np.zeros(S, dtype=np.int64)
        last: Array | None = None

        def observe(seen: Observation) -> Array | None:
            nonlocal total, last, age
            age += 1
            if last is not None:
                total = np.where(age > self.burn_in, total + row_dot(seen.gradient, last), 0.0)
            last = seen.gradient.copy()
            drop = total < 0
            if not drop.any():
                return None
            total[drop], age[drop] = 0.0, 0
            return lowered(drop, self.factor, seen.rates)

        return observe


@dataclass(frozen=True)
class Distance:
    """‖x_m − x_0‖², x_0 where the stage began: drop when its log-log slope falls below a threshold.

    The slope is taken between m = ⌈qʲ⌉ and ⌈qʲ⁻¹⌉ updates since the last drop, j ≥ first + 1.

    ratio : q > 1.  first : the exponent k_0 ≥ 1 of the burn-in q^{k_0}.  threshold : in (0, 2].

    Source: Pesme, Dieuleveut and Flammarion, "On convergence-diagnostic based step sizes for
    stochastic gradient descent", ICML 2020: q = 1.5, k_0 = 5, threshold 0.6, halving.
    """

    ratio: float = 1.5
    first: int = 5
    threshold: float = 0.6
    factor: float = 0.5
    name: str = ""

    def __post_init__(self) -> None:
        checks.positive_integer("first", self.first)
        _check_factor(self.factor)
        if not self.ratio > 1:
            raise ValueError(f"ratio must be > 1, got {self.ratio}")
        if not 0 < self.threshold <= 2:
            raise ValueError(f"threshold must satisfy 0 < threshold <= 2, got {self.threshold}")
        if not self.name:
            label = f"distance threshold={self.threshold:g} ρ={self.factor:g}"
            object.__setattr__(self, "name", label)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        S = len(weights)
        origin, age = weights.copy(), np.zeros(S, dtype=np.int64)
        exponent = np.full(S, self.first)
        due = np.full(S, math.ceil(self.ratio**self.first))
        before, before_age = np.full(S, np.nan), np.ones(S)

        def observe(seen: Observation) -> Array | None:
            nonlocal age
            age += 1
            at = np.flatnonzero(age == due)
            if not len(at):
                return None
            x = seen.weights
            moved = x[at] - origin[at]
            now = np.log(np.maximum(row_dot(moved, moved), _TINY))
            slope = (now - before[at]) / np.log(age[at] / before_age[at])  # nan at first
            before[at], before_age[at] = now, age[at]
            exponent[at] += 1
            due[at] = np.maximum(np.ceil(self.ratio ** exponent[at]), age[at] + 1)
            drop = np.zeros(S, dtype=bool)
            drop[at] = slope < self.threshold
            if drop.any():
                origin[drop], age[drop] = x[drop], 0
                exponent[drop], before[drop] = self.first, np.nan
                due[drop] = math.ceil(self.ratio**self.first)
            return lowered(drop, self.factor, seen.rates)

        return observe


@dataclass(frozen=True)
class WeightNorm:
    """ABEL: drop when ‖x‖² has turned twice, at its minimum and at the next maximum, over epochs.

    window : updates per epoch.  Its last decay, near the end of training, needs the horizon and is
    left out.

    Source: Lewkowycz, "How to decay your learning rate", arXiv 2103.12682 (2021).
    """

    window: int = 64
    factor: float = 0.1
    name: str = ""

    def __post_init__(self) -> None:
        checks.positive_integer("window", self.window)
        _check_factor(self.factor)
        if not self.name:
            object.__setattr__(self, "name", f"ABEL k={self.window} ρ={self.factor:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        norms = [row_dot(weights, weights)]
        reached = np.zeros(len(weights), dtype=bool)

        def observe(seen: Observation) -> Array | None:
            nonlocal reached
            if seen.updates % self.window:
                return None
            x = seen.weights
            norms.append(row_dot(x, x))
            if len(norms) < 3:
                return None
            del norms[:-3]
            turned = (norms[2] - norms[1]) * (norms[1] - norms[0]) < 0
            drop = turned & reached
            reached = np.where(turned, ~reached, reached)
            return lowered(drop, self.factor, seen.rates)

        return observe
