"""What is timed: ways to follow the parameters of a network, and the training step beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves

from autodrop import AngularVelocity, AutoDrop
from paper_checks.overhead.counting import live_bytes

__all__ = ["TRACKERS", "Case", "Tracker", "build_cases"]

_BUFFER = 2**26  # elements of the buffers that measure bandwidth: 256 MiB each
_RATE = 1e-3


@dataclass(frozen=True)
class Tracker:
    """A way to follow the parameters that this toolkit offers: one line, two rows.

    name: key of the row of an ordinary step; that of a window's end is "end_" + name.
    options: of `AngularVelocity`, or of `AutoDrop` if `scheduler`.
    traffic: copies of the parameters that an ordinary step reads and writes at least.
    """

    name: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    traffic: int = 4
    scheduler: bool = False


TRACKERS = (
    Tracker("plain", "plain", {"accumulation": "plain"}, 3),
    Tracker("anchored", "anchored", {"accumulation": "anchored"}),
    Tracker(
        "anchored_bfloat16",
        "anchored, direction bfloat16",
        {"accumulation": "anchored", "direction": torch.bfloat16},
    ),
    Tracker("autodrop", "AutoDrop", scheduler=True),
)


@dataclass(frozen=True)
class Case:
    """One thing to time, just after an update of the parameters.

    rows: names and labels; with two of them the calls are the one and the other in turn.
    call: what is timed.
    traffic: bytes that the first has to read and write at least; None where that says nothing.
    state: bytes of its state on the device of the parameters, as its state_dict has it.
    held: bytes of all tensors that came with it and stay, scratch included.
    """

    rows: tuple[tuple[str, str], ...]
    call: Callable[[], object]
    traffic: int | None = None
    state: int | None = None
    held: int | None = None


def build_cases(
    model: nn.Module,
    loss: Callable[[], torch.Tensor],
    trackers: tuple[Tracker, ...] = TRACKERS,
) -> tuple[Callable[[], object], list[Case]]:
    """An update of the parameters to make before each call, and the cases; the first is the floor.

    The floor is one `torch._foreach_add_` of the parameters to as many sums: no mean over
    iterates can be had for less. Together they hold some 20 copies of the parameters.
    """
    params = list(model.parameters())
    device = params[0].device
    size = sum(p.numel() * p.element_size() for p in params)
    optimizer = torch.optim.SGD(params, lr=_RATE, momentum=0.9)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return loss()

    def forward_backward() -> None:
        optimizer.zero_grad()
        loss().backward()

    forward_backward()
    values = [p.detach() for p in params]
    sums, sums_held = live_bytes(lambda: [torch.zeros_like(value) for value in values], device)
    source = torch.zeros(_BUFFER, device=device)
    target = torch.zeros_like(source)
    # Reads and writes of arrays of the parameters' size: a sum 3, SGD's momentum and update 5,
    # a flat snapshot 2 and once more the same on its way to another device.
    snapshot = 2 if device.type == "cpu" else 4
    cases = [
        Case(
            (("foreach_add", "torch._foreach_add_"),),
            lambda: torch._foreach_add_(sums, values),
            3 * size,
            size,
            sums_held,
        )
    ]
    for tracker in trackers:
        owner, held = live_bytes(partial(_make, tracker, optimizer, params), device)
        rows = (
            (tracker.name, tracker.label),
            (f"end_{tracker.name}", f"{tracker.label}: window's end"),
        )
        call = owner.step if tracker.scheduler else owner.update
        cases.append(Case(rows, call, tracker.traffic * size, _kept(owner, device), held))
    for name, label, options in (
        ("averaged", "AveragedModel, default", {}),
        (
            "averaged_multi",
            "AveragedModel, multi_avg_fn",
            {"multi_avg_fn": get_ema_multi_avg_fn()},
        ),
    ):
        owner = AveragedModel(model, **options)
        call = partial(owner.update_parameters, model)
        kept = _kept(owner, device)
        cases.append(Case(((name, label),), call, 3 * size, kept, kept))
    cases += [
        Case(
            (("snapshot", "snapshot to the host"),),
            lambda: parameters_to_vector(values).cpu(),
            snapshot * size,
        ),
        Case((("optimizer", "SGD with momentum"),), optimizer.step, 5 * size, size, size),
        Case((("forward", "forward alone"),), forward),
        Case((("forward_backward", "forward and backward"),), forward_backward),
        Case(
            (("stream", f"add_ of {source.nbytes // 2**20} MiB"),),
            lambda: target.add_(source),
            3 * source.nbytes,
        ),
        Case(
            (("copy", f"copy of {source.nbytes // 2**20} MiB"),),
            lambda: target.copy_(source),
            2 * source.nbytes,
        ),
    ]
    return optimizer.step, cases


def _make(tracker: Tracker, optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> Any:
    """With windows of two updates: an ordinary step and an end in turn."""
    if tracker.scheduler:
        # Nothing drops, so that one scheduler does not disturb another.
        return AutoDrop(optimizer, 2, min_lr=_RATE, **tracker.options)
    return AngularVelocity(params, 2, **tracker.options)


def _kept(owner: Any, device: torch.device) -> int:
    """Bytes of the tensors of a state_dict on a device."""
    leaves = tree_leaves(owner.state_dict())
    return sum(x.nbytes for x in leaves if isinstance(x, torch.Tensor) and x.device == device)
