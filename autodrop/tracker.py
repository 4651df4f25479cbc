"""The angular velocity of live parameters: window means, their steps, the angle between steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch

from autodrop.accumulation import AnchoredSums, PlainSums, Sums, layout
from autodrop.angle import angle_from_products
from autodrop.checks import check_integer
from autodrop.readout import Readout
from autodrop.rules import Observation, check_window
from autodrop.warning import warn

__all__ = ["Accumulation", "AngularVelocity"]

Accumulation = Literal["auto", "plain", "anchored"]

# A squared length below this has lost digits to underflow: normal numbers end at 2.2e-308.
_LEAST_SQUARE = torch.finfo(torch.float64).tiny / torch.finfo(torch.float64).eps


class AngularVelocity:
    """ω_i = ∠(y_i − y_{i−1}, y_{i−1} − y_{i−2}), y_i the mean of x_t over t = ik … (i+1)k−1.

    Definition 3.3 and equation (8) of the UAI paper (p. 3606), for the parameters of a model taken
    together as one vector. `update` and `angle` are in radians, as `angle_between` is; the
    records that `AutoDrop` keeps (`angular_velocities`, `drops`) are in degrees.

        velocity = AngularVelocity(model.parameters(), window=64)    # records x_0
        ...
        optimizer.step()
        angle = velocity.update()       # radians at a window's end, else None

    params: an iterable of dense real floating-point tensors, on any devices, followed in place.
    window: k ≥ 1 updates. T updates give ⌊T/k⌋ − 2 angles, the first at T = 3k + lag.
    observation: "mean", or "snapshot", for which y_i is the iterate after the first update of
        window i (arXiv 2111.15317) and window ≥ 2.
    accumulation: "plain" sums the iterates, in float32 (float64 for float64 parameters): three
        copies of the parameters. "anchored" sums their deviations from the mean of the last window:
        3.5 copies, for float32 parameters only, others are summed plainly. "auto" is anchored for
        float32. Errors measured for float32 parameters (2·10⁵, k = 64, angles of 5° and 90°):
        anchored below 1e-7° where the means step by 1e-2 … 1e-4 of ‖x‖; plain 5e-6° at 1e-2,
        2e-4° at 1e-3, 0.01° at 1e-4. bfloat16 and float16 lose next to nothing in float32 sums.
    direction: the dtype in which the last step is kept where sums are anchored; torch.bfloat16
        makes it three copies, for angles less exact near 0. Default: that of the parameters.
    lag: updates after a window's end at which its angle is read, 0 ≤ lag < k. Within a window and
        at its end nothing waits for the device; with lag ≥ 1 neither does the reading, as a rule,
        since the numbers were sent on their way to the host lag updates earlier.
    stride: r, a divisor of k: the mean is over every r-th iterate, t = ik, ik + r, ….

    Products are summed in float64 over all parameters. A window in which the mean did not move
    (by less than 1e-146) or is not finite has no angle: `update` warns (RuntimeWarning), returns
    None and starts afresh, and angles return with the third good window after it. Until then
    further lost windows go unreported.

    Raises TypeError unless params are dense real floating-point tensors, ValueError if they have
    no elements or for an argument out of range.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        window: int = 64,
        observation: Observation = "mean",
        *,
        accumulation: Accumulation = "auto",
        direction: torch.dtype | None = None,
        lag: int = 0,
        stride: int = 1,
    ) -> None:
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
        self.window = window
        self.observation = observation
        self.accumulation = accumulation
        self.direction = direction
        self.lag = lag
        self.stride = stride
        self.updates = 0
        self.angle: float | None = None
        """The angle of the last window that was read, in radians; None if it had none."""
        self._readout: Readout | None = None
        self._allocate(params)
        if observation == "mean":
            self._add()

    @property
    def params(self) -> tuple[torch.Tensor, ...]:
        """The tensors that are followed."""
        return self._params

    @torch.no_grad()
    def update(self) -> float | None:
        """Take note of one update of the parameters; ω_i in radians, [0, π], if one is read now.

        That is `lag` updates after the end of a window. None at other times, and where a window
        has no angle (see above).
        """
        self.updates += 1
        phase = self.updates % self.window
        if self.observation == "snapshot":
            if phase == 1:
                self._add()
                self._close()
        else:
            if phase == 0:  # before x_t, t = (i+1)k, which opens the next window
                self._close()
            if phase % self.stride == 0:
                self._add()
        if self._readout is None or self.updates < self._due:
            return None
        return self._read()

    @torch.no_grad()
    def restart(self, params: Iterable[torch.Tensor] | None = None) -> None:
        """Forget what was seen; go on with the next whole window, on `params` if given.

        For when the parameters change by something else than an update. Windows keep ending where
        they would have ended. Raises TypeError or ValueError for `params`, as the constructor.
        """
        if params is not None:
            self._allocate(params)
        else:
            for sums in self._sums:
                sums.reset()
        self._readout = None
        self._known = 0
        # What is left of the current window is no whole window.
        self._partial = self.observation == "mean"
        self._lost = False
        self.angle = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that `update` depends on, copied; loads with torch.load(weights_only=True).

        It waits for an angle that is on its way.
        """
        return {
            **self._config(),
            "shapes": [list(p.shape) for p in self._params],
            "layouts": [layout(p) for p in self._params],
            "updates": self.updates,
            "angle": self.angle,
            "known": self._known,
            "partial": self._partial,
            "pending": None if self._readout is None else list(self._readout.read()),
            "due": self._due,
            "copies": {
                name: [tensor.clone() for tensor in tensors] for name, tensors in self._copies()
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises ValueError, and changes nothing, unless it has the same window, observation,
        accumulation, direction, lag and stride, and these shapes of the parameters.
        """
        for name, value in self._config().items():
            if state_dict[name] != value:
                raise ValueError(
                    f"{name} of the saved state must be {value!r}, got {state_dict[name]!r}"
                )
        ours, saved = [list(p.shape) for p in self._params], state_dict["shapes"]
        if len(ours) != len(saved):
            raise ValueError(
                f"the saved state must be of {len(ours)} parameter tensors, got {len(saved)}"
            )
        for i, (shape, other) in enumerate(zip(ours, saved, strict=True)):
            if shape != list(other):
                raise ValueError(
                    f"parameter {i} of the saved state must have shape {shape}, got {other}"
                )
        for i, p in enumerate(self._params):
            if layout(p) != list(state_dict["layouts"][i]):
                raise ValueError(
                    f"parameter {i} of the saved state must have the memory layout (strides) "
                    f"{layout(p)}, got {state_dict['layouts'][i]}"
                )
        copies = state_dict["copies"]
        for name, tensors in self._copies():
            if [t.dtype for t in tensors] != [t.dtype for t in copies.get(name, ())]:
                raise ValueError(
                    f"{name} of the saved state must be {len(tensors)} tensors of the dtypes that "
                    "these parameters call for"
                )
        self.updates = state_dict["updates"]
        self.angle = state_dict["angle"]
        self._known = state_dict["known"]
        self._partial = state_dict["partial"]
        pending = state_dict["pending"]
        self._readout = None if pending is None else Readout.known(pending)
        self._due = state_dict["due"]
        self._lost = False
        for name, tensors in self._copies():
            for tensor, copy in zip(tensors, copies[name], strict=True):
                tensor.copy_(copy)

    def _config(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "observation": self.observation,
            "accumulation": self.accumulation,
            "direction": None if self.direction is None else str(self.direction),
            "lag": self.lag,
            "stride": self.stride,
        }

    def _copies(self) -> Iterable[tuple[str, list[torch.Tensor]]]:
        for sums in self._sums:
            for name in sums.copies:
                yield f"{type(sums).__name__}.{name}", getattr(sums, name)

    @torch.no_grad()
    def _allocate(self, params: Iterable[torch.Tensor]) -> None:
        self._params = _checked(params)
        anchored = [self.accumulation != "plain" and p.dtype == torch.float32 for p in self._params]
        plain = [p for p, flag in zip(self._params, anchored, strict=True) if not flag]
        others = [p for p, flag in zip(self._params, anchored, strict=True) if flag]
        self._sums: list[Sums] = []
        if plain:
            self._sums.append(PlainSums(plain))
        if others:
            self._sums.append(AnchoredSums(others, self.direction))
        # How many windows are remembered: 1 the last mean, 2 also the step that led to it.
        self._known = 0
        # Whether the current window lacks its first iterates.
        self._partial = False
        # From the first lost window to the next angle: warned of once.
        self._lost = False
        self._readout = None
        self._due = 0

    def _add(self) -> None:
        for sums in self._sums:
            sums.add()

    def _close(self) -> None:
        """End a window on the devices, and send its three products on their way to the host."""
        if self._partial:
            self._partial = False
            for sums in self._sums:
                sums.reset()
            return
        count = 1 if self.observation == "snapshot" else self.window // self.stride
        totals: dict[torch.device, torch.Tensor] = {}
        for sums in self._sums:
            for device, products in sums.close(count).items():
                before = totals.get(device)
                totals[device] = products if before is None else before + products
        self._readout = Readout(list(totals.values()))
        self._due = self.updates + self.lag

    def _read(self) -> float | None:
        """The angle of the window that was closed last."""
        assert self._readout is not None
        new, old, product = self._readout.read()
        self._readout = None
        self.angle = None
        if not math.isfinite(new):
            self._lose("are not finite, or moved beyond the float64 range,")
            return None
        if self._known and not new > _LEAST_SQUARE:
            self._lose("did not move")
            return None
        if self._known == 2:
            self.angle = angle_from_products(new, old, product)
            self._lost = False
        self._known = min(self._known + 1, 2)
        return self.angle

    def _lose(self, what: str) -> None:
        if not self._lost:
            warn(
                f"no angular velocity: the parameters {what} in the window of {self.window} "
                f"updates that ended with update {self.updates - self.lag}; tracking starts "
                "afresh, and further lost windows go unreported until angles return"
            )
        self._lost = True
        self._known = 0


def _checked(params: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if isinstance(params, torch.Tensor):
        raise TypeError("params must be an iterable of tensors, got a single tensor")
    if isinstance(params, torch.nn.Module):
        raise TypeError(
            "params must be an iterable of tensors, got the module "
            f"{type(params).__name__}: pass its .parameters()"
        )
    checked = tuple(params)
    for p in checked:
        if not isinstance(p, torch.Tensor):
            raise TypeError(
                f"params must hold tensors, as model.parameters() does, got {type(p).__name__}"
            )
        if not p.is_floating_point():
            raise TypeError(f"params must be real floating point, got dtype {p.dtype}")
        if p.layout is not torch.strided:
            raise TypeError(f"params must be dense, got layout {p.layout}")
    if sum(p.numel() for p in checked) == 0:
        raise ValueError(f"params must hold at least one element, got {len(checked)} tensors")
    return checked
