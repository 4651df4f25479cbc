"""What can be counted, so that no clock is needed: operations, bytes, read-backs, waits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Counts", "count", "live_bytes", "peak_on_cuda", "waits_for_cuda"]

# What they write to they do not read.
_OVERWRITE = ("copy_", "zero_", "fill_", "_foreach_copy_", "_foreach_zero_", "_foreach_fill_")


@dataclass(frozen=True)
class Counts:
    """What one call does.

    operations: calls of torch's kernels; neither views nor allocations without a value.
    read_backs: times that the host reads a tensor: item, float, bool, or a copy from a GPU.
    moved: bytes that the operations read and write, as if no cache kept anything.
    peak: largest number of bytes of new tensors that exist at once.
    """

    operations: int
    read_backs: int
    moved: int
    peak: int


class _Tally(TorchDispatchMode):
    """Adds up what operations do."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.read_backs = self.moved = self.peak = 0
        self._live: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view:
            return result
        name = func.overloadpacket.__name__
        self.read_backs += func is torch.ops.aten._local_scalar_dense.default or (
            _on_host(result) and not _on_host((args, kwargs), empty=True)
        )
        came = _storages((args, kwargs))
        new = [x for x in _tensors(result) if StorageWeakRef(x.untyped_storage()) not in came]
        self._note(new)
        if name.startswith("empty"):
            return result
        self.operations += 1
        self.moved += sum(map(_nbytes, new))
        for i, argument in enumerate(func._schema.arguments):
            given = args[i] if i < len(args) else kwargs.get(argument.name)
            size = sum(map(_nbytes, _tensors(given)))
            written = argument.alias_info is not None and argument.alias_info.is_write
            # The keyword out= is written to only.
            read = not (written and (argument.kwarg_only or name in _OVERWRITE))
            self.moved += size * (written + read)
        return result

    def _note(self, new: list[torch.Tensor]) -> None:
        self.live()
        for x in new:
            storage = x.untyped_storage()
            self._live[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self._live.values()))

    def live(self) -> int:
        """Bytes of new tensors that still exist."""
        self._live = {ref: size for ref, size in self._live.items() if not ref.expired()}
        return sum(self._live.values())


def count(call: Callable[[], object]) -> Counts:
    """Count what `call` does.

    On the CPU a copy to the host is no read-back, and `tolist` is not seen. Nor is what a kernel
    allocates for itself, and on CUDA a backward pass, which runs in threads of its own.
    """
    with _Tally() as tally:
        call()
    return Counts(tally.operations, tally.read_backs, tally.moved, tally.peak)


def live_bytes(make: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    """What `make` returns, and the bytes of new tensors that live on with it.

    On CUDA what its allocator has handed out. Elsewhere what comes of operations: storages that
    are made without one, as deepcopy does for buffers, are not seen.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        made = make()
        return made, torch.cuda.memory_allocated(device) - before
    with _Tally() as tally:
        made = make()
    return made, tally.live()


def waits_for_cuda(call: Callable[[], object]) -> int:
    """Times that the host waits for a GPU, as far as torch's sync debug mode sees them.

    It sees no waits for events.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # The first time this warns of itself.
            torch.cuda.set_sync_debug_mode("warn")
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(found.message) for found in caught)


def peak_on_cuda(call: Callable[[], object], device: torch.device) -> int:
    """Largest number of bytes that the allocator hands out on top of what is held before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storages(tree: Any) -> set[StorageWeakRef]:
    return {StorageWeakRef(x.untyped_storage()) for x in _tensors(tree)}


def _nbytes(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()


def _on_host(tree: Any, empty: bool = False) -> bool:
    """Whether all tensors of a tree are on the CPU; `empty` if it has none."""
    tensors = _tensors(tree)
    return all(t.device.type == "cpu" for t in tensors) if tensors else empty
