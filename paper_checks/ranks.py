"""The claims of an audit over the ranks of torchrun: handed out one at a time, kept by rank 0.

Everything goes through torch's key-value store, which torchrun keeps for its ranks: a counter of
the claims taken, a result under the number of each.  There is no collective call, so no rank waits
for another before the end, and no file system need be shared.  What other ranks finish while rank
0 is at a claim is on disk after that claim, or when torchrun ends the ranks since one was
interrupted or died.
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch.distributed import Store

__all__ = ["Ranks", "of_torchrun"]

T = TypeVar("T")

_POLL = 0.05  # seconds
_START = 600.0  # seconds that rank 0 may take to begin
_PART = 1 << 20  # characters of a value; the store takes 8 MiB


def of_torchrun() -> Ranks | None:
    """The ranks that torchrun started this process among; None without it, or if it is the only."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    import torch.distributed as dist

    store, rank, _ = next(dist.rendezvous("env://"))
    return Ranks(dist.PrefixStore("paper_checks", store), rank, int(os.environ["LOCAL_RANK"]))


@dataclass(frozen=True)
class Ranks:
    """One of the ranks that share a store; `local` is its number on its machine."""

    store: Store
    rank: int
    local: int

    def spread(self, work: Callable[[int], T], count: int) -> Iterator[tuple[int, T]]:
        """(i, work(i)) for i < count as they are done, by this rank 0 and by those that serve.

        Ends in KeyboardInterrupt when a rank is interrupted or dies, after what was finished by
        then. When the iterator is closed before its end, the others take no further claim.
        """
        missing = set(range(count))
        # torchrun's signal when another rank died: what has arrived is to be kept.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for i in self._taken(count):
                value = work(i)
                missing.remove(i)
                yield i, value
                yield from self._arrived(missing)
            while missing and not self._stopped:
                time.sleep(_POLL)
                yield from self._arrived(missing)
            if missing:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self._stop()
            yield from self._arrived(missing)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            if missing:
                self._stop()

    def serve(self, work: Callable[[int], Any], count: int) -> int:
        """Do what rank 0 spreads, until nothing is left, and return the status of :meth:`finish`.

        An interrupt ends the whole audit, not this rank alone.
        """
        try:
            for i in self._taken(count):
                self._put(f"result/{i}", work(i))
            return self._status()
        except KeyboardInterrupt:
            self._stop()
            return self._status()

    def finish(self, status: int) -> None:
        """Tell the other ranks the exit status."""
        self.store.set("status", str(status))

    def differences(self, plan: Mapping[str, Any]) -> list[str]:
        """What of the plan is not as on rank 0, in words; nothing on rank 0."""
        if self.rank == 0:
            self._put("plan", dict(plan))
            return []
        deadline = time.monotonic() + _START
        while not self.store.check(["plan"]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank 0 has not begun within {_START:.0f} s")
            time.sleep(_POLL)
        first = self._get("plan")
        return [
            f"{name} is {plan.get(name)!r}, on rank 0 {first.get(name)!r}"
            for name in first | plan
            if plan.get(name) != first.get(name)
        ]

    @property
    def _stopped(self) -> bool:
        return self.store.check(["stopped"])

    def _stop(self) -> None:
        self.store.set("stopped", "yes")

    def _taken(self, count: int) -> Iterator[int]:
        """The numbers that no other rank has taken, one at a time."""
        while not self._stopped and (i := self.store.add("taken", 1) - 1) < count:
            yield i

    def _arrived(self, missing: set[int]) -> Iterator[tuple[int, Any]]:
        for i in sorted(missing):
            if self.store.check([f"result/{i}"]):
                missing.remove(i)
                yield i, self._get(f"result/{i}")

    def _status(self) -> int:
        while not self.store.check(["status"]):
            time.sleep(_POLL)
        return int(self.store.get("status"))

    def _put(self, key: str, value: Any) -> None:
        text = base64.b64encode(pickle.dumps(value)).decode()
        parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
        for k, part in enumerate(parts):
            self.store.set(f"{key}/{k}", part)
        self.store.set(key, str(len(parts)))  # last: now it is there

    def _get(self, key: str) -> Any:
        parts = [self.store.get(f"{key}/{k}") for k in range(int(self.store.get(key)))]
        return pickle.loads(base64.b64decode(b"".join(parts)))
