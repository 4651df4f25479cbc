"""What is timed: ways to follow the parameters of a network, and the training step beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves

from autodrop import AngularVelocity, AutoDrop

__all__ = ["Case", "build_cases"]

_NEVER = 10**9  # updates; a window that does not end here
_BUFFER = 2**25  # elements of the copy that measures bandwidth: 128 MiB, beyond any cache


@dataclass(frozen=True)
class Case:
    """One thing to time, just after an update of the parameters.

    name: key of the row; label: in words.
    call: what is timed.
    traffic: bytes that it has to read and write at least; None where that says nothing.
    state: bytes that it keeps between calls; None where it keeps none of its own.
    """

    name: str
    label: str
    call: Callable[[], object]
    traffic: int | None = None
    state: int | None = None


def build_cases(
    model: nn.Module, loss: Callable[[], torch.Tensor]
) -> tuple[Callable[[], object], list[Case]]:
    """An update of the parameters to make before each call, and the cases; the first is the floor.

    The floor is one `torch._foreach_add_` of the parameters to as many sums: no mean over
    iterates can be had for less. Together they hold some 30 copies of the parameters.
    """
    params = list(model.parameters())
    size = sum(p.numel() * p.element_size() for p in params)
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)

    def forward_backward() -> None:
        optimizer.zero_grad()
        loss().backward()

    forward_backward()
    values = [p.detach() for p in params]
    sums = [torch.zeros_like(value) for value in values]
    plain = AngularVelocity(params, _NEVER, accumulation="plain")
    anchored = AngularVelocity(params, _NEVER, accumulation="anchored")
    narrow = AngularVelocity(params, _NEVER, accumulation="anchored", direction=torch.bfloat16)
    autodrop = AutoDrop(optimizer, window=_NEVER)
    averaged = AveragedModel(model)
    averaged_multi = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn())
    ends = {kind: AngularVelocity(params, 1, accumulation=kind) for kind in ("plain", "anchored")}
    source = torch.zeros(_BUFFER, device=params[0].device)
    target = torch.zeros_like(source)
    # Reads and writes of arrays of the parameters' size: a sum 3, with the anchor 4, SGD's
    # momentum and update 5, a flat snapshot 2 and once more the same on its way to another device.
    snapshot = 2 if params[0].device.type == "cpu" else 4
    cases = [
        Case(
            "foreach_add",
            "torch._foreach_add_ (the floor)",
            lambda: torch._foreach_add_(sums, values),
            3 * size,
            size,
        ),
        Case("plain", "AngularVelocity, plain", plain.update, 3 * size, _kept(plain)),
        Case("anchored", "AngularVelocity, anchored", anchored.update, 4 * size, _kept(anchored)),
        Case(
            "anchored_bfloat16",
            "AngularVelocity, anchored, direction bfloat16",
            narrow.update,
            4 * size,
            _kept(narrow),
        ),
        Case("autodrop", "AutoDrop.step", autodrop.step, 4 * size, _kept(autodrop)),
        Case(
            "averaged",
            "AveragedModel, default",
            lambda: averaged.update_parameters(model),
            3 * size,
            _kept(averaged),
        ),
        Case(
            "averaged_multi",
            "AveragedModel, get_ema_multi_avg_fn",
            lambda: averaged_multi.update_parameters(model),
            3 * size,
            _kept(averaged_multi),
        ),
        Case(
            "snapshot",
            "flat snapshot to the host",
            lambda: parameters_to_vector(values).cpu(),
            snapshot * size,
            size,
        ),
        Case("optimizer", "optimizer step, SGD with momentum", optimizer.step, 5 * size, size),
        Case("forward_backward", "forward and backward", forward_backward),
        Case("end_plain", "window's end, plain", ends["plain"].update),
        Case("end_anchored", "window's end, anchored", ends["anchored"].update),
        Case(
            "copy",
            f"copy of {source.nbytes // 2**20} MiB",
            lambda: target.copy_(source),
            2 * source.nbytes,
        ),
    ]
    return optimizer.step, cases


def _kept(owner: Any) -> int:
    """Bytes of the tensors in a state_dict."""
    leaves = tree_leaves(owner.state_dict())
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
