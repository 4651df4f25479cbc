"""A rule: what is observed, when it counts as saturated, what a drop does, and when it acts.

One frozen description serves the array loop (`autodrop.algorithm.run`) and the torch scheduler
(`autodrop.AutoDrop`). Its two moves are pure:

    state = rule.init()
    state = rule.observe(state, seen)      # where rule.observes(t): a window ended, see `observe`
    state, decision = rule.act(state)      # where rule.acts(t)

with t the number of updates done. They are two because the arXiv rule decides after the first
update of an epoch and acts after the second; `advance` is one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, NamedTuple

from autodrop.detectors import (
    Detector,
    GaussianSaturation,
    MovingAverageSaturation,
    Smoothing,
    Test,
    ThresholdSaturation,
)
from autodrop.motion import Motion, MotionDetector, Plan
from autodrop.policy import DropPolicy
from autodrop.variance_ratio import VarianceRatio

__all__ = [
    "Decision",
    "Observation",
    "Rule",
    "RuleState",
    "arxiv2021",
    "check_window",
    "nqm2024",
    "uai2024",
    "variance_ratio",
]

Observation = Literal["mean", "snapshot"]


@dataclass(frozen=True)
class RuleState:
    """memory: the detector's state. threshold: the detector's, in degrees, where it grows, else
    None. waited: windows since saturation, the saturated one counted; 0 while not armed."""

    memory: Any
    threshold: float | None = None
    waited: int = 0


class Decision(NamedTuple):
    """drop: lower the rates now. weight: of this iterate in the average, 0 while not waiting."""

    drop: bool
    weight: int


@dataclass(frozen=True)
class Rule:
    """A window, a detector, a drop policy, and what stands for a window.

    window: k, updates per window (for "snapshot": per epoch).
    detector: an instance of one of `autodrop.detectors`, or of your own, which sees radians, or
        with `observes = "motion"` the `autodrop.motion.Motion` of windows that are means.
    policy: what a drop does, and how long after saturation.
    observation: "mean", the mean of x_t over t = ik … (i+1)k−1, x_0 the start (Definition 3.3 of
        the UAI paper, p. 3606); the window is closed and the rule acts after update (i+1)k.
        "snapshot", the iterate after the first update of window i, t = ik+1 (arXiv 2111.15317);
        the rule acts after the second, t = ik+2, so window ≥ 2. `policy.average` is for snapshots
        only.

    T updates close ⌊T/k⌋ windows, or ⌊(T−1)/k⌋+1 snapshots; three windows give the first angle.

    Raises TypeError for what is no detector, or none whose threshold can grow where
    `policy.max_threshold` is given; ValueError for a window or an observation out of range, for
    averages of windows that are no snapshots, and for a threshold above max_threshold.
    """

    window: int = 64
    detector: Detector | MotionDetector = field(default_factory=GaussianSaturation)
    policy: DropPolicy = field(default_factory=DropPolicy)
    observation: Observation = "mean"

    def __post_init__(self) -> None:
        if self.observation not in ("mean", "snapshot"):
            raise ValueError(f"observation must be 'mean' or 'snapshot', got {self.observation!r}")
        check_window(self.window, self.observation)
        if isinstance(self.detector, type):
            raise TypeError(
                f"detector must be an instance, such as {self.detector.__name__}(), "
                f"got the class {self.detector.__name__}"
            )
        if not (
            callable(getattr(self.detector, "init", None)) and hasattr(self.detector, "update")
        ):
            raise TypeError(
                f"detector must have init() and update(state, angle), got {self.detector!r}"
            )
        if self.sees_motion and self.observation != "mean":
            raise ValueError(
                f"a detector of motion needs observation = 'mean', got {self.observation!r} for "
                f"{self.detector!r}"
            )
        if self.policy.average and self.observation != "snapshot":
            raise ValueError(
                "average needs observation = 'snapshot': replacing the parameters breaks a window "
                f"mean, got observation = {self.observation!r}"
            )
        if self.policy.max_threshold is not None:
            if not (is_dataclass(self.detector) and hasattr(self.detector, "threshold")):
                raise TypeError(
                    "max_threshold needs a detector that is a dataclass with a threshold, "
                    f"got {self.detector!r}"
                )
            if self.detector.threshold > self.policy.max_threshold:
                raise ValueError(
                    f"threshold must be <= max_threshold, got {self.detector.threshold!r} > "
                    f"{self.policy.max_threshold!r}"
                )

    @property
    def sees_motion(self) -> bool:
        """Whether the detector takes a `Motion`, not an angle."""
        return getattr(self.detector, "observes", "angle") == "motion"

    def plan(self, state: RuleState) -> Plan:
        """What a detector of motion wants measured at the end of the next window."""
        if not self.sees_motion:
            return Plan()
        detector: Any = self.detector
        plan: Plan = detector.plan(state.memory, self.window)
        return plan

    def observes(self, t: int) -> bool:
        """Whether a window ends with update t ≥ 1."""
        return t % self.window == (0 if self.observation == "mean" else 1)

    def acts(self, t: int) -> bool:
        """Whether the rates may drop after update t ≥ 1."""
        return t % self.window == (0 if self.observation == "mean" else 2 % self.window)

    def windows(self, t: int) -> int:
        """How many windows t updates have closed; the last closed one has this number − 1."""
        return t // self.window if self.observation == "mean" else -(-t // self.window)

    def init(self) -> RuleState:
        """The state before the first window: nothing seen, not waiting."""
        grows = self.policy.max_threshold is not None
        threshold = getattr(self.detector, "threshold", None) if grows else None
        return RuleState(self.detector.init(), threshold)

    def observe(self, state: RuleState, seen: float | Motion | None) -> RuleState:
        """One more window: its angle in radians or its `Motion`, as the detector takes it; or None.

        None is for a window that has none. It counts for the waiting time only; a detector of
        motion is told, and starts afresh. A detector sees every window, waiting or not. Raises what
        it raises: ValueError for an angle outside [0, π].
        """
        memory, saturated = state.memory, False
        if seen is not None or self.sees_motion:
            detector: Any = self._detector(state)
            memory, saturated = detector.update(memory, seen)
        waited = state.waited + 1 if state.waited or saturated else 0
        return RuleState(memory, state.threshold, waited)

    def act(self, state: RuleState) -> tuple[RuleState, Decision]:
        """Drop if the waiting time is over; then only the count and the threshold change."""
        drop = state.waited >= max(self.policy.wait, 1)
        decision = Decision(drop, state.waited)
        if not drop:
            return state, decision
        threshold = None if state.threshold is None else self.policy.grown(state.threshold)
        return RuleState(state.memory, threshold, 0), decision

    def advance(self, state: RuleState, seen: float | Motion | None) -> tuple[RuleState, Decision]:
        """`observe`, then `act`: the rule as a function of a sequence of windows."""
        return self.act(self.observe(state, seen))

    def forget(self, state: RuleState) -> RuleState:
        """The state before any window, but for a threshold that has grown, or a count of stages."""
        fresh = replace(self.init(), threshold=state.threshold)
        return replace(fresh, memory=self.restart(state).memory) if self.sees_motion else fresh

    def restart(self, state: RuleState) -> RuleState:
        """For a detector of motion: the state from which to measure anew, in the same stage."""
        detector: Any = self.detector
        return replace(state, memory=detector.restart(state.memory))

    def _detector(self, state: RuleState) -> Detector | MotionDetector:
        detector: Any = self.detector
        return detector if state.threshold is None else replace(detector, threshold=state.threshold)


def uai2024(
    window: int = 64,
    factor: float = 0.95,
    min_lr: float | Sequence[float] = 0.0,
    *,
    threshold: float = 0.1,
    buffer: int = 10,
    smoothing: Smoothing = "time",
    test: Test = "signed",
) -> Rule:
    """Algorithm 1 of UAI 2024 (p. 3607), with the defaults of its Section 4.1 (p. 3608).

    window: k updates, 64 for CIFAR, 640 for ImageNet. factor, min_lr: ρ and α̲, see `DropPolicy`.
    threshold: degrees. buffer, smoothing, test: see `GaussianSaturation`.
    Raises TypeError or ValueError as those two and `Rule` do.
    """
    detector = GaussianSaturation(threshold, buffer, smoothing, test)
    return Rule(window, detector, DropPolicy(factor, min_lr))


def arxiv2021(
    window: int,
    factor: float = 0.2,
    min_lr: float | Sequence[float] = 1e-4,
    *,
    threshold: float = 0.01,
    max_threshold: float = 1.0,
    wait: int = 20,
    average: bool = False,
) -> Rule:
    """The rule of arXiv 2111.15317 (2021): one snapshot an epoch, |ω_i − ω_{i−1}| < θ, wait, drop.

    window: updates per epoch, ≥ 2. factor: 0.2 for CIFAR, 0.1 for ImageNet. min_lr: the floor.
    threshold, max_threshold: θ and its ceiling, degrees. wait: epochs from saturation to the drop.
    average: its optional variance reduction. See `ThresholdSaturation` and `DropPolicy`.
    Raises TypeError or ValueError as those two and `Rule` do.
    """
    policy = DropPolicy(factor, min_lr, wait, max_threshold, average)
    return Rule(window, ThresholdSaturation(threshold), policy, "snapshot")


def nqm2024(
    factor: float = 0.5,
    min_lr: float | Sequence[float] = 0.001,
    *,
    threshold: float = 0.01,
    length: int = 20,
    test: Test = "absolute",
) -> Rule:
    """The rule of UAI 2024, Section 3 (p. 3607), for the noisy quadratic model: window 1.

    Its first rate there is 0.06. factor, min_lr: see `DropPolicy`. threshold: degrees. length,
    test: see `MovingAverageSaturation`. Raises TypeError or ValueError as those two do.
    """
    detector = MovingAverageSaturation(threshold, length, test)
    return Rule(1, detector, DropPolicy(factor, min_lr))


def variance_ratio(
    window: int = 64,
    factor: float = VarianceRatio.factor,
    min_lr: float | Sequence[float] = 0.0,
    *,
    level: float = 0.05,
    per_stage: bool = False,
) -> Rule:
    """Drop to a quarter once the iterates get no further: a multi-scale test, not of the paper.

    window: k updates; it says how often a test may be made. factor, min_lr: see `DropPolicy`.
    level, per_stage: see `VarianceRatio`. Raises TypeError or ValueError as those two do.
    """
    return Rule(window, VarianceRatio(level, per_stage=per_stage), DropPolicy(factor, min_lr))


def check_window(window: int, observation: Observation) -> None:
    """Raises ValueError unless window is an integer ≥ 1, ≥ 2 for snapshots."""
    least = 1 if observation == "mean" else 2
    if isinstance(window, bool) or not isinstance(window, int) or window < least:
        raise ValueError(
            f"window must be an integer >= {least} for observation = {observation!r}, "
            f"got {window!r}"
        )
