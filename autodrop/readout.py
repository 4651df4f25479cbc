"""A few numbers on their way from the device to the host, read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

__all__ = ["Readout"]


class Readout:
    """A short float64 vector; its copy to the host starts now and does not wait.

    From CUDA it goes to pinned memory in the stream of the computation, with an event behind it;
    `read` waits for the event, which as a rule has long passed. From other devices the copy is an
    ordinary one, at the time of `read`.
    """

    def __init__(self, vector: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._vector = vector
        self._known: list[float] | None = None
        if vector.device.type == "cuda":
            self._vector = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._vector.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(vector.device))

    @classmethod
    def known(cls, numbers: Sequence[float]) -> Self:
        """Numbers that are on the host already."""
        readout = cls(torch.empty(0))
        readout._known = list(numbers)
        return readout

    def read(self) -> list[float]:
        """The numbers; may be called again."""
        if self._known is None:
            if self._event is not None:
                self._event.synchronize()
            self._known = self._vector.tolist()
        return self._known
