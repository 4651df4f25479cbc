"""The truth about a run: at each rate, when the angle has saturated and the risk is at its floor.

For every stage of a stepwise schedule, from the exact law with which the run enters it:

* the angle has saturated once the ratio angle of the windows inside of the stage stays within a
  fraction of what it still had to go when the stage began; and it cannot be told from saturated
  once it stays within the standard deviation of one measured angle, or of the mean of several;
* the risk has saturated once E f stays within the same fraction of its own way, and is at its floor
  once it stays below 1 + η times its stationary value.

"Stays" means from then on, were the rate kept for ever.  Times are those of the event: a stage that
ends before has not seen it.  They are exact up to a search on a grid: every time up to 2⁹ windows
or iterations, then 2⁸ for each doubling, and all between the last two that decide.

Source: property P1 of UAI 2024, p. 3605, made precise; derived.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import angle_noise, checks
from theory.methods import UnifiedMomentum
from theory.one_rate import OneRate, at_one_rate, moments_at_stages
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["StageTruth", "angle_settled", "risk_settled", "stage_truth"]

Array = NDArray[np.float64]

_FINE = 256  # times for each doubling of the time
_ROUNDING = 1e-10  # radians, or floors: what is closer than that to its limit is there
_LAST = 2**50  # iterations beyond which counting in floats would not be exact


@dataclass(frozen=True)
class StageTruth:
    """What happens at one rate; times in iterations since the stage's start.

    Angles are seen late: the first after three windows.  A time is when the third window of the
    first angle that counts is over; the risk is that of the iterate then.

    Attributes
    ----------
    start, length, rate : of the stage.
    first_angle, limit_angle : of the ratio angle, at the first three windows of the stage and at
        stationarity, radians.
    deviation, mean_deviation : of a single stationary angle, and of the mean of `average`, radians.
    angle_saturated : within `fraction` of |limit − first| from here on.
    angle_resolved : within `deviation` from here on.
    mean_resolved : within `mean_deviation` from here on.
    first_risk, floor : E f at the start and at stationarity.
    risk_saturated : |E f − floor| ≤ fraction · |first − floor| from here on.
    risk_at_floor : E f ≤ (1 + η) floor from here on.
    """

    start: int
    length: int
    rate: float
    first_angle: float
    limit_angle: float
    deviation: float
    mean_deviation: float
    angle_saturated: int
    angle_resolved: int
    mean_resolved: int
    first_risk: float
    floor: float
    risk_saturated: int
    risk_at_floor: int

    def inside(self, time: int) -> int | None:
        """The time if the stage lasted so long, else None."""
        return time if time <= self.length else None


def _settled(
    outside: Callable[[int, int, int], NDArray[np.bool_]],
    certainly_inside: Callable[[int], bool],
    largest: int,
) -> int:
    """The least t ≥ 0 such that no later time, nor t itself, is outside.

    outside(first, stride, count): at each of these times.
    certainly_inside(t): this and all later times are inside.
    """
    last, gap = -1, 1  # the last time known to be outside, and how far the next one looked at is
    first, stride, count = 0, 1, 2 * _FINE
    while True:
        seen = np.flatnonzero(outside(first, stride, count))
        if seen.size:
            last, gap = first + stride * int(seen[-1]), stride
        first += stride * count
        if certainly_inside(first):
            break
        if first > largest:
            raise OverflowError(
                f"nothing has settled within {largest} windows or iterations: the slowest mode "
                "moves too slowly"
            )
        stride, count = (1, _FINE) if first < 2 * _FINE else (first // _FINE, _FINE)
    if gap > 1:
        between = np.flatnonzero(outside(last, 1, gap))
        last += int(between[-1])
    return last + 1


def angle_settled(stage: OneRate, deviation: Array, tolerance: float) -> int:
    """The first window of this stage from which on |ratio angle − limit| ≤ tolerance, for ever.

    deviation : D where the windows are counted from, see `one_rate.OneRate`.
    tolerance : radians, > 0; ValueError otherwise.  OverflowError if the modes hardly move.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, got {tolerance}")
    limit = math.cos(stage.limit)

    def outside(first: int, stride: int, count: int) -> NDArray[np.bool_]:
        return np.abs(stage.angle(deviation, first, stride, count) - stage.limit) > tolerance

    def certain(first: int) -> bool:
        low, high = (limit + sign * stage.angle_bound(deviation, first) for sign in (-1, 1))
        angles = [math.acos(min(max(cosine, -1.0), 1.0)) for cosine in (low, high)]
        return max(abs(angle - stage.limit) for angle in angles) <= tolerance

    return _settled(outside, certain, _LAST // stage.window)


def risk_settled(
    stage: OneRate, deviation: Array, tolerance: float, *, from_below: bool = False
) -> int:
    """The first iteration from which on E f ≤ floor + tolerance, for ever.

    deviation : as for `angle_settled`.
    tolerance : in the units of f, > 0; ValueError otherwise.  OverflowError as `angle_settled`.
    from_below : also E f ≥ floor − tolerance.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, got {tolerance}")

    def outside(first: int, stride: int, count: int) -> NDArray[np.bool_]:
        above = stage.risk(deviation, first, stride, count) - stage.floor
        return (np.abs(above) if from_below else above) > tolerance

    def certain(first: int) -> bool:
        return stage.risk_bound(deviation, first) <= tolerance

    return _settled(outside, certain, _LAST)


def stage_truth(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    schedule: StepwiseSchedule,
    *,
    window: int = 1,
    fraction: float = 0.05,
    eta: float = 0.1,
    average: int = 10,
) -> tuple[StageTruth, ...]:
    """For every stage of the schedule: when the angle has saturated, and the risk is at its floor.

    Parameters
    ----------
    schedule : such as one that a rule has realised.  Windows are counted from each stage's start.
    window : k of the angle.
    fraction : in (0, 1), of |limit − first|, of angle and of risk; but a tolerance is no less than
        1e-10, radians or floors.
    eta : η > 0, the excess over the floor.
    average : m ≥ 1, the number of angles in the mean of `mean_deviation`.

    Requires every rate to be stable, and some noise; ValueError otherwise, and for arguments out of
    range, TypeError for another type.  OverflowError if a time is beyond 2⁵⁰ iterations.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must satisfy 0 < fraction < 1, got {fraction}")
    if not 0 < eta < math.inf:
        raise ValueError(f"eta must be finite and > 0, got {eta}")
    average = checks.positive_integer("average", average)
    moments = moments_at_stages(problem, method, schedule)
    found = []
    for start, rate, length, here in zip(
        schedule.boundaries[:-1], schedule.rates, schedule.lengths, moments[:-1], strict=True
    ):
        stage = at_one_rate(problem, method, rate, window)
        D = stage.from_moments(here)
        one, mean = (
            angle_noise.angle_deviation(problem, rate, method, window, m) for m in (1, average)
        )
        first = float(stage.angle(D)[0])
        share = max(fraction * abs(first - stage.limit), _ROUNDING)
        saturated, resolved, mean_resolved = (
            window * (angle_settled(stage, D, tolerance) + 3) for tolerance in (share, one, mean)
        )
        first_risk = float(stage.risk(D)[0])
        way = max(fraction * abs(first_risk - stage.floor), _ROUNDING * stage.floor)
        found.append(
            StageTruth(
                start=start,
                length=length,
                rate=stage.rate,
                first_angle=first,
                limit_angle=stage.limit,
                deviation=one,
                mean_deviation=mean,
                angle_saturated=saturated,
                angle_resolved=resolved,
                mean_resolved=mean_resolved,
                first_risk=first_risk,
                floor=stage.floor,
                risk_saturated=risk_settled(stage, D, way, from_below=True),
                risk_at_floor=risk_settled(stage, D, eta * stage.floor),
            )
        )
    return tuple(found)
