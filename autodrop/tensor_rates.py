"""Which optimizers follow a learning rate that is a tensor, without reading it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["check_tensor_rates"]

# Other types of parameters get torch's multi-tensor code only where foreach=True asks for it.
_NATIVE: tuple[type, ...] = (torch.Tensor, torch.nn.Parameter)

Group = dict[str, Any]
Needs = tuple[Callable[[Group], bool], str]


def _foreach(group: Group) -> bool:
    if group.get("foreach") is None:
        return all(type(p) in _NATIVE for p in group["params"]) and not group.get("differentiable")
    return bool(group["foreach"])


def _capturable(group: Group) -> bool:
    return bool(group["capturable"])


def _fused(group: Group) -> bool:
    return bool(group["fused"])


# Read in torch 2.13, and the same in 2.6: where the eager step on a device does not read its rate.
_READ_BACK: dict[str, Needs] = {
    "SGD": (_fused, "fused=True"),
    "Adam": (lambda g: _fused(g) or _capturable(g), "fused=True or capturable=True"),
    "AdamW": (lambda g: _fused(g) or _capturable(g), "fused=True or capturable=True"),
    "Adagrad": (lambda g: _fused(g) or _foreach(g), "fused=True or foreach=True"),
    "Adadelta": (lambda g: _capturable(g) and _foreach(g), "capturable=True and foreach=True"),
    "RMSprop": (lambda g: _capturable(g) and _foreach(g), "capturable=True and foreach=True"),
    "Adamax": (_capturable, "capturable=True"),
    "ASGD": (_capturable, "capturable=True"),
    "NAdam": (_capturable, "capturable=True"),
}
_NEVER = {
    "Adafactor": "reads its rate back at every step",
    "Muon": "reads its rate back at every step",
}
# On every device, the CPU too.
_DEAF = {
    "Rprop": "reads its rate once, at its first step: no drop can have an effect",
    "LBFGS": "keeps its rate for the next step: a drop in place changes the step that it remembers",
}


def check_tensor_rates(optimizer: Optimizer) -> None:
    """Raises unless every rate is a tensor, in place on its parameters' device, which a step obeys.

    That is what `DeviceRule` needs: it writes rates in place, where they are, and a step that
    reads one back would wait for the device. Options are those of each parameter group. Reading on
    the CPU costs nothing and is allowed there. Optimizers that are not torch's own are not checked
    for what their step does, and steps are taken to be eager (compiled, some more would do).

    Raises TypeError for a rate that is no floating-point tensor; ValueError for one that has
    dimensions, is not where the group's parameters are, or that the optimizer does not follow or
    reads back, naming the option with which it would not.
    """
    for i, group in enumerate(optimizer.param_groups):
        _check_tensor(i, group)
        for cls in type(optimizer).__mro__:
            if getattr(torch.optim, cls.__name__, None) is cls:
                _check_step(cls.__name__, i, group)


def _check_tensor(i: int, group: Group) -> None:
    α = group["lr"]
    if not (isinstance(α, torch.Tensor) and α.is_floating_point()):
        raise TypeError(
            f"lr of parameter group {i} must be a floating-point tensor, got {α!r}: "
            "pass lr=torch.tensor(…, device=…) to the optimizer"
        )
    if α.dim():  # torch's own optimizers took one element in one dimension later than 2.6
        raise ValueError(
            f"lr of parameter group {i} must have no dimension, got shape {tuple(α.shape)}"
        )
    for p in group["params"]:
        if p.device != α.device:
            raise ValueError(
                f"lr of parameter group {i} must be on the device of its parameters, {p.device}, "
                f"got {α.device}"
            )


def _check_step(name: str, i: int, group: Group) -> None:
    α = group["lr"]
    if name in _DEAF:
        raise ValueError(f"optimizer must follow its rate, got {name}, which {_DEAF[name]}")
    # Torch raises as well, but only at the first step.
    if name in ("Adam", "AdamW") and group["foreach"] and not group["capturable"]:
        raise ValueError(
            f"{name} takes a tensor as its rate with foreach=True only if capturable=True, got "
            f"capturable={group['capturable']} in parameter group {i}"
        )
    if α.device.type == "cpu":
        return
    if name in _NEVER:
        raise ValueError(f"optimizer must not read its rate back, got {name}, which {_NEVER[name]}")
    if name in _READ_BACK:
        holds, needs = _READ_BACK[name]
        if not holds(group):
            got = {k: group[k] for k in ("fused", "foreach", "capturable") if k in group}
            raise ValueError(
                f"{name} reads its rate back at every step unless {needs}, got "
                + ", ".join(f"{k}={v}" for k, v in got.items())
                + f" in parameter group {i}"
            )
    if group.get("fused") and α.dtype != torch.float32:
        raise ValueError(
            f"lr of parameter group {i} must be torch.float32 for fused=True, got {α.dtype}"
        )
