"""The angular velocity of live parameters: window means, their steps, the angle between steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from autodrop.angle import angle_from_products
from autodrop.rules import Observation, check_window
from autodrop.warning import warn

__all__ = ["AngularVelocity"]

# A squared length below this has lost digits to underflow: normal numbers end at 2.2e-308.
_LEAST_SQUARE = torch.finfo(torch.float64).tiny / torch.finfo(torch.float64).eps
# Elements per float64 product, which bounds the temporary memory of a window's end.
_CHUNK = 2**24


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
    window: k ≥ 1 updates. T updates give ⌊T/k⌋ − 2 angles, the first at T = 3k.
    dtype: of the three copies of the parameters that are kept. float64 resolves what the
        parameters themselves do. float32 halves the memory and rounds the sums: angles near 0
        come out 0.02° too large where the means step by 1e-3 of ‖x‖, 0.2° at 1e-4, 5° at 1e-5;
        near 90° the error is 1e-4° to 0.1° (measured, k = 64, 2·10⁵ float32 parameters).
    observation: "mean", or "snapshot", for which y_i is the iterate after the first update of
        window i (arXiv 2111.15317) and window ≥ 2.

    Products are summed in float64 over all parameters. A window in which the mean did not move
    (by less than 1e-146) or is not finite has no angle: `update` warns (RuntimeWarning), returns
    None and starts afresh, and angles return with the third good window after it. Until then
    further lost windows go unreported.

    Raises TypeError unless params are dense real floating-point tensors, ValueError if they have
    no elements or for a window, dtype or observation out of range.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        window: int = 64,
        dtype: torch.dtype = torch.float64,
        observation: Observation = "mean",
    ) -> None:
        if observation not in ("mean", "snapshot"):
            raise ValueError(f"observation must be 'mean' or 'snapshot', got {observation!r}")
        check_window(window, observation)
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        self.window = window
        self.observation = observation
        self.dtype = dtype
        self.updates = 0
        self.angle: float | None = None
        """The angle of the last finished window in radians, None if there was none."""
        self._allocate(params)
        if observation == "mean":
            self._accumulate()

    @property
    def params(self) -> tuple[torch.Tensor, ...]:
        """The tensors that are followed."""
        return self._params

    def update(self) -> float | None:
        """Take note of one update of the parameters; ω_i in radians, [0, π], if it ends a window.

        None within a window, and where a window has no angle (see above).
        """
        self.updates += 1
        phase = self.updates % self.window
        if self.observation == "snapshot":
            if phase != 1:
                return None
            self._accumulate()
            return self._close()
        # The window ends before x_t, t = (i+1)k, which opens the next one.
        angle = self._close() if phase == 0 else None
        self._accumulate()
        return angle

    def restart(self, params: Iterable[torch.Tensor] | None = None) -> None:
        """Forget what was seen; go on with the next whole window, on `params` if given.

        For when the parameters change by something else than an update. Windows keep ending where
        they would have ended. Raises TypeError or ValueError for `params`, as the constructor.
        """
        if params is not None:
            self._allocate(params)
        torch._foreach_zero_(self._sum)
        # What is left of the current window is no whole window.
        self._known = -1 if self.observation == "mean" else 0
        self._lost = False
        self.angle = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that `update` depends on, copied; loads with torch.load(weights_only=True)."""
        return {
            **self._config(),
            "shapes": [list(p.shape) for p in self._params],
            "updates": self.updates,
            "angle": self.angle,
            "known": self._known,
            "sum": [tensor.clone() for tensor in self._sum],
            "previous": [tensor.clone() for tensor in self._previous],
            "step": [tensor.clone() for tensor in self._step],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises ValueError, and changes nothing, unless it has this window, observation, dtype and
        these shapes of the parameters.
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
        self.updates = state_dict["updates"]
        self.angle = state_dict["angle"]
        self._known = state_dict["known"]
        self._lost = False
        for name, tensors in (
            ("sum", self._sum),
            ("previous", self._previous),
            ("step", self._step),
        ):
            for tensor, copy in zip(tensors, state_dict[name], strict=True):
                tensor.copy_(copy)

    def _config(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "observation": self.observation,
            "dtype": str(self.dtype),
        }

    def _allocate(self, params: Iterable[torch.Tensor]) -> None:
        self._params = _checked(params)
        self._sum, self._previous, self._step = (
            [torch.zeros(p.shape, dtype=self.dtype, device=p.device) for p in self._params]
            for _ in range(3)
        )
        # What is remembered: 1 the last window, 2 also the step that led to it; −1 if even the
        # current window is not whole.
        self._known = 0
        # From the first lost window to the next angle: warned of once.
        self._lost = False
        # One multi-tensor operation for each device and dtype.
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, p in enumerate(self._params):
            groups.setdefault((p.device, p.dtype), []).append(i)
        self._groups = list(groups.values())

    @torch.no_grad()
    def _accumulate(self) -> None:
        for group in self._groups:
            torch._foreach_add_([self._sum[i] for i in group], [self._params[i] for i in group])

    @torch.no_grad()
    def _close(self) -> float | None:
        """End a window: the sum does for the mean, since angles do not see the factor 1/k."""
        self.angle = None
        if self._known < 0:
            self._known = 0
            torch._foreach_zero_(self._sum)
            return None
        if not _finite(self._sum):
            self._lose("are not finite")
            return None
        if self._known > 0:
            # previous ← y_i − y_{i−1}
            torch._foreach_neg_(self._previous)
            torch._foreach_add_(self._previous, self._sum)
            new, old, product = _products(self._previous, self._step)
            if not _LEAST_SQUARE < new < math.inf:
                self._lose("did not move" if new < math.inf else "moved beyond the float64 range")
                return None
            if self._known == 2:
                self.angle = angle_from_products(new, old, product)
                self._lost = False
        self._step, self._previous, self._sum = self._previous, self._sum, self._step
        torch._foreach_zero_(self._sum)
        self._known = min(self._known + 1, 2)
        return self.angle

    def _lose(self, what: str) -> None:
        if not self._lost:
            warn(
                f"no angular velocity: the parameters {what} in the window of {self.window} "
                f"updates that ended with update {self.updates}; tracking starts afresh, and "
                "further lost windows go unreported until angles return"
            )
        self._lost = True
        torch._foreach_zero_(self._sum)
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


def _finite(tensors: list[torch.Tensor]) -> bool:
    """Whether every entry is finite, with one read-back from each device."""
    norms: dict[torch.device, list[torch.Tensor]] = {}
    filled = [tensor for tensor in tensors if tensor.numel()]
    for tensor, norm in zip(filled, torch._foreach_norm(filled, ord=math.inf), strict=True):
        norms.setdefault(tensor.device, []).append(norm)
    return all(math.isfinite(torch.stack(of_device).sum().item()) for of_device in norms.values())


def _products(us: list[torch.Tensor], vs: list[torch.Tensor]) -> tuple[float, float, float]:
    """⟨u,u⟩, ⟨v,v⟩, ⟨u,v⟩ in float64 over all tensors, with one read-back from each device."""
    totals: dict[torch.device, torch.Tensor] = {}
    for u, v in zip(us, vs, strict=True):
        pieces = zip(u.flatten().split(_CHUNK), v.flatten().split(_CHUNK), strict=True)
        for a, b in ((a.double(), b.double()) for a, b in pieces):
            products = torch.stack((a.dot(a), b.dot(b), a.dot(b)))
            totals[u.device] = totals[u.device] + products if u.device in totals else products
    read = [total.tolist() for total in totals.values()]
    return tuple(map(math.fsum, zip(*read, strict=True)))  # type: ignore[return-value]
