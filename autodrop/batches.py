"""Small vectors end to end: one operation serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

from autodrop.sources import Source

__all__ = ["Batch", "batched"]


class Batch:
    """Sources that are alike: a vector, their x one after the other.

    device, dtype, size: of that vector. owned, sampled: as of each source.
    """

    def __init__(self, source: Source) -> None:
        self.sources = [source]
        self.device, self.dtype, self.size = source.device, source.dtype, source.size
        self.owned, self.sampled = source.owned, source.sampled

    def append(self, source: Source) -> None:
        """One more source."""
        self.sources.append(source)
        self.size += source.size

    def values(self) -> list[torch.Tensor]:
        """x of each source now, see `Source.read`."""
        return [source.read() for source in self.sources]

    def read(self) -> torch.Tensor:
        """The vector now: of one source what that reads, of several a copy."""
        values = self.values()
        return values[0] if len(values) == 1 else torch.cat(values)

    def parts(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Of a vector of this size, aliased, what is for each source; of one source also of any."""
        if len(self.sources) == 1:
            return [vector]
        return list(vector.split([source.size for source in self.sources]))


def batched(sources: Sequence[Source], most: Callable[[torch.device], int]) -> list[Batch]:
    """All sources in batches of one, or of at most so many elements as `most` says of a device."""
    batches: list[Batch] = []
    filling: dict[Hashable, Batch] = {}
    for source in sources:
        kind = (source.device, source.dtype, source.owned, source.sampled)
        batch = filling.get(kind)
        if batch is not None and batch.size + source.size <= most(source.device):
            batch.append(source)
            continue
        batches.append(Batch(source))
        # One that is too large for company leaves room in the batch before it.
        if source.size <= most(source.device):
            filling[kind] = batches[-1]
    return batches
