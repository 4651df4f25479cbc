"""Drop rules that see the exact angle, or the exact risk: what sensing that event can give at best.

A rule that measures the angle of successive steps sees its expectation through noise.  Here it sees
the expectation itself (the ratio angle), knows the limit that it approaches, and drops by a factor
ρ once the two are close enough: for tuned ρ, closeness and window, no rule that drops when the
angle saturates is given more.  Beside it stand the rule that sees the exact risk and its floor, and
a clock, which sees nothing.

All are deterministic: a rule and a problem make one schedule, by the exact moments.  What it is
worth against the oracles is in `theory.ideal_regrets`.

Source: UAI 2024, Section 3 (drop by ρ when the angle saturates), with expectations for angles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory import angle_noise, checks
from theory.methods import UnifiedMomentum
from theory.one_rate import OneRate, at_one_rate
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["AngleAtLimit", "Clock", "IdealRule", "RiskAtFloor", "Stages", "Window", "realised"]

Array = NDArray[np.float64]
Unit = Literal["way", "radians", "deviations"]

_CHUNK = 64  # windows or iterations looked at together
_STILL = 1e-6  # of αa_max · (iterations left): what is left moves nothing, dropping or not


@dataclass(frozen=True)
class Window:
    """k(α) = max(1, round(scale · (αa_max)^{−power})); power 0 is a fixed window of `scale`.

    Raises ValueError unless scale > 0 and power ≥ 0, both finite.
    """

    scale: float = 1.0
    power: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be finite and > 0, got {self.scale}")
        if not 0 <= self.power < math.inf:
            raise ValueError(f"power must be finite and >= 0, got {self.power}")

    def at(self, step: float) -> int:
        """k where αa_max = step."""
        return max(1, round(self.scale * step**-self.power))


def _check(factor: float, patience: float, **positive: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"factor must satisfy 0 < factor < 1, got {factor}")
    if not 1 <= patience < math.inf:
        raise ValueError(f"patience must be finite and >= 1, got {patience}")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0, got {value}")


class Stages:
    """The stages of one problem and method, each made once: `theory.one_rate` by rate and window.

    Runs of many rules on one problem meet the same rates again.
    """

    def __init__(self, problem: NoisyQuadratic, method: UnifiedMomentum) -> None:
        checks.instance("problem", problem, NoisyQuadratic)
        checks.instance("method", method, UnifiedMomentum)
        self.problem, self.method = problem, method
        self.largest = float(max(problem.curvature))
        self._made: Callable[[float, int], OneRate] = lru_cache(maxsize=256)(
            lambda rate, window: at_one_rate(problem, method, rate, window)
        )
        self._deviation: Callable[[float, int, int], float] = lru_cache(maxsize=1024)(
            lambda rate, window, average: angle_noise.angle_deviation(
                problem, rate, method, window, average
            )
        )

    def at(self, rate: float, window: int) -> OneRate:
        """The stage at this rate and window."""
        return self._made(rate, window)

    def deviation(self, rate: float, window: int, average: int) -> float:
        """`angle_noise.angle_deviation`: of the mean of `average` stationary angles, radians."""
        return self._deviation(rate, window, average)


@dataclass(frozen=True)
class AngleAtLimit:
    """Drops when the mean of the last m exact ratio angles is within a tolerance of their limit.

    tolerance, unit : > 0; of the way |limit − first angle of the stage|, in radians, or in standard
        deviations of the mean of m measured angles (`theory.angle_noise`).
    factor : ρ, 0 < ρ < 1.
    window : k by the rate.  Windows start afresh after a drop; an angle is seen at the end of its
        third window.
    average : m ≥ 1; all of them from this stage.
    patience : it drops that many times as late, ≥ 1.

    Raises ValueError for a value out of range.
    """

    tolerance: float
    factor: float
    window: Window = Window()
    unit: Unit = "way"
    average: int = 1
    patience: float = 1.0

    def __post_init__(self) -> None:
        _check(self.factor, self.patience, tolerance=self.tolerance)
        checks.positive_integer("average", self.average)
        if self.unit not in ("way", "radians", "deviations"):
            raise ValueError(f"unit must be 'way', 'radians' or 'deviations', got {self.unit!r}")

    def event(self, stages: Stages, stage: OneRate, deviation: Array, left: int) -> int | None:
        """When it is seen that the angle is there, in iterations; None if not within `left`."""
        k, tolerance = stage.window, self.tolerance
        angles = left // k - 2  # that are seen before `left` iterations are over
        if angles < 1:
            return None
        if self.unit == "way":
            tolerance *= abs(float(stage.angle(deviation)[0]) - stage.limit)
        elif self.unit == "deviations":
            tolerance *= stages.deviation(stage.rate, k, self.average)
        m = self.average
        total = np.zeros(1)  # Σ (angle − limit) over the first 0, 1, 2, … angles
        for first in range(0, angles, _CHUNK):
            off = stage.angle(deviation, first, 1, _CHUNK)[: angles - first] - stage.limit
            if m > 1:
                total = np.append(total, total[-1] + np.cumsum(off))
                ends = np.arange(max(first + 1, m), len(total))
                off = (total[ends] - total[ends - m]) / m
            near = np.flatnonzero(np.abs(off) <= tolerance)
            if near.size:
                return k * (max(first, m - 1) + int(near[0]) + 3)
        return None


@dataclass(frozen=True)
class RiskAtFloor:
    """Drops when the exact E f is at most 1 + η times its floor at this rate.

    eta : η > 0.  factor : ρ, 0 < ρ < 1.
    patience : it drops that many times as late, ≥ 1.

    It looks after every iteration.  Raises ValueError for a value out of range.
    """

    eta: float
    factor: float
    patience: float = 1.0

    def __post_init__(self) -> None:
        _check(self.factor, self.patience, eta=self.eta)

    @property
    def window(self) -> Window:
        """One iteration."""
        return Window()

    def event(self, stages: Stages, stage: OneRate, deviation: Array, left: int) -> int | None:
        """When the risk is there, in iterations ≥ 1; None if not within `left`."""
        for first in range(1, left + 1, _CHUNK):
            risk = stage.risk(deviation, first, 1, _CHUNK)[: left + 1 - first]
            near = np.flatnonzero(risk <= (1 + self.eta) * stage.floor)
            if near.size:
                return first + int(near[0])
        return None


@dataclass(frozen=True)
class Clock:
    """Drops every `period` iterations, whatever it sees.

    period : ≥ 1.  factor : ρ, 0 < ρ < 1.  Raises ValueError for a value out of range.
    """

    period: int
    factor: float

    def __post_init__(self) -> None:
        checks.positive_integer("period", self.period)
        _check(self.factor, self.patience)

    @property
    def patience(self) -> float:
        """It is not what it waits for: 1."""
        return 1.0

    @property
    def window(self) -> Window:
        """One iteration."""
        return Window()

    def event(self, stages: Stages, stage: OneRate, deviation: Array, left: int) -> int | None:
        """The period; None if fewer iterations are left."""
        return self.period if self.period <= left else None


IdealRule = AngleAtLimit | RiskAtFloor | Clock


def realised(
    stages: Stages, rule: IdealRule, *, learning_rate: float, iterations: int
) -> StepwiseSchedule:
    """The schedule that the rule makes of a run from the problem's start.

    The rule does not know the horizon: of a longer run this is the beginning.

    Parameters
    ----------
    stages : of the problem and the method.
    learning_rate : α_0; Requires 0 < αa < 2(1 + β)/(1 + 2βs), ValueError otherwise.
    iterations : T ≥ 1.

    Once αa_max times the iterations left is below 1e-6 the rate stays: nothing moves any more.
    """
    left = checks.positive_integer("iterations", iterations)
    rate = float(learning_rate)
    start = np.asarray(stages.problem.start, dtype=np.float64)
    moments = np.zeros((1 if stages.method.momentum == 0 else 3, len(start)))
    moments[0] = start**2
    rates, lengths = [], []
    while left:
        stage = stages.at(rate, rule.window.at(rate * stages.largest))
        D = stage.from_moments(moments)
        seen = None
        if rate * stages.largest * left >= _STILL:
            seen = rule.event(stages, stage, D, left)
        length = left if seen is None else min(left, math.ceil(rule.patience * seen))
        rates.append(rate)
        lengths.append(length)
        moments = stage.moments_after(D, length)
        rate, left = rate * rule.factor, left - length
    return StepwiseSchedule(rates, lengths)
