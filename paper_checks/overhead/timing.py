"""How long a call takes on a device, and how long to launch it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["CLOCKS", "Taken", "on_cuda", "on_host", "threads"]

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}

# Ticks per second that no GPU's clock exceeds, and what is slept in any case.
_FASTEST = 4e9
_SHORTEST = 1_000_000


class Taken(NamedTuple):
    """seconds, and the page faults meanwhile: None on CUDA and on Windows."""

    seconds: float
    faults: int | None


def on_host(
    prepare: Callable[[], object],
    call: Callable[[], object],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> Taken:
    """How long the host is busy with `call`, just after `prepare`, on an idle device.

    On the CPU that is all. On CUDA it is what it takes to launch, and to wait where the call itself
    waits.
    """
    prepare()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        start = clock()
        call()
        return Taken(clock() - start, None)
    before = _faults()
    start = clock()
    call()
    seconds = clock() - start
    after = _faults()
    return Taken(seconds, None if before is None or after is None else after - before)


def on_cuda(
    prepare: Callable[[], object], call: Callable[[], object], device: torch.device, launch: float
) -> float:
    """Seconds between two events in the current stream, around `call`, just after `prepare`.

    The device is kept busy for `launch` seconds before, so that the host, which takes as long to
    launch the call, runs ahead, as in training. If the call waits for the device, what it launches
    after that is timed together with its launch.
    """
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        prepare()
        torch.cuda.synchronize()
        torch.cuda._sleep(int(_FASTEST * launch) + _SHORTEST)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000


def _faults() -> int | None:
    """Page faults of the process that needed no disk, so far."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch work with so many threads on the CPU, and put the number back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
