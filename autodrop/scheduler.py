"""AutoDrop as a learning rate scheduler for any torch optimizer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autodrop.averaging import WeightedAverage
from autodrop.counting import UpdateCounter
from autodrop.detectors import Detector, GaussianSaturation, Smoothing, Test
from autodrop.policy import DropEvent, DropPolicy
from autodrop.rules import Observation, Rule, RuleState, arxiv2021, uai2024
from autodrop.tracker import Accumulation, AngularVelocity
from autodrop.warning import warn

__all__ = ["AutoDrop"]


class AutoDrop(LRScheduler):
    """α ← max(min_lr, factor·α) whenever the angular velocity of the parameters saturates.

        scheduler = AutoDrop(optimizer, window=64)      # records x_0, the parameters as they are
        for x, y in batches:
            ...
            optimizer.step()
            scheduler.step()                            # once for every update

    The defaults are Algorithm 1 of the UAI 2024 paper (p. 3607); `AutoDrop.uai2024` and
    `AutoDrop.arxiv2021` spell the two published rules out, `AutoDrop.from_rule` takes any `Rule`.
    `angular_velocities` and `drops` are in degrees, as thresholds are; `AngularVelocity.update`
    and what detectors see are in radians.

    optimizer: any torch optimizer; the parameters of all its groups are tracked as one vector.
    window: k, updates per window, or per epoch with observation = "snapshot".
    factor, min_lr, wait, max_threshold, average: see `DropPolicy`; min_lr is one floor or a
        sequence with one for each parameter group.
    detector: an instance, see `autodrop.detectors`; default `GaussianSaturation()`.
    observation: see `Rule`.
    accumulation, direction, lag, stride: see `AngularVelocity`. With a lag the rates drop that many
        updates later, and nothing waits for the device in between; averages need lag = 0.
    on_drop: called with the `DropEvent` of each drop, just after the rates were lowered.
    last_epoch: leave it at -1. Any other n is for an optimizer whose loaded groups hold an
        "initial_lr" (torch raises KeyError if one does not): torch takes `base_lrs` from there and
        counts on from n + 1. Angles and windows do not come back that way; `load_state_dict` on a
        scheduler made with -1 brings back everything.

    How to choose the window. With the default detector the first drop cannot come before the end
    of the 13th window (three windows give the first angle, m + 1 = 11 angles the first comparison),
    that is after update 13·window, 832 at the defaults; later drops are at least 11 windows apart.
    Hence α ≥ α₀·factor^{t/(11·window)} after t updates: 300 windows allow 27 drops, 0.95²⁷ = 0.25;
    1200 allow 108, 0.95¹⁰⁸ = 0.004. A short run with a large window never drops: choose the window
    such that the run has a few hundred windows or more. The paper uses 64 updates on CIFAR and 640
    on ImageNet (Section 4.1, p. 3608); 64 is about a sixth of an epoch at CIFAR's customary batch
    size of 128. Call `step` once per update: called once per epoch, a window spans that many
    epochs.

    A drop multiplies each group's current rate, so the scheduler composes with others that do so
    too (`ChainedScheduler`), and starts where its turn comes in a `SequentialLR`. A rate that is a
    tensor is filled in place. Parameter groups may be added: tracking starts afresh, with a
    RuntimeWarning. Windows without an angle raise one for each streak of them, see
    `AngularVelocity`. `state_dict` holds the position within the window: a resumed run has the
    same angles and rates as an uninterrupted one. The rates themselves are in the optimizer's own
    state_dict, as with every torch scheduler.

    Raises TypeError or ValueError for hyperparameters and parameters that `DropPolicy`, `Rule` and
    `AngularVelocity` refuse, ValueError unless min_lr is one floor or one for each group, TypeError
    for what is no optimizer.
    """

    _tracker: AngularVelocity
    _state: RuleState
    _average: WeightedAverage | None

    def __init__(
        self,
        optimizer: Optimizer,
        window: int = 64,
        factor: float = 0.95,
        min_lr: float | Sequence[float] = 0.0,
        detector: Detector | None = None,
        *,
        wait: int = 0,
        max_threshold: float | None = None,
        average: bool = False,
        observation: Observation = "mean",
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        on_drop: Callable[[DropEvent], object] | None = None,
        last_epoch: int = -1,
    ) -> None:
        policy = DropPolicy(factor, min_lr, wait, max_threshold, average)
        detector = GaussianSaturation() if detector is None else detector
        self.rule = Rule(window, detector, policy, observation)
        self.angular_velocities: list[float] = []
        """Every angle so far, in degrees."""
        self.angle_steps: list[int] = []
        """For each angle the number of updates with which its window ended."""
        self.drops: list[DropEvent] = []
        """Every drop that changed a rate."""
        self.on_drop = on_drop
        if average and lag:
            raise ValueError(f"average needs lag = 0, got {lag}")
        self._tracking: dict[str, Any] = {
            "accumulation": accumulation,
            "direction": direction,
            "lag": lag,
            "stride": stride,
        }
        super().__init__(optimizer, last_epoch)
        self._counter = UpdateCounter(optimizer)

    @classmethod
    def from_rule(
        cls,
        optimizer: Optimizer,
        rule: Rule,
        *,
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        last_epoch: int = -1,
    ) -> Self:
        """The scheduler that follows `rule`, whose thresholds are in degrees.

        The other arguments, and errors: see `AutoDrop`.
        """
        policy = rule.policy
        return cls(
            optimizer,
            rule.window,
            policy.factor,
            policy.min_lr,
            rule.detector,
            wait=policy.wait,
            max_threshold=policy.max_threshold,
            average=policy.average,
            observation=rule.observation,
            accumulation=accumulation,
            direction=direction,
            lag=lag,
            stride=stride,
            last_epoch=last_epoch,
        )

    @classmethod
    def uai2024(
        cls,
        optimizer: Optimizer,
        window: int = 64,
        factor: float = 0.95,
        min_lr: float | Sequence[float] = 0.0,
        *,
        threshold: float = 0.1,
        buffer: int = 10,
        smoothing: Smoothing = "time",
        test: Test = "signed",
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        last_epoch: int = -1,
    ) -> Self:
        """Algorithm 1 of UAI 2024 (p. 3607), threshold in degrees.

        window: k updates. accumulation to last_epoch, errors: see `AutoDrop`. The rest:
        `rules.uai2024`.
        """
        rule = uai2024(
            window,
            factor,
            min_lr,
            threshold=threshold,
            buffer=buffer,
            smoothing=smoothing,
            test=test,
        )
        return cls.from_rule(
            optimizer,
            rule,
            accumulation=accumulation,
            direction=direction,
            lag=lag,
            stride=stride,
            last_epoch=last_epoch,
        )

    @classmethod
    def arxiv2021(
        cls,
        optimizer: Optimizer,
        window: int,
        factor: float = 0.2,
        min_lr: float | Sequence[float] = 1e-4,
        *,
        threshold: float = 0.01,
        max_threshold: float = 1.0,
        wait: int = 20,
        average: bool = False,
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        last_epoch: int = -1,
    ) -> Self:
        """The rule of arXiv 2111.15317 (2021), thresholds in degrees.

        window: updates per epoch. accumulation to last_epoch, errors: see `AutoDrop`. The rest:
        `rules.arxiv2021`.
        """
        rule = arxiv2021(
            window,
            factor,
            min_lr,
            threshold=threshold,
            max_threshold=max_threshold,
            wait=wait,
            average=average,
        )
        return cls.from_rule(
            optimizer,
            rule,
            accumulation=accumulation,
            direction=direction,
            lag=lag,
            stride=stride,
            last_epoch=last_epoch,
        )

    def step(self, epoch: int | None = None) -> None:
        """Take note of one update of the optimizer, and drop the rates if the rule says so.

        Call it without arguments, after each `optimizer.step()`. epoch is only for torch's
        `SequentialLR`, which starts a scheduler with epoch = 0. Raises ValueError for any other
        argument (an epoch, or the metric that `ReduceLROnPlateau` takes), and, once parameter
        groups have been added, unless min_lr fits them; warns (RuntimeWarning) of added parameters
        and of windows without an angle.
        """
        # By type: 0.0 is a loss and False a flag, and both equal 0.
        if epoch is not None and not (type(epoch) is int and epoch == 0):
            raise ValueError(
                "step takes neither an epoch nor a metric: AutoDrop's rates follow from observed "
                f"angles; call step() without arguments, got {epoch!r}"
            )
        # The base class makes one step from its constructor, and SequentialLR repeats it; both
        # with the count at 0.
        initial = getattr(self, "_step_count", 0) == 0
        super().step(epoch)
        self._last_lr = _rates(self.optimizer)  # copies also where older torch aliases tensors
        if initial:
            self._start()
        elif epoch is None and self._counter.take(self.optimizer):
            self._note_update()

    def __repr__(self) -> str:
        rule, policy = self.rule, self.rule.policy
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return (
            f"{type(self).__name__}(window={rule.window}, factor={policy.factor}, "
            f"min_lr={policy.min_lr}, detector={rule.detector!r}, "
            f"updates={self._tracker.updates}, lr={rates}, drops={len(self.drops)})"
        )

    def get_lr(self) -> list[float | torch.Tensor]:
        """The current rates: what changes them is `step`."""
        return _rates(self.optimizer)

    def _get_closed_form_lr(self) -> list[float | torch.Tensor]:
        """SequentialLR's way to start a scheduler: the initial rates, and x_0 is now."""
        self._start()
        self._counter.take(self.optimizer)  # updates before its turn do not count
        return _copied(self.base_lrs)

    def state_dict(self) -> dict[str, Any]:
        """All state but the optimizer's, copied; loads with torch.load(weights_only=True)."""
        return {
            "hyperparameters": _hyperparameters(self.rule),
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": _copied(self.base_lrs),
            "_last_lr": _copied(self._last_lr),
            "memory": _plain(self._state.memory),
            "threshold": self._state.threshold,
            "waited": self._state.waited,
            "tracker": self._tracker.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "angular_velocities": list(self.angular_velocities),
            "angle_steps": list(self.angle_steps),
            "drops": [dataclasses.asdict(event) for event in self.drops],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises ValueError, and changes nothing, unless it comes from an AutoDrop with the same
        hyperparameters, tracking parameters of the same shapes.
        """
        if "hyperparameters" not in state_dict:
            raise ValueError(f"state_dict must be AutoDrop's, got keys {sorted(state_dict)}")
        ours, saved = _hyperparameters(self.rule), state_dict["hyperparameters"]
        differing = [
            f"{name} = {saved.get(name)!r} (here {ours.get(name)!r})"
            for name in sorted(ours.keys() | saved.keys())
            if ours.get(name) != saved.get(name)
        ]
        if differing:
            raise ValueError(
                "state_dict must come from a scheduler with the same hyperparameters, it has "
                + ", ".join(differing)
            )
        self._tracker.load_state_dict(state_dict["tracker"])
        if self._average is not None:
            self._average.load_state_dict(state_dict["average"])
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self.base_lrs = _copied(state_dict["base_lrs"])
        self._last_lr = _copied(state_dict["_last_lr"])
        self._state = dataclasses.replace(
            self._state,
            memory=_restored(self.rule.detector.init(), state_dict["memory"]),
            threshold=state_dict["threshold"],
            waited=state_dict["waited"],
        )
        self.angular_velocities = list(state_dict["angular_velocities"])
        self.angle_steps = list(state_dict["angle_steps"])
        self.drops = [
            DropEvent(
                **{
                    **event,
                    "old_lr": tuple(event["old_lr"]),
                    "new_lr": tuple(event["new_lr"]),
                }
            )
            for event in state_dict["drops"]
        ]

    def _params(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _start(self) -> None:
        """x_0 is now."""
        self.rule.policy.floors(len(self.optimizer.param_groups))
        params = self._params()
        self._state = self.rule.init()
        self._tracker = AngularVelocity(
            params, self.rule.window, self.rule.observation, **self._tracking
        )
        self._average = WeightedAverage(params) if self.rule.policy.average else None

    def _note_update(self) -> None:
        rule, tracker = self.rule, self._tracker
        count = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if count != len(tracker.params):
            self._restart(count)
        angle = tracker.update()
        t = tracker.updates - tracker.lag
        if t < 1:
            return
        if rule.observes(t):
            if angle is not None:
                self.angular_velocities.append(math.degrees(angle))
                self.angle_steps.append(t)
            self._state = rule.observe(self._state, angle)
        if not rule.acts(t):
            return
        self._state, decision = rule.act(self._state)
        if decision.drop:
            self._drop()
        if self._average is not None and decision.weight:
            self._average.add(decision.weight)
            if decision.drop:
                self._average.write()
                # The replacement is no step of the optimizer: no angle may see it.
                tracker.restart()

    def _drop(self) -> None:
        """Lower the rates, and record it if that changed any."""
        groups = self.optimizer.param_groups
        old = tuple(float(group["lr"]) for group in groups)
        for group, before, after in zip(groups, old, self.rule.policy.lowered(old), strict=True):
            if after == before:
                continue
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(after)
            else:
                group["lr"] = after
        new = tuple(float(group["lr"]) for group in groups)
        if new == old:
            return
        self._last_lr = _rates(self.optimizer)
        angle = None if self._tracker.angle is None else math.degrees(self._tracker.angle)
        tracker = self._tracker
        observed = tracker.updates - tracker.lag
        window = self.rule.windows(observed) - 1
        self.drops.append(DropEvent(tracker.updates, window, old, new, angle, observed))
        if self.on_drop is not None:
            self.on_drop(self.drops[-1])

    def _restart(self, count: int) -> None:
        """The optimizer's parameters are others than before."""
        warn(
            f"the optimizer now has {count} parameter tensors, {len(self._tracker.params)} before: "
            "AutoDrop tracks them all from the next whole window on, and forgets earlier angles"
        )
        groups = self.optimizer.param_groups
        self.rule.policy.floors(len(groups))
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(_copied([group.setdefault("initial_lr", group["lr"])])[0])
        params = self._params()
        self._state = self.rule.forget(self._state)
        self._tracker.restart(params)
        self._average = WeightedAverage(params) if self.rule.policy.average else None


def _rates(optimizer: Optimizer) -> list[float | torch.Tensor]:
    return _copied([group["lr"] for group in optimizer.param_groups])


def _copied(rates: Sequence[float | torch.Tensor]) -> list[float | torch.Tensor]:
    return [α.clone() if isinstance(α, torch.Tensor) else α for α in rates]


def _hyperparameters(rule: Rule) -> dict[str, Any]:
    """The rule as plain named values."""
    named: dict[str, Any] = {
        "window": rule.window,
        "observation": rule.observation,
        **{f.name: getattr(rule.policy, f.name) for f in dataclasses.fields(rule.policy)},
        "detector": type(rule.detector).__qualname__,
    }
    detector: Any = rule.detector
    if dataclasses.is_dataclass(detector):
        for f in dataclasses.fields(detector):
            value = getattr(detector, f.name)
            plain = isinstance(value, str | int | float | bool | None)
            named[f"detector.{f.name}"] = value if plain else repr(value)
    return named


def _plain(memory: Any) -> Any:
    """A detector's state without its class: torch.load(weights_only=True) refuses dataclasses."""
    if dataclasses.is_dataclass(memory) and not isinstance(memory, type):
        return {f.name: getattr(memory, f.name) for f in dataclasses.fields(memory)}
    return memory


def _restored(template: Any, saved: Any) -> Any:
    """Undo `_plain`; template is any state of the same detector."""
    if dataclasses.is_dataclass(template) and not isinstance(template, type):
        return dataclasses.replace(template, **saved)
    return saved
