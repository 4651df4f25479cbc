"""When has the angular velocity saturated? Three answers, as pure functions of a stream of angles.

A fourth, `VarianceRatio`, asks whether the iterates have settled, of more than angles.

A detector is a frozen dataclass with

    state = detector.init()
    state, saturated = detector.update(state, angle)    # angle in radians, in [0, π]

and no memory of its own: states are frozen dataclasses of floats and tuples, so that one detector
serves any number of trajectories and its state is saved like any number. Angles are radians;
thresholds, which a user reads and sets, are degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from autodrop.checks import check_integer, check_number
from autodrop.variance_ratio import VarianceRatio, VarianceRatioState

__all__ = [
    "Detector",
    "GaussianSaturation",
    "GaussianState",
    "MovingAverageSaturation",
    "MovingAverageState",
    "Smoothing",
    "Test",
    "ThresholdSaturation",
    "ThresholdState",
    "VarianceRatio",
    "VarianceRatioState",
]

Smoothing = Literal["time", "value"]
Test = Literal["signed", "absolute"]


class Detector(Protocol):
    """What `AutoDrop(detector=...)` asks of a detector; anything with these two methods will do.

    A state should be a dataclass, or a plain value, made of numbers, strings and tuples: then
    checkpoints stay loadable with `torch.load(weights_only=True)`. For a threshold that grows at
    every drop (`DropPolicy.max_threshold`) the detector must be a dataclass with a `threshold`.

    For one that sees more than angles see `autodrop.motion.MotionDetector`. A `factor` that a
    detector has, as `VarianceRatio` does, is `AutoDrop`'s default.
    """

    def init(self) -> Any:
        """The state before the first angle."""
        ...

    def update(self, state: Any, angle: float) -> tuple[Any, bool]:
        """The state after one more angle (radians), and whether the angles have saturated."""
        ...


@dataclass(frozen=True)
class GaussianState:
    """The buffer B of Algorithm 1 and the last smoothed angle C_{i−1}, in radians."""

    angles: tuple[float, ...] = ()
    smoothed: float | None = None


@dataclass(frozen=True)
class GaussianSaturation:
    """C_i − C_{i−1} < threshold, C_i the last of `buffer` angles after Gaussian smoothing.

    Algorithm 1 of the UAI paper (p. 3607). Every angle enters the buffer B. When it holds m
    angles, C_i = Σ_j K_j ω_j / Σ_j K_j over all of B, K_j = exp(−d_j²/2σ²), σ = min(std(B), m/2)
    with the population standard deviation in degrees; then B loses its oldest angle. σ = 0 gives
    the limit, the last angle itself. Saturation empties B and C: the next can be reported after
    m + 1 more angles.

    threshold: degrees, > 0. buffer: m ≥ 2.
    smoothing: d_j is the age of ω_j in windows ("time") or its difference from the last angle in
        degrees ("value"). The paper's text allows both.
    test: "signed", as printed, fires on every fall of C as well; "absolute" takes |C_i − C_{i−1}|.

    Deviations from the printed formulas, which cannot be meant: they sum x_t where x_{t+i} is
    needed (the identity otherwise), give the kernel's exponent the sign +, and centre the filter
    on an angle whose successors are not known yet.

    Raises TypeError for a threshold that is no number, ValueError for parameters out of range.
    """

    threshold: float = 0.1
    buffer: int = 10
    smoothing: Smoothing = "time"
    test: Test = "signed"

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        check_integer("buffer", self.buffer, 2)
        if self.smoothing not in ("time", "value"):
            raise ValueError(f"smoothing must be 'time' or 'value', got {self.smoothing!r}")
        _check_test(self.test)

    def init(self) -> GaussianState:
        """B = {} and no C: the state before the first angle, and after saturation."""
        return GaussianState()

    def update(self, state: GaussianState, angle: float) -> tuple[GaussianState, bool]:
        """The state after ω_i = `angle` (radians), and whether C_i − C_{i−1} < threshold.

        Raises ValueError for an angle outside [0, π], as degrees and nan are.
        """
        B = (*state.angles, _checked(angle))
        if len(B) < self.buffer:
            return GaussianState(B, state.smoothed), False
        C = self.smooth(B)
        if state.smoothed is not None and _below(C - state.smoothed, self.threshold, self.test):
            return GaussianState(), True
        return GaussianState(B[1:], C), False

    def smooth(self, angles: tuple[float, ...]) -> float:
        """Σ_j K_j ω_j / Σ_j K_j, the last of the angles smoothed over all of them, in radians."""
        m, last = len(angles), angles[-1]
        mean = math.fsum(angles) / m
        std = math.degrees(math.sqrt(math.fsum((ω - mean) * (ω - mean) for ω in angles) / m))
        σ = min(std, m / 2)
        if σ == 0.0:
            return last
        if self.smoothing == "time":
            d = [(m - 1 - j) / σ for j in range(m)]
        else:
            d = [math.degrees(last - ω) / σ for ω in angles]
        K = [math.exp(-0.5 * z * z) for z in d]
        # Sums x_{t+i}, not x_t as printed. As a correction to the last angle, equal angles give
        # exactly that angle.
        correction = math.fsum(w * (ω - last) for w, ω in zip(K, angles, strict=True))
        return last + correction / math.fsum(K)


@dataclass(frozen=True)
class ThresholdState:
    """The angle before, in radians."""

    previous: float | None = None


@dataclass(frozen=True)
class ThresholdSaturation:
    """|ω_i − ω_{i−1}| < threshold.

    The rule of the first version of the paper, arXiv 2111.15317 (2021); threshold in degrees, > 0.
    The memory is one angle and survives saturation, as in the authors' epoch loop.

    Raises TypeError for a threshold that is no number, ValueError for one out of range.
    """

    threshold: float = 0.01

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)

    def init(self) -> ThresholdState:
        """No ω_{i−1}: the state before the first angle."""
        return ThresholdState()

    def update(self, state: ThresholdState, angle: float) -> tuple[ThresholdState, bool]:
        """The state after ω_i = `angle` (radians), and whether |ω_i − ω_{i−1}| < threshold.

        Raises ValueError for an angle outside [0, π], as degrees and nan are.
        """
        ω = _checked(angle)
        saturated = state.previous is not None and _below(
            ω - state.previous, self.threshold, "absolute"
        )
        return ThresholdState(ω), saturated


@dataclass(frozen=True)
class MovingAverageState:
    """The last angles, at most `length` of them, in radians."""

    angles: tuple[float, ...] = ()


@dataclass(frozen=True)
class MovingAverageSaturation:
    """|mean(ω_{i−L+1} … ω_i) − mean(ω_{i−L} … ω_{i−1})| < threshold, L = `length`.

    The rule of Section 3 of the UAI paper (p. 3607): the change of the angle between consecutive
    iterations, averaged over L of them. The two means share all but their end terms, so the left
    side is |ω_i − ω_{i−L}|/L and that is what is computed. It needs L + 1 angles, and saturation
    empties the memory.

    threshold: degrees, > 0. length: L ≥ 1. test: "absolute", or "signed" for the change itself.

    Raises TypeError for a threshold that is no number, ValueError for parameters out of range.
    """

    threshold: float = 0.01
    length: int = 20
    test: Test = "absolute"

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        check_integer("length", self.length, 1)
        _check_test(self.test)

    def init(self) -> MovingAverageState:
        """No angles: the state before the first one, and after saturation."""
        return MovingAverageState()

    def update(self, state: MovingAverageState, angle: float) -> tuple[MovingAverageState, bool]:
        """The state after ω_i = `angle` (radians), and whether |ω_i − ω_{i−L}|/L < threshold.

        Raises ValueError for an angle outside [0, π], as degrees and nan are.
        """
        ω = _checked(angle)
        if len(state.angles) < self.length:
            return MovingAverageState((*state.angles, ω)), False
        if _below((ω - state.angles[0]) / self.length, self.threshold, self.test):
            return MovingAverageState(), True
        return MovingAverageState((*state.angles[1:], ω)), False


def _below(change: float, threshold: float, test: Test) -> bool:
    degrees = math.degrees(change)
    return (abs(degrees) if test == "absolute" else degrees) < threshold


def _checked(angle: float) -> float:
    if not 0.0 <= angle <= math.pi:
        raise ValueError(f"angle must be in radians, in [0, π], got {angle!r}")
    return float(angle)


def _check_threshold(threshold: float) -> None:
    check_number("threshold", threshold, "finite and > 0 degrees", lambda θ: 0.0 < θ < math.inf)


def _check_test(test: str) -> None:
    if test not in ("signed", "absolute"):
        raise ValueError(f"test must be 'signed' or 'absolute', got {test!r}")
