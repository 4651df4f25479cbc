"""Independent items of work over the ranks of a process group, with one result for all ranks.

A simulation takes the group as an argument, None for this process alone: it does not look whether
`torch.distributed` is initialized, so a call on one rank only, to print something, waits for
nobody.  `torch.distributed.group.WORLD` stands for all ranks, and is None while nothing is
initialized, so that a script may run under python and under torchrun:

    if "RANK" in os.environ:  # set by torchrun
        torch.distributed.init_process_group("gloo")
    run = simulate.run(…, group=torch.distributed.group.WORLD)  # the same on every rank

Every rank of the group makes the same call; only `device` may name another device of its kind.
What comes back is gathered by `all_gather_object`: with the backend nccl it passes through
`torch.cuda.current_device()`, which the script sets.  Gloo needs no GPU and serves all devices.

A rank that raises, or that was called with other arguments, is an error on every rank: each of the
functions here ends in one collective call, which no rank leaves out.
"""

from __future__ import annotations

import hashlib
import pickle
import reprlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["agreement", "spread"]

T = TypeVar("T")

_shown = reprlib.Repr()
_shown.maxother = 60  # characters of an argument in a message


@contextmanager
def agreement(group: ProcessGroup | None) -> Iterator[dict[str, Any]]:
    """What is put into the dictionary must be the same on every rank; nothing is checked for None.

    Arrays, numbers and texts are compared by value, and so are the attributes of other objects.

    Raises
    ------
    TypeError, ValueError
        If `group` is neither None nor a process group, or one that this process is no member of.
    ValueError
        On every rank, if an entry differs between two of them.
    Exception
        On every rank, if the block raises on one of them: the error of the lowest such rank.
    """
    if group is not None:
        _require_member(group)
    same: dict[str, Any] = {}
    prints: dict[str, tuple[str, str]] = {}
    error: Exception | None = None
    try:
        yield same
        if group is not None:
            prints = {name: (_digest(value), _shown.repr(value)) for name, value in same.items()}
    except Exception as raised:
        if group is None:
            raise
        error = raised
    if group is None:
        return
    rank = dist.get_rank(group)
    everywhere = _all_gather((_sendable(rank, rank, error), prints), group)
    _raise_first([failure for failure, _ in everywhere], rank, error)
    _, first = everywhere[0]
    for other, (_, theirs) in enumerate(everywhere):
        for name in (*first, *sorted(theirs.keys() - first.keys())):
            mine, its = first.get(name, ("", "nothing")), theirs.get(name, ("", "nothing"))
            if mine[0] != its[0]:
                raise ValueError(
                    f"{name} must be the same on every rank of the group, "
                    f"got {mine[1]} on rank 0 and {its[1]} on rank {other}"
                )


def spread(work: Callable[[int], T], count: int, group: ProcessGroup | None) -> list[T]:
    """[work(0), …, work(count − 1)] on every rank, work(i) done by rank i mod the group's size.

    None: by this process. `count` must be the same on every rank, and results picklable.

    Raises
    ------
    Exception
        On every rank, if work raises on one of them: the error of the smallest i, as without ranks.
    """
    if group is None:
        return [work(i) for i in range(count)]
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    done: list[T] = []
    error: Exception | None = None
    i = rank
    try:
        for i in range(rank, count, size):
            done.append(work(i))
    except Exception as raised:
        error = raised
    everywhere = _all_gather((_sendable(i, rank, error), done), group)
    _raise_first([failure for failure, _ in everywhere], rank, error)
    return [everywhere[i % size][1][i // size] for i in range(count)]


def _require_member(group: Any) -> None:
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("group must contain this process: only its members may call")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group must be a torch.distributed.ProcessGroup or None, got {group!r}")


def _all_gather(mine: Any, group: ProcessGroup) -> list[Any]:
    """One object of each rank.  torch puts the bytes where the group's backend needs them."""
    everywhere: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everywhere, mine, group=group)
    return everywhere


_Failure = tuple[int, int, Exception, str]


def _sendable(position: int, rank: int, error: Exception | None) -> _Failure | None:
    """(position, rank, error, traceback), with a RuntimeError in place of what cannot be sent."""
    if error is None:
        return None
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception class may do anything here
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return position, rank, error, text


def _raise_first(failures: list[_Failure | None], rank: int, mine: Exception | None) -> None:
    """Raise the failure of the lowest position, if there is one, on every rank."""
    raised = [failure for failure in failures if failure is not None]
    if not raised:
        return
    _, where, error, text = min(raised, key=lambda failure: failure[0])
    if where == rank and mine is not None:
        raise mine
    error.add_note(f"raised on rank {where} of the group:\n{text}")
    raise error


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """What makes up a value, the same in every process: pickles depend on shared references."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"array {value.dtype.str} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, np.ndarray):
        yield f"array {value.shape}".encode()
        yield from _parts(value.ravel().tolist())
    elif isinstance(value, tuple | list):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif hasattr(value, "__qualname__"):  # a class or a function
        yield f"{value.__module__}.{value.__qualname__}".encode()
    elif hasattr(value, "__dict__"):
        yield from _parts(type(value))
        yield from _parts(sorted(vars(value).items()))
    elif type(value).__repr__ is object.__repr__:  # an address: nothing to compare
        yield from _parts(type(value))
    else:
        yield repr(value).encode()
