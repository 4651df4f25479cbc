"""AutoDrop as a learning rate scheduler for any torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autodrop import saved
from autodrop.averaging import WeightedAverage
from autodrop.counting import Count, make_counter
from autodrop.detectors import Detector, GaussianSaturation, Smoothing, Test
from autodrop.device_decision import DeviceDecision
from autodrop.momentum import Momentum, change_momentum, check_momentum
from autodrop.motion import MotionDetector
from autodrop.policy import DropEvent, DropPolicy
from autodrop.rules import Observation, Rule, RuleState, arxiv2021, uai2024
from autodrop.tracker import Accumulation, AngularVelocity
from autodrop.warning import warn

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["AutoDrop", "Options"]


class Options(TypedDict, total=False):
    """The keyword arguments of `AutoDrop` that are no part of a rule."""

    accumulation: Accumulation
    direction: torch.dtype | None
    lag: int
    stride: int
    fraction: float
    seed: int
    offload: bool
    process_group: ProcessGroup | Literal["auto"] | None
    track: Callable[[str, torch.Tensor], bool] | None
    per_group: bool
    momentum: Momentum
    update_bn: Callable[[], object] | None
    dry_run: bool
    on_drop: Callable[[DropEvent], object] | None
    count: Count
    decide: Literal["host", "device"]
    last_epoch: int


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
        sequence with one for each parameter group. factor is by default the detector's own, or
        0.95 if it has none.
    detector: an instance, see `autodrop.detectors`; default `GaussianSaturation()`.
        `VarianceRatio()` asks for no angle but whether the parameters still get anywhere, on all
        time scales; not with per_group, snapshots or decide = "device".
    observation: see `Rule`.
    accumulation, direction, lag, stride, fraction, seed, offload, process_group: see
        `AngularVelocity`. With a lag the rates drop that many updates later, and nothing waits for
        the device in between; averages need lag = 0. An angle whose standard error (fraction < 1)
        is above the detector's threshold drives no rule: the first one is a RuntimeError, later
        ones are warned of and left out.
    track: `track(name, parameter)` says whether a parameter is tracked; name is "" where the
        optimizer was not given any. Default: all of them, frozen ones too, which cost memory and
        count for nothing as long as they do not move.
    per_group: one angle for each parameter group, which lowers the rate of that group alone
        (`group_angular_velocities`, `DropEvent.group`); `angular_velocities` is that of all.
    momentum: at a drop "keep" the optimizer's momentum buffers, as torch's schedulers do, "rescale"
        or "zero" them; see `autodrop.momentum`.
    update_bn: called after an average has replaced the parameters, for statistics that no longer
        fit: `functools.partial(torch.optim.swa_utils.update_bn, loader, model)`.
    dry_run: watch and record what would be dropped, and change nothing. Each recorded drop starts
        from the rates that the ones before it would have left.
    on_drop: called with the `DropEvent` of each drop, after all that it changed.
    count: what is an update: "updates", a call of `step` after one of the optimizer, or "calls",
        every call, for training steps that are replayed as CUDA graphs.
    decide: "host", or "device": the rates, which must be tensors, are lowered by the device itself
        at the end of a window, and nothing is read to decide; `lag` says when the host reads what
        happened. For the rules of this package without averages, windows that are means, and
        optimizers that take tensors as rates without reading them.
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

    Attributes: `angular_velocities`, `angle_steps` and `angle_errors`, one entry for each angle;
    `group_angular_velocities` and `group_angle_steps`, a list for each group; `drops`, `updates`,
    `rule`.

    Over the ranks of torch.distributed (DDP, FSDP2's `fully_shard`, tensor parallel) all ranks make
    the scheduler and drop at the same update; see `process_group`.

    A drop multiplies each group's current rate, so the scheduler composes with others that do so
    too (`LinearLR`, `ChainedScheduler`), and starts where its turn comes in a `SequentialLR`; one
    that sets rates from the step number (`LambdaLR`, `OneCycleLR`) overwrites the drops. A rate
    that is a tensor is filled in place. Parameter groups may be added: tracking starts afresh, with
    a RuntimeWarning. Windows without an angle raise one for each streak of them, see
    `AngularVelocity`. `state_dict` holds the position within the window: a resumed run has the
    same angles and rates as an uninterrupted one. The rates themselves are in the optimizer's own
    state_dict, as with every torch scheduler.

    Raises TypeError or ValueError for hyperparameters and parameters that `DropPolicy`, `Rule` and
    `AngularVelocity` refuse, for combinations that are excluded above, and unless min_lr is one
    floor or one for each group; TypeError for what is no optimizer.
    """

    _tracker: AngularVelocity
    _states: list[RuleState]
    _average: WeightedAverage | None
    _device: DeviceDecision | None

    def __init__(
        self,
        optimizer: Optimizer,
        window: int = 64,
        factor: float | None = None,
        min_lr: float | Sequence[float] = 0.0,
        detector: Detector | MotionDetector | None = None,
        *,
        wait: int = 0,
        max_threshold: float | None = None,
        average: bool = False,
        observation: Observation = "mean",
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        fraction: float = 1.0,
        seed: int = 0,
        offload: bool = False,
        process_group: ProcessGroup | Literal["auto"] | None = "auto",
        track: Callable[[str, torch.Tensor], bool] | None = None,
        per_group: bool = False,
        momentum: Momentum = "keep",
        update_bn: Callable[[], object] | None = None,
        dry_run: bool = False,
        on_drop: Callable[[DropEvent], object] | None = None,
        count: Count = "updates",
        decide: Literal["host", "device"] = "host",
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got a {type(optimizer).__name__}: "
                "give the optimizer itself, not its parameters"
            )
        detector = GaussianSaturation() if detector is None else detector
        factor = getattr(detector, "factor", 0.95) if factor is None else factor
        policy = DropPolicy(factor, min_lr, wait, max_threshold, average)
        self.rule = Rule(window, detector, policy, observation)
        self.angular_velocities: list[float] = []
        """Every angle so far, in degrees."""
        self.angle_steps: list[int] = []
        """For each angle the number of updates with which its window ended."""
        self.angle_errors: list[float] = []
        """The standard error of each angle, in degrees; 0 unless fraction < 1."""
        self.group_angular_velocities: list[list[float]] = []
        """Every angle of each parameter group by itself, in degrees, with per_group."""
        self.group_angle_steps: list[list[int]] = []
        """And the updates with which their windows ended."""
        self.drops: list[DropEvent] = []
        """Every drop that changed a rate, or with dry_run would have."""
        if average and lag:
            raise ValueError(f"average needs lag = 0, got {lag}")
        if average and per_group:
            raise ValueError("average needs per_group = False: it replaces all parameters at once")
        if per_group and self.rule.sees_motion:
            raise ValueError(f"per_group needs a detector of angles, got {detector!r}")
        for name, given in (("track", track), ("update_bn", update_bn), ("on_drop", on_drop)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be callable or None, got {given!r}")
        if update_bn is not None and not average:
            raise ValueError("update_bn is for averages, got average = False")
        if decide not in ("host", "device"):
            raise ValueError(f"decide must be 'host' or 'device', got {decide!r}")
        if decide == "device" and (average or observation != "mean" or fraction < 1.0):
            raise ValueError(
                "decide = 'device' needs average = False, observation = 'mean' and fraction = 1, "
                f"got {average}, {observation!r} and {fraction}"
            )
        self.track = track
        self.per_group = per_group
        self.momentum: Momentum = momentum
        self.update_bn = update_bn
        self.dry_run = dry_run
        self.on_drop = on_drop
        self.decide = decide
        self._tracking: dict[str, Any] = {
            "accumulation": accumulation,
            "direction": direction,
            "lag": lag,
            "stride": stride,
            "fraction": fraction,
            "seed": seed,
            "offload": offload,
            "process_group": process_group,
        }
        self._watched: list[float] = []  # dry_run: each rate at the last drop, and what it would be
        self._floored = False  # whether drops that the floors prevent were warned of
        self._coarse: set[int] = set()  # rules whose last angle was too uncertain for them
        super().__init__(optimizer, last_epoch)
        self._counter = make_counter(optimizer, count)

    @property
    def updates(self) -> int:
        """Updates of the optimizer so far."""
        return self._tracker.updates

    @classmethod
    def from_rule(cls, optimizer: Optimizer, rule: Rule, **options: Unpack[Options]) -> Self:
        """The scheduler that follows `rule`, whose thresholds are in degrees.

        options: the arguments of `AutoDrop` from `accumulation` on. Errors: see there.
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
            **options,
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
        **options: Unpack[Options],
    ) -> Self:
        """Algorithm 1 of UAI 2024 (p. 3607), threshold in degrees.

        window: k updates. options: the arguments of `AutoDrop` from `accumulation` on. Errors: see
        there. The rest: `rules.uai2024`.
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
        return cls.from_rule(optimizer, rule, **options)

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
        **options: Unpack[Options],
    ) -> Self:
        """The rule of arXiv 2111.15317 (2021), thresholds in degrees.

        window: updates per epoch. options: the arguments of `AutoDrop` from `accumulation` on.
        Errors: see there. The rest: `rules.arxiv2021`.
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
        return cls.from_rule(optimizer, rule, **options)

    # Under torch.compile it is left out of the graph: the count of updates is Python's.
    @torch.compiler.disable
    def step(self, epoch: int | None = None) -> None:
        """Take note of one update of the optimizer, and drop the rates if the rule says so.

        Call it without arguments, after each `optimizer.step()`. epoch is only for torch's
        `SequentialLR`, which starts a scheduler with epoch = 0. Raises ValueError for any other
        argument (an epoch, or the metric that `ReduceLROnPlateau` takes), and, once parameter
        groups have been added, unless min_lr fits them; RuntimeError for a first angle that is too
        uncertain for the rule; warns (RuntimeWarning) of added parameters, of windows without an
        angle and of later angles that are too uncertain.
        """
        # By type: 0.0 is a loss and False a flag, and both equal 0.
        if epoch is not None and not (type(epoch) is int and epoch == 0):
            raise ValueError(
                "step takes neither an epoch nor a metric: AutoDrop's rates follow from observed "
                f"angles; call step() without arguments, got {epoch!r}"
            )
        # The base class makes one step from its constructor, and SequentialLR repeats it; both
        # with the count at 0. After the first call, of which it has an opinion, it would only copy
        # the rates onto themselves, which for tensors costs the device two operations each.
        initial = getattr(self, "_step_count", 0) == 0
        if initial or epoch is not None or self._step_count == 1:
            super().step(epoch)
        else:
            self._step_count += 1
            self.last_epoch += 1
        if initial:
            self._start()
        elif epoch is None:
            moved = self._counter.take(self.optimizer)
            if moved is not False:
                self._note_update(None if moved is True else moved)

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

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The current rate of each parameter group; tensors are copies."""
        return _rates(self.optimizer)

    def _get_closed_form_lr(self) -> list[float | torch.Tensor]:
        """SequentialLR's way to start a scheduler: the initial rates, and x_0 is now."""
        self._start()
        self._counter.take(self.optimizer)  # updates before its turn do not count
        return _copied(self.base_lrs)

    def state_dict(self, *, light: bool = False) -> dict[str, Any]:
        """All state but the optimizer's, copied; loads with torch.load(weights_only=True).

        Tensors are under the parameters' names, if the optimizer was given any, and sharded as the
        parameters are, for torch.distributed.checkpoint. light: without tensors; the loaded
        scheduler keeps its record and what its detector remembers, and has its next angle with the
        third whole window.
        """
        if self._device is not None:
            self._states = self._device.states()
        return {
            "hyperparameters": self._hyperparameters(),
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": _copied(self.base_lrs),
            "rules": {
                str(number): {
                    "memory": saved.plain(state.memory),
                    "threshold": state.threshold,
                    "waited": state.waited,
                }
                for number, state in enumerate(self._states)
            },
            "known": [] if self._device is None else self._device.known(),
            "tracker": self._tracker.state_dict(light=light),
            "average": None if self._average is None or light else self._average.state_dict(),
            "angular_velocities": list(self.angular_velocities),
            "angle_steps": list(self.angle_steps),
            "angle_errors": list(self.angle_errors),
            "group_angular_velocities": _keyed(self.group_angular_velocities),
            "group_angle_steps": _keyed(self.group_angle_steps),
            "drops": saved.text(self.drops),
            "watched": list(self._watched),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises ValueError, and changes nothing, unless it comes from an AutoDrop with the same rule,
        per_group, momentum and decide and, but for a light state, the same way to track, of
        parameters of the same names and shapes. The rates are in the optimizer's own state.
        """
        if "hyperparameters" not in state_dict:
            raise ValueError(f"state_dict must be AutoDrop's, got keys {sorted(state_dict)}")
        differing = saved.differences(state_dict["hyperparameters"], self._hyperparameters())
        differing += self._tracker.differences(state_dict["tracker"])
        if differing:
            raise ValueError(
                "state_dict must come from a scheduler with the same hyperparameters, it has "
                + ", ".join(dict.fromkeys(differing))  # both know the window
            )
        self._tracker.load_state_dict(state_dict["tracker"])
        light = "copies" not in state_dict["tracker"]
        if self._average is not None and state_dict["average"] is not None:
            self._average.load_state_dict(state_dict["average"])
        lost = self._average is not None and state_dict["average"] is None
        if self._average is not None and lost:
            self._average.clear()
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self.base_lrs = _copied(state_dict["base_lrs"])
        self._states = [
            RuleState(
                memory=saved.restored(self.rule.detector.init(), state["memory"]),
                threshold=state["threshold"],
                # An average that lacks its first iterates is none: wait afresh.
                waited=0 if lost else state["waited"],
            )
            for _, state in sorted(state_dict["rules"].items(), key=lambda item: int(item[0]))
        ]
        self._plan()
        if self._device is not None:
            # A light state knows no window, nor does that of a dry run.
            known = [] if light else state_dict["known"]
            self._device.load(self._states, known or [0] * len(self._states))
        self.angular_velocities = list(state_dict["angular_velocities"])
        self.angle_steps = list(state_dict["angle_steps"])
        self.angle_errors = list(state_dict["angle_errors"])
        self.group_angular_velocities = _listed(state_dict["group_angular_velocities"])
        self.group_angle_steps = _listed(state_dict["group_angle_steps"])
        self.drops = saved.events(state_dict["drops"])
        self._watched = list(state_dict["watched"])

    def _hyperparameters(self) -> str:
        return saved.hyperparameters(
            self.rule, per_group=self.per_group, momentum=self.momentum, decide=self.decide
        )

    def _tracked(self) -> list[dict[str, Any]]:
        """The tracked parameters of each group, or of all as one group."""
        groups = []
        for group in self.optimizer.param_groups:
            names = group.get("param_names") or [""] * len(group["params"])
            pairs = [
                (name, p)
                for name, p in zip(names, group["params"], strict=True)
                if self.track is None or self.track(name, p)
            ]
            groups.append([(name, p) if name else p for name, p in pairs])
        if self.track is not None and not any(groups):
            raise ValueError(
                "track must leave at least one parameter, it leaves none of "
                f"{sum(len(group['params']) for group in self.optimizer.param_groups)}"
                + (
                    ""
                    if any(group.get("param_names") for group in self.optimizer.param_groups)
                    else "; all names are '' unless the optimizer has model.named_parameters()"
                )
            )
        if not self.per_group:
            return [{"params": [member for members in groups for member in members]}]
        empty = [number for number, members in enumerate(groups) if not members]
        if empty:
            raise ValueError(
                f"per_group needs tracked parameters in every group, got none in group {empty[0]}"
            )
        return [{"params": members} for members in groups]

    def _start(self) -> None:
        """x_0 is now."""
        groups = self.optimizer.param_groups
        self._require_own_rates()
        check_momentum(self.optimizer, self.momentum)
        self._tracker = AngularVelocity(
            self._tracked(),
            self.rule.window,
            self.rule.observation,
            motion=self.rule.sees_motion,
            **self._tracking,
        )
        self._size = sum(len(group["params"]) for group in groups)
        self._watched = []
        self._states = [self.rule.init() for _ in self._tracker.group_angles]
        self._plan()
        self.group_angular_velocities = [[] for _ in groups] if self.per_group else []
        self.group_angle_steps = [[] for _ in groups] if self.per_group else []
        self._follow()

    def _require_own_rates(self) -> None:
        """Groups that drop apart must not share a tensor, as an optimizer's default lr is."""
        groups = self.optimizer.param_groups
        floors = self.rule.policy.floors(len(groups))
        seen: dict[int, int] = {}
        for number, group in enumerate(groups):
            first = seen.setdefault(id(group["lr"]), number)
            if first == number or not isinstance(group["lr"], torch.Tensor):
                continue
            if self.per_group or floors[first] != floors[number]:
                raise ValueError(
                    f"parameter groups {first} and {number} must have rates of their own where "
                    "each has its angle or its floor, got one tensor for both: pass "
                    '{"params": …, "lr": lr.clone()}'
                )

    def _follow(self) -> None:
        """What goes with the tracker: an average, or decisions on its device."""
        averages = self.rule.policy.average and not self.dry_run
        self._average = WeightedAverage(self._tracker.named_params) if averages else None
        self._device = None
        if self.decide == "device" and not self.dry_run:
            self._device = DeviceDecision(
                self.rule, self.optimizer, self._tracker.device, self.per_group, self.momentum
            )
            self._device.load(self._states, [0] * len(self._states))
            self._tracker.on_close = self._device.decide

    def _note_update(self, skipped: torch.Tensor | None) -> None:
        rule, tracker = self.rule, self._tracker
        size = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if size != self._size:
            self._restart(size)
        read = tracker.advance(skipped)
        t = tracker.updates - tracker.lag
        if t < 1:
            return
        if rule.observes(t):
            self._record(t, read)
            if self._device is not None:
                if read:
                    self._report(t)
                return
            if rule.sees_motion:
                motion = tracker.motion if read else None
                self._states = [rule.observe(state, motion) for state in self._states]
                self._plan()
            else:
                angles = tracker.group_angles if read else (None,) * len(self._states)
                self._states = [
                    rule.observe(state, self._usable(number, angle, error, state))
                    for number, (state, angle, error) in enumerate(
                        zip(self._states, angles, tracker.group_errors, strict=True)
                    )
                ]
        if rule.acts(t):
            self._act()

    def _plan(self) -> None:
        """Tell the tracker what a detector of motion wants next, who may have to start afresh."""
        if not self.rule.sees_motion:
            return
        (state,) = self._states
        plan = self.rule.plan(state)
        if not (plan.restart or self._tracker.remembers):
            self._states = [self.rule.restart(state)]
            plan = self.rule.plan(self._states[0])
        self._tracker.plan(plan)

    def _record(self, t: int, read: bool) -> None:
        tracker = self._tracker
        if read and tracker.angle is not None:
            self.angular_velocities.append(math.degrees(tracker.angle))
            self.angle_steps.append(t)
            self.angle_errors.append(math.degrees(tracker.error))
        if read and self.per_group:
            for number, angle in enumerate(tracker.group_angles):
                if angle is not None:
                    self.group_angular_velocities[number].append(math.degrees(angle))
                    self.group_angle_steps[number].append(t)

    def _usable(
        self, number: int, angle: float | None, error: float, state: RuleState
    ) -> float | None:
        """The angle, unless its error hides what the rule of that number looks for."""
        threshold = getattr(self.rule.detector, "threshold", None)
        threshold = threshold if state.threshold is None else state.threshold
        if angle is None or self.dry_run or threshold is None or math.degrees(error) <= threshold:
            if angle is not None:
                self._coarse.discard(number)
            return angle
        said = (
            f"an angle from a fraction = {self._tracker.fraction} of the parameters has a standard "
            f"error of {math.degrees(error):.3g} degrees, above the threshold of {threshold} that "
            "it would have to drive"
        )
        if len(self.angular_velocities) == 1:
            raise RuntimeError(f"{said}: watch with dry_run = True, or track more")
        if number not in self._coarse:
            warn(f"{said}: it is left out, and further ones go unreported")
        self._coarse.add(number)
        return None

    def _act(self) -> None:
        for number, state in enumerate(self._states):
            self._states[number], decision = self.rule.act(state)
            event = self._drop(number) if decision.drop else None
            if self._average is not None and decision.weight:
                self._average.add(decision.weight)
                if decision.drop:
                    self._average.write()
                    # The replacement is no step of the optimizer: no angle may see it.
                    self._tracker.restart()
                    if self.update_bn is not None:
                        self.update_bn()
            if event is not None:
                self._tell(event)

    def _drop(self, number: int) -> DropEvent | None:
        """Lower all rates or, with per_group, that of one group; None if that changes none.

        Warns once of rates that were set below their floors.
        """
        groups = self.optimizer.param_groups
        old = self._watched_rates() if self.dry_run else _numbers(groups)
        lowered = list(self.rule.policy.lowered(old))
        if self.per_group:
            lowered = [*old[:number], lowered[number], *old[number + 1 :]]
        new = tuple(lowered)
        if new == old:
            floors = self.rule.policy.floors(len(old))
            below = all(α < floor for α, floor in zip(old, floors, strict=True))
            if below and not (self._floored or self.drops):  # a drop may have been rounded to there
                self._floored = True
                warn(
                    f"a drop is due, and every rate is below its floor: rates {list(old)}, min_lr "
                    f"= {self.rule.policy.min_lr}; further ones go unreported"
                )
            return None
        if self.dry_run:
            pairs = zip(_numbers(groups), new, strict=True)
            self._watched = [α for pair in pairs for α in pair]
        else:
            for group, before, after in zip(groups, old, new, strict=True):
                if after == before:
                    continue
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(after)
                else:
                    group["lr"] = after
                ratio = before / float(group["lr"])  # as a tensor rounds it: it may be 1
                change_momentum(self.optimizer, group, self.momentum, ratio)
            new = _numbers(groups)  # as a tensor rounds it
            if new == old:
                return None
        late = self._tracker.lag if self.decide == "device" else 0  # a dry run of the device's
        return self._event(number, old, new, self._tracker.updates - late)

    def _watched_rates(self) -> tuple[float, ...]:
        """The rates where the drops of a dry run would have left them."""
        rates = list(_numbers(self.optimizer.param_groups))
        for number, (then, would) in enumerate(
            zip(self._watched[::2], self._watched[1::2], strict=True)
        ):
            # In proportion, where another scheduler has changed the rate since.
            if rates[number] == then:
                rates[number] = would
            elif then:
                rates[number] *= would / then
        return tuple(rates)

    def _report(self, t: int) -> None:
        """Take note of what the device decided when the window that was now read ended."""
        assert self._device is not None
        for number, old, new in self._device.told(self._tracker.told):
            if new != old:
                self._tell(self._event(number, old, new, t))

    def _event(
        self, number: int, old: tuple[float, ...], new: tuple[float, ...], applied: int
    ) -> DropEvent:
        tracker = self._tracker
        angle = tracker.group_angles[number]
        observed = tracker.updates - tracker.lag
        return DropEvent(
            applied,
            self.rule.windows(observed) - 1,
            old,
            new,
            None if angle is None else math.degrees(angle),
            observed,
            number if self.per_group else None,
        )

    def _tell(self, event: DropEvent) -> None:
        self.drops.append(event)
        if self.on_drop is not None:
            self.on_drop(event)

    def _restart(self, size: int) -> None:
        """The optimizer's parameters are others than before."""
        warn(
            f"the optimizer now has {size} parameter tensors, {self._size} before: "
            "AutoDrop tracks them all from the next whole window on, and forgets earlier angles"
        )
        self._size = size
        groups = self.optimizer.param_groups
        self._require_own_rates()
        for group in groups[len(self.base_lrs) :]:
            self.base_lrs.append(_copied([group.setdefault("initial_lr", group["lr"])])[0])
        if self._device is not None:
            self._states = self._device.states()
        self._tracker.restart(self._tracked())
        states = [self.rule.forget(state) for state in self._states]
        added = len(self._tracker.group_angles) - len(states)
        self._states = states + [self.rule.init() for _ in range(added)]
        self._plan()
        if self.per_group:
            self.group_angular_velocities += [[] for _ in range(added)]
            self.group_angle_steps += [[] for _ in range(added)]
        self._follow()


def _numbers(groups: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    return tuple(float(group["lr"]) for group in groups)


def _rates(optimizer: Optimizer) -> list[float | torch.Tensor]:
    return _copied([group["lr"] for group in optimizer.param_groups])


def _copied(rates: Sequence[float | torch.Tensor]) -> list[float | torch.Tensor]:
    return [α.clone() if isinstance(α, torch.Tensor) else α for α in rates]


def _keyed(lists: Sequence[list[Any]]) -> dict[str, list[Any]]:
    return {str(number): list(values) for number, values in enumerate(lists)}


def _listed(keyed: dict[str, list[Any]]) -> list[list[Any]]:
    return [list(keyed[str(number)]) for number in range(len(keyed))]
