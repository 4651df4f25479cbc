"""Three numbers on their way from the devices to the host, read when they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch

__all__ = ["Readout"]


class Readout:
    """Σ over devices of (⟨u,u⟩, ⟨v,v⟩, ⟨u,v⟩), float64; the copies start now and do not wait.

    On CUDA each device's three numbers go to pinned memory in the stream of the computation, with
    an event behind them; `read` waits for the events, which as a rule have long passed. On other
    devices the copy is an ordinary one, at the time of `read`.
    """

    def __init__(self, totals: Sequence[torch.Tensor]) -> None:
        self._events: list[torch.cuda.Event] = []
        self._totals: list[torch.Tensor] = []
        self._known: tuple[float, float, float] | None = None
        for total in totals:
            if total.device.type == "cuda":
                pinned = torch.empty(3, dtype=torch.float64, pin_memory=True)
                pinned.copy_(total, non_blocking=True)
                event = torch.cuda.Event()
                event.record(torch.cuda.current_stream(total.device))
                self._events.append(event)
                self._totals.append(pinned)
            else:
                self._totals.append(total)

    @classmethod
    def known(cls, products: Sequence[float]) -> Self:
        """Numbers that are on the host already."""
        readout = cls(())
        new, old, product = products
        readout._known = (new, old, product)
        return readout

    def read(self) -> tuple[float, float, float]:
        """The three sums; may be called again."""
        if self._known is None:
            for event in self._events:
                event.synchronize()
            rows = [total.tolist() for total in self._totals]
            # fsum raises for inf − inf, which is what a parameter that is not finite leaves.
            sums = [
                math.fsum(column) if all(map(math.isfinite, column)) else math.nan
                for column in zip(*rows, strict=True)
            ]
            self._known = (sums[0], sums[1], sums[2])
        return self._known
