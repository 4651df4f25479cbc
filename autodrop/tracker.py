"""The angular velocity of live parameters: window means, their steps, the angle between steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from autodrop.accumulation import AnchoredSums, PlainSums, Sums
from autodrop.checks import check_integer, check_number
from autodrop.displacements import Displacements
from autodrop.distributed import Ranks, is_sharded
from autodrop.memory import AngleMemory
from autodrop.motion import LAGS, Motion, Plan
from autodrop.parameters import Params, parameter_groups
from autodrop.products import WIDTH
from autodrop.readout import Readout
from autodrop.rules import Observation, check_window
from autodrop.sources import Source
from autodrop.warning import warn

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Accumulation", "AngularVelocity"]

Accumulation = Literal["auto", "plain", "anchored"]


class AngularVelocity:
    """ω_i = ∠(y_i − y_{i−1}, y_{i−1} − y_{i−2}), y_i the mean of x_t over t = ik … (i+1)k−1.

    Definition 3.3 and equation (8) of the UAI paper (p. 3606), for the parameters of a model taken
    together as one vector. `update` and `angle` are in radians, as `angle_between` is; the
    records that `AutoDrop` keeps (`angular_velocities`, `drops`) are in degrees.

        velocity = AngularVelocity(model.parameters(), window=64)    # records x_0
        ...
        optimizer.step()
        angle = velocity.update()       # radians at a window's end, else None

    params: an iterable of dense real floating-point tensors, on any devices, followed in place; or
        of (name, tensor) pairs; or of dicts with such "params", as `optimizer.param_groups` is,
        for an angle of each of them beside the angle of all (`group_angles`). A tensor that is
        there twice counts once; what never moves counts for nothing. DTensors may be sharded.
    window: k ≥ 1 updates. T updates give ⌊T/k⌋ − 2 angles, the first at T = 3k + lag.
    observation: "mean", or "snapshot", for which y_i is the iterate after the first update of
        window i (arXiv 2111.15317) and window ≥ 2.
    accumulation: "plain" sums the iterates, in float32 (float64 for float64 parameters): three
        copies of the parameters. "anchored" sums their deviations from the mean of the last window:
        3.5 copies, for float32 parameters only, others are summed plainly. "auto" is anchored for
        float32. Errors measured for float32 parameters (2·10⁵, k = 64, angles of 5° and 90°):
        anchored below 1e-7° where the means step by 1e-2 … 1e-4 of ‖x‖; plain 5e-6° at 1e-2,
        2e-4° at 1e-3, 0.01° at 1e-4. bfloat16 and float16 lose next to nothing in float32 sums.
    direction: the dtype in which the last step is kept; torch.bfloat16 saves half a copy, for
        angles less exact near 0. Default: that of the sums.
    lag: updates after a window's end at which its angle is read, 0 ≤ lag < k. Within a window and
        at its end nothing waits for the device; with lag ≥ 1 neither does the reading, as a rule,
        since the numbers were sent on their way to the host lag updates earlier.
    stride: r, a divisor of k: the mean is over every r-th iterate, t = ik, ik + r, ….
    fraction: of the coordinates of each tensor that are followed, in (0, 1], at least 16 of them;
        drawn once, from `seed` and the tensor's name or position, without replacement. `error` is
        the angle's standard error: for watching, it is some tenths of a degree to a few degrees at
        0.1. Copies are of the sample alone; its indices are one more (two where a tensor has more
        than 2³¹ elements).
    offload: keep what is needed at the ends of windows only in the host's memory: on the device
        remain 1 copy with plain sums, 2 with anchored ones.
    motion: measure `motion` too, by copies of at most some 2¹⁸ coordinates, drawn like a fraction.
    process_group: the ranks of torch.distributed that hold these parameters, as replicas or as
        DTensors, each element counted once: "auto", all ranks where it is initialised; None, this
        rank alone; or a group. Making and restarting a tracker are collective operations then, and
        the end of a window is one all-reduce of a few numbers, after which all have one angle.

    Products are summed in float64 over all parameters. A window in which the mean did not move
    (by less than 1e-146) or is not finite has no angle: `update` warns (RuntimeWarning), returns
    None and starts afresh, and angles return with the third good window after it. Until then
    further lost windows go unreported.

    Raises TypeError or ValueError for what `params` cannot be, ValueError for an argument out of
    range and unless all ranks hold the same parameters.
    """

    def __init__(
        self,
        params: Params,
        window: int = 64,
        observation: Observation = "mean",
        *,
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
        fraction: float = 1.0,
        seed: int = 0,
        offload: bool = False,
        motion: bool = False,
        process_group: ProcessGroup | Literal["auto"] | None = "auto",
    ) -> None:
        if motion and observation != "mean":
            raise ValueError(f"motion needs observation = 'mean', got {observation!r}")
        if observation not in ("mean", "snapshot"):
            raise ValueError(f"observation must be 'mean' or 'snapshot', got {observation!r}")
        check_window(window, observation)
        if accumulation not in get_args(Accumulation):
            raise ValueError(
                f"accumulation must be one of {get_args(Accumulation)}, got {accumulation!r}"
            )
        if direction not in (None, torch.float32, torch.bfloat16):
            raise ValueError(
                f"direction must be None, torch.float32 or torch.bfloat16, got {direction}"
            )
        check_integer("lag", lag, 0)
        if lag >= window:
            raise ValueError(f"lag must be < window = {window}, got {lag}")
        check_integer("stride", stride, 1)
        if window % stride or (observation == "snapshot" and stride > 1):
            raise ValueError(
                f"stride must divide window = {window}, and be 1 for snapshots, got {stride}"
            )
        check_number("fraction", fraction, "in (0, 1]", lambda share: 0.0 < share <= 1.0)
        check_integer("seed", seed, 0)
        self.window = window
        self.observation = observation
        self.accumulation = accumulation
        self.direction = direction
        self.lag = lag
        self.stride = stride
        self.fraction = fraction
        self.seed = seed
        self.offload = offload
        self.process_group = process_group
        self.motion: Motion | None = None
        """What the last window that was read showed, if it is measured and no lost window."""
        self._measures = motion
        self._counted: tuple[int, ...] = (0,) * len(LAGS)
        self.updates = 0
        self.on_close: Callable[[torch.Tensor], torch.Tensor] | None = None
        """Called at a window's end with the products of each group, a matrix on the device; the
        vector that it returns is sent to the host too, and is `told` when the angle is read."""
        self.told: list[float] = []
        self._readout: Readout | None = None
        self._skipped: torch.Tensor | None = None
        self._allocate(params)
        if observation == "mean":
            self._add()

    @property
    def params(self) -> tuple[torch.Tensor, ...]:
        """The tensors that are followed."""
        return tuple(self.named_params.values())

    @property
    def named_params(self) -> dict[str, torch.Tensor]:
        """The same by name, or by position where a tensor has none."""
        return {key: p for group in self._groups for key, p in group.items()}

    @property
    def device(self) -> torch.device:
        """Where the products of all parameters come together."""
        return self._device

    @property
    def angle(self) -> float | None:
        """The angle of the last window that was read, in radians; None if it had none."""
        return self._all.angle

    @property
    def error(self) -> float:
        """The standard error of `angle` over samples of the coordinates, in radians; 0 if all are
        followed."""
        return self._all.error

    @property
    def group_angles(self) -> tuple[float | None, ...]:
        """The angle of each group by itself."""
        return tuple(memory.angle for memory in self._each)

    @property
    def group_errors(self) -> tuple[float, ...]:
        """The standard error of each of them."""
        return tuple(memory.error for memory in self._each)

    @property
    def remembers(self) -> bool:
        """Whether the copies that plans refer to are there: not after a restart or light state."""
        return self._displacements is not None and self._displacements.ready

    def plan(self, plan: Plan) -> None:
        """What to measure and to keep for `motion` at the next window's end."""
        if self._displacements is not None:
            self._displacements.plan = plan

    @torch.no_grad()
    def update(self) -> float | None:
        """Take note of one update of the parameters; ω_i in radians, [0, π], if one is read now.

        That is `lag` updates after the end of a window. None at other times, and where a window
        has no angle (see above).
        """
        return self.angle if self.advance() else None

    @torch.no_grad()
    def advance(self, skipped: torch.Tensor | None = None) -> bool:
        """`update`, for groups: whether a window was read now, with or without angles.

        skipped: where only a device knows whether there was an update, a tensor of one element
        there, 0 for an update and 1 for none. Then `updates` counts what may have been one, and is
        put right where it matters: at what may be a window's end or the time to read, which waits
        for the device; with strides, snapshots and motion at every step.
        """
        self.updates += 1
        if skipped is not None:
            skipped = skipped.double()
            self._skipped = skipped if self._skipped is None else self._skipped + skipped
            exact = self.observation == "snapshot" or self.stride > 1 or self._measures
            if exact and self._settle():
                return False
        if self._displacements is not None:
            self._displacements.note()
        missed = 0
        if 0 in (self.updates % self.window, (self.updates - self.lag) % self.window):
            missed = self._settle()
        phase = self.updates % self.window
        if self.observation == "snapshot":
            if phase == 1:
                self._add()
                self._close()
        else:
            if phase == 0 and not missed:  # before x_t, t = (i+1)k, which opens the next window
                self._close()
            if phase % self.stride == 0:
                self._add(skipped)
        if self._readout is None or self.updates < self._due:
            return False
        self._read()
        return True

    def _settle(self) -> int:
        """Count back the updates that were none; how many these were. Waits for the device."""
        if self._skipped is None:
            return 0
        missed = round(self._skipped.item())
        self._skipped = None
        self.updates -= missed
        return missed

    @torch.no_grad()
    def restart(self, params: Params | None = None) -> None:
        """Forget what was seen; go on with the next whole window, on `params` if given.

        For when the parameters change by something else than an update. Windows keep ending where
        they would have ended. Raises TypeError or ValueError for `params`, as the constructor.
        """
        if params is not None:
            self._allocate(params)
        else:
            for sums in self._sums:
                sums.reset()
            if self._displacements is not None:
                self._displacements.forget()
        self._settle()
        self.motion = None
        self._readout = None
        # What is left of the current window is no whole window.
        self._partial = self.observation == "mean"
        for memory in self._memories():
            memory.forget()

    def state_dict(self, *, light: bool = False) -> dict[str, Any]:
        """Everything that `update` depends on, copied; loads with torch.load(weights_only=True).

        Tensors are under the parameters' names where these are known, else under their positions,
        shaped and sharded as the parameters are, which is what torch.distributed.checkpoint needs
        to save them from one number of ranks and load them to another. light: leave them out; the
        loaded tracker starts afresh with the next whole window. Samples of shards are always light.
        It waits for an angle that is on its way.
        """
        self._settle()
        state: dict[str, Any] = {
            **self._config(),
            "shapes": {key: list(p.shape) for key, p in self.named_params.items()},
            "updates": self.updates,
            "angles": [memory.angle for memory in self._memories()],
            "errors": [memory.error for memory in self._memories()],
            "known": [memory.known for memory in self._memories()],
            "partial": self._partial,
            "pending": [] if self._readout is None else self._readout.read(),
            "due": self._due,
            "motion": self._motion_state(),
        }
        if not (light or self._shards_are_sampled()):
            state["copies"] = {
                name: {key: self._ranks.labelled(key, t.clone()) for key, t in tensors.items()}
                for name, tensors in self._copies().items()
            }
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises ValueError, and changes nothing, unless it has the same window, observation,
        accumulation, direction, lag, stride, fraction and seed, of a light state the first two, and
        these shapes of the parameters.
        """
        differing = self.differences(state_dict)
        if differing:
            raise ValueError(
                "the saved state must come from a tracker with the same arguments, it has "
                + ", ".join(differing)
            )
        ours = {key: list(p.shape) for key, p in self.named_params.items()}
        saved = state_dict["shapes"]
        if len(ours) != len(saved):
            raise ValueError(
                f"the saved state must be of {len(ours)} parameter tensors, got {len(saved)}"
            )
        for key, shape in ours.items():
            if key not in saved:
                raise ValueError(
                    f"the saved state must have the parameter {key!r}, got {', '.join(saved)}"
                )
            if shape != list(saved[key]):
                raise ValueError(
                    f"parameter {key} of the saved state must have shape {shape}, got {saved[key]}"
                )
        if len(state_dict["known"]) != len(self._memories()):
            raise ValueError(
                f"the saved state must have {len(self._memories())} angles, the whole's and the "
                f"groups', got {len(state_dict['known'])}"
            )
        copies = state_dict.get("copies")
        if copies is not None:
            expected = self._copies()
            if any(name not in copies for name in self._displaced()):
                expected = {n: t for n, t in expected.items() if n not in self._displaced()}
            for name, tensors in expected.items():
                kept = copies.get(name, {})
                if any(key not in kept or kept[key].dtype != t.dtype for key, t in tensors.items()):
                    raise ValueError(
                        f"{name} of the saved state must be {len(tensors)} tensors of the dtypes "
                        "that these parameters call for"
                    )
                for key, t in tensors.items():
                    if type(kept[key]) is not type(t) or kept[key].shape != t.shape:
                        raise ValueError(
                            f"{name} of parameter {key!r} must be a {type(t).__name__} of shape "
                            f"{list(t.shape)}, got a {type(kept[key]).__name__} of shape "
                            f"{list(kept[key].shape)}: other numbers of ranks need "
                            "torch.distributed.checkpoint"
                        )
                    self._ranks.require_own(key, kept[key])
        self._skipped = None
        self.updates = state_dict["updates"]
        if copies is None:
            self.restart()
            return
        for memory, angle, error, known in zip(
            self._memories(),
            state_dict["angles"],
            state_dict["errors"],
            state_dict["known"],
            strict=True,
        ):
            memory.forget()
            memory.angle, memory.error, memory.known = angle, error, known
        self._partial = state_dict["partial"]
        self._readout = Readout.known(state_dict["pending"]) if state_dict["pending"] else None
        self._due = state_dict["due"]
        for name, tensors in expected.items():
            for key, t in tensors.items():
                t.copy_(copies[name][key])
        if self._displacements is not None:
            self._displacements.forget()
            displaced = self._displaced()
            if displaced and all(name in copies for name in displaced):
                self._counted = tuple(state_dict["motion"]["counted"])
                self._displacements.load(state_dict["motion"])

    def differences(self, state_dict: dict[str, Any]) -> list[str]:
        """One text for each argument that must be that of the saved state, and is not."""
        ours = self._config()
        if "copies" not in state_dict:
            ours = {name: ours[name] for name in ("window", "observation")}
        return [
            f"{name} = {state_dict.get(name)!r} (here {value!r})"
            for name, value in ours.items()
            if state_dict.get(name) != value
        ]

    def _config(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "observation": self.observation,
            "accumulation": self.accumulation,
            "direction": None if self.direction is None else str(self.direction),
            "lag": self.lag,
            "stride": self.stride,
            "fraction": self.fraction,
            "seed": self.seed,
        }

    def _copies(self) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of the state, aliased, in the shapes of the parameters."""
        for sums in self._sums:
            sums.settle()
        return {
            f"{type(sums).__name__}.{name}": {
                source.key: source.shaped(vector)
                for source, vector in zip(sums.sources, getattr(sums, name), strict=True)
            }
            for sums in self._sums
            for name in sums.copies
        } | self._displaced()

    def _displaced(self) -> dict[str, dict[str, torch.Tensor]]:
        """Those of the displacements, unless ranks sample different coordinates."""
        measured = self._displacements
        if measured is None or any(s.sharded and s.sampled for s in measured.sources):
            return {}
        return {
            f"Displacements.{name}": {
                source.key: source.shaped(vector)
                for source, vector in zip(measured.sources, vectors, strict=True)
            }
            for name, vectors in measured.copies()
        }

    def _motion_state(self) -> dict[str, Any]:
        if self._displacements is None:
            return {}
        return {**self._displacements.state(), "counted": list(self._counted)}

    def _shards_are_sampled(self) -> bool:
        """Ranks sample different coordinates, of which no checkpoint can make one tensor."""
        return self.fraction < 1.0 and any(s.sharded for sums in self._sums for s in sums.sources)

    def _memories(self) -> tuple[AngleMemory, ...]:
        return (self._all,) if self._each == (self._all,) else (self._all, *self._each)

    @torch.no_grad()
    def _allocate(self, params: Params) -> None:
        self._groups = parameter_groups(params)
        self._ranks = Ranks(self.named_params, self.process_group)
        sources = self._sources(self.fraction)
        plain: list[Source] = []
        anchored: list[Source] = []
        for source in sources:
            wide = self.accumulation == "plain" or source.dtype != torch.float32
            (plain if wide else anchored).append(source)
        self._sums: list[Sums] = []
        if plain:
            self._sums.append(PlainSums(plain, self.direction, self.offload))
        if anchored:
            self._sums.append(AnchoredSums(anchored, self.direction, self.offload))
        # Where the products of all devices come together.
        self._device = next(
            (s.device for s in sources if s.device.type != "cpu"), sources[0].device
        )
        self._all = AngleMemory()
        self._each: Sequence[AngleMemory] = (
            (self._all,) if len(self._groups) == 1 else tuple(AngleMemory() for _ in self._groups)
        )
        self._displacements: Displacements | None = None
        if self._measures:
            whole = sum(p.numel() for p in self.params)
            sample = self._sources(min(1.0, Displacements.sample / whole))
            self._displacements = Displacements(sample, self._device)
        # Whether the current window lacks its first iterates.
        self._partial = False
        self._readout = None
        self._due = 0

    def _sources(self, fraction: float) -> list[Source]:
        return [
            Source(
                key,
                p,
                group=number,
                owned=self._ranks.owned[key],
                fraction=fraction,
                # By name, so that groups and orders may change between save and load.
                seed=(self.seed, self._ranks.rank * is_sharded(p), *key.encode()),
            )
            for number, group in enumerate(self._groups)
            for key, p in group.items()
        ]

    def _add(self, skipped: torch.Tensor | None = None) -> None:
        kept = None if skipped is None else 1.0 - skipped
        for sums in self._sums:
            sums.add(kept)

    def _close(self) -> None:
        """End a window on the devices, and send its products on their way to the host."""
        if self._partial:
            self._partial = False
            for sums in self._sums:
                sums.reset()
            return
        count = 1 if self.observation == "snapshot" else self.window // self.stride
        rows: list[dict[torch.device, list[torch.Tensor]]] = [{} for _ in self._groups]
        for sums in self._sums:
            for source, numbers in sums.close(count):
                rows[source.group].setdefault(source.device, []).append(numbers)
        products = torch.stack([self._total(found) for found in rows])
        if self._displacements is None:
            products = self._ranks.sum(products)
            vector = products.flatten()
        else:
            self._counted = self._displacements.take_counts()
            numbers = torch.cat((products.flatten(), self._displacements.close()))
            vector = self._ranks.sum(numbers)
            products = vector.narrow(0, 0, products.numel()).view_as(products)
        if self.on_close is not None:
            vector = torch.cat((vector, self.on_close(products)))
        self._readout = Readout(vector)
        self._due = self.updates + self.lag

    def _total(self, found: dict[torch.device, list[torch.Tensor]]) -> torch.Tensor:
        total = torch.zeros(WIDTH, dtype=torch.float64, device=self._device)
        for rows in found.values():
            total = total + torch.stack(rows).sum(0).to(self._device, non_blocking=True)
        return total

    def _read(self) -> None:
        """The angles of the window that was closed last."""
        assert self._readout is not None
        numbers = self._readout.read()
        self._readout = None
        end = WIDTH * len(self._groups)
        rows = [numbers[start : start + WIDTH] for start in range(0, end, WIDTH)]
        if self._displacements is not None:
            measured, end = numbers[end : end + Displacements.entries], end + Displacements.entries
        self.told = numbers[end:]
        # fsum raises for inf − inf, which is what a parameter that is not finite leaves.
        whole = [
            math.fsum(column) if all(map(math.isfinite, column)) else math.nan
            for column in zip(*rows, strict=True)
        ]
        self._note(self._all, whole, "the parameters")
        if self._displacements is not None:
            self.motion = self._moved(whole[0], measured)
        if len(rows) > 1:
            for number, (memory, row) in enumerate(zip(self._each, rows, strict=True)):
                self._note(memory, row, f"the parameters of group {number}")

    def _moved(self, step: float, measured: Sequence[float]) -> Motion | None:
        if not self._all.known:
            return None
        return Motion(
            self.window,
            step if self._all.known == 2 else 0.0,
            None if math.isnan(measured[0]) else measured[0],
            tuple(measured[1:]),
            self._counted,
        )

    def _note(self, memory: AngleMemory, row: Sequence[float], who: str) -> None:
        what = memory.read(row)
        if what is not None:
            warn(
                f"no angular velocity: {who} {what} in the window of {self.window} "
                f"updates that ended with update {self.updates - self.lag}; tracking starts "
                "afresh, and further lost windows go unreported until angles return"
                + (
                    " (does the optimizer hold the tensors that the model now uses?)"
                    if "did not move" in what and self.updates - self.lag < 3 * self.window
                    else ""
                )
            )
