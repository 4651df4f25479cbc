"""How long a call takes on a device, and how often it makes the host wait for numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["read_backs", "seconds"]


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds from an idle device to the end of all work that `call` starts.

    On CUDA between two events in the current stream: the longer of what the host takes to launch
    and what the device takes to compute. In training the host runs ahead of the device, so that
    this is an upper bound of what the call adds to a step.
    """
    if device.type == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000


class _ReadBacks(TorchDispatchMode):
    """Counts the operations that bring numbers from a tensor to Python, or from GPU to host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += func is torch.ops.aten._local_scalar_dense.default or (
            _on_host(result) and not _on_host((args, kwargs), empty=True)
        )
        return result


def _on_host(tree: Any, empty: bool = False) -> bool:
    """Whether all tensors of a tree are on the CPU; `empty` if it has none."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return all(t.device.type == "cpu" for t in tensors) if tensors else empty


def read_backs(call: Callable[[], object]) -> int:
    """Times that `call` makes the host read a tensor: item, float, bool, or a copy from a GPU.

    On the CPU a copy to the host is none, and `tolist` is not seen.
    """
    with _ReadBacks() as mode:
        call()
    return mode.count
