"""A function on several ranks: processes of this machine with a gloo process group of their own.

The processes come from multiprocessing's fork server, which has imported torch once: half a second
for a call after the first.  They know nothing of the test's monkeypatching and environment: what a
rank needs is an argument, or happens in the function.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["RankError", "run_ranks"]

_PRELOAD = ["numpy", "torch", "torch.distributed"]
_GRACE = 3.0  # seconds that the other ranks have to end by themselves after one that failed


class RankError(RuntimeError):
    """A rank raised, died or did not end in time; the message holds the tracebacks of all such."""


def run_ranks(
    function: Callable[..., Any], world: int, tmp_path: Path, *args: Any, timeout: float = 60.0
) -> list[Any]:
    """[function(*args) on rank 0, …, on rank world − 1], under a fresh gloo process group.

    Parameters
    ----------
    function : of a module's top level, so that the ranks find it by name; `torch.distributed` is
        initialized when it is called, and warnings are errors in it.
    tmp_path : a directory; each call makes one of its own in it, for rendezvous and results.
    args : picklable, the same for every rank, as is what the function returns.
    timeout : seconds for everything; a collective call times out after half of them.

    Raises
    ------
    RankError
        If a rank raises or dies, or has not ended in time; the processes are killed.
    """
    room = Path(tempfile.mkdtemp(prefix="ranks-", dir=tmp_path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    deadline = time.monotonic() + timeout
    processes: list[BaseProcess] = []
    try:
        for rank in range(world):
            # Daemons: they end with the test session, whatever becomes of it.
            process = context.Process(
                target=_rank, args=(function, rank, world, room, timeout, args), daemon=True
            )
            process.start()
            processes.append(process)
        late = _join(processes, deadline)
        for rank in late:
            with contextlib.suppress(ProcessLookupError):
                os.kill(processes[rank].pid, signal.SIGUSR1)  # it writes where it hangs
        time.sleep(0.5 if late else 0.0)
    finally:
        for process in processes:
            process.kill()
            process.join()
    values, failures = [], []
    for rank, process in enumerate(processes):
        outcome, stack = room / f"outcome-{rank}", room / f"stack-{rank}"
        if rank in late:
            where = stack.read_text() if stack.exists() else ""
            failures.append(f"rank {rank} had not ended, and was killed\n{where}")
        elif outcome.exists():
            ok, value = pickle.loads(outcome.read_bytes())
            (values if ok else failures).append(value if ok else f"rank {rank} raised\n{value}")
        else:
            failures.append(f"rank {rank} died with exit status {process.exitcode}\n")
    if failures:
        raise RankError(f"{len(failures)} of {world} ranks failed\n" + "\n".join(failures))
    return values


def _join(processes: Sequence[BaseProcess], deadline: float) -> set[int]:
    """The ranks that have not ended at the deadline, which a failure brings forward."""
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running and (left := deadline - time.monotonic()) > 0:
        for sentinel in wait(list(running), left):
            process = processes[running.pop(sentinel)]
            process.join()
            if process.exitcode:
                deadline = min(deadline, time.monotonic() + _GRACE)
    return set(running.values())


def _rank(
    function: Callable[..., Any],
    rank: int,
    world: int,
    room: Path,
    timeout: float,
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback[0]
    stack = (room / f"stack-{rank}").open("w")
    faulthandler.register(signal.SIGUSR1, file=stack)
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(str(room / "store"), world),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout / 2),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome = pickle.dumps((True, function(*args)))
    except BaseException:
        outcome = pickle.dumps((False, traceback.format_exc()))
    written = room / f"part-{rank}"
    written.write_bytes(outcome)
    written.rename(room / f"outcome-{rank}")
    ok, _ = pickle.loads(outcome)
    if not ok:
        sys.exit(1)  # the group is left as it is: its end would wait for the other ranks
    dist.destroy_process_group()
