"""What a drop does to an optimizer's momentum."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer

__all__ = ["Momentum", "change_momentum", "check_momentum"]

Momentum = Literal["keep", "rescale", "zero"]

# Where torch's optimizers keep the running mean or sum of gradients.
_BUFFERS = ("momentum_buffer", "exp_avg")


def check_momentum(optimizer: Optimizer, momentum: Momentum) -> None:
    """Raises ValueError for an unknown word, or to change momentum where there is none."""
    if momentum not in get_args(Momentum):
        raise ValueError(f"momentum must be one of {get_args(Momentum)}, got {momentum!r}")
    if momentum == "keep":
        return
    if not any(group.get("momentum") or "betas" in group for group in optimizer.param_groups):
        raise ValueError(
            f"momentum = {momentum!r} needs an optimizer with momentum or betas, got "
            f"{type(optimizer).__name__} without"
        )


def change_momentum(
    optimizer: Optimizer, group: dict[str, Any], momentum: Momentum, ratio: float | torch.Tensor
) -> None:
    """After a drop of the group's rate from α to α/ratio.

    keep     b stays. The velocity αb falls with the rate, at once: torch's behaviour.
    rescale  b ← ratio·b. The velocity stays: the paper's Unified Momentum, eq. (9), whose steps
             x_{t+1} − x_t do not change with α by themselves.
    zero     b ← 0: the next step is along the next gradient.

    b is SGD's momentum_buffer or Adam's exp_avg; Adam's mean square stays in any case. Where the
    length of a step does not depend on that of b, as in Muon, rescaling changes little. ratio may
    be a tensor of one element on the parameters' device; 1 changes nothing.
    """
    if momentum == "keep":
        return
    # A ratio that is a tensor goes with buffers of one device and dtype.
    alike: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for p in group["params"]:
        for name in _BUFFERS:
            buffer = optimizer.state.get(p, {}).get(name)
            if isinstance(buffer, torch.Tensor):
                alike.setdefault((buffer.device, buffer.dtype), []).append(buffer)
    for buffers in alike.values():
        if momentum == "rescale":
            torch._foreach_mul_(buffers, _like(buffers[0], ratio))
        elif isinstance(ratio, torch.Tensor):
            torch._foreach_mul_(buffers, _like(buffers[0], ratio == 1.0))
        elif ratio != 1.0:
            torch._foreach_zero_(buffers)


def _like(buffer: torch.Tensor, value: float | torch.Tensor) -> float | torch.Tensor:
    if not isinstance(value, torch.Tensor):
        return value
    return value.reshape(()).to(buffer.device, buffer.dtype, non_blocking=True)
