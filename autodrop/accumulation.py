"""Window sums of live tensors on their own devices: nothing here waits for a device.

Two ways to keep the mean y_i of a window and its step s_i = y_i − y_{i−1}:

plain     S = Σ x_t, and s_i = (S_i − S_{i−1})/k.  Exact enough when the sums have more digits than
          the parameters: float32 for bfloat16 and float16, float64 for float64.
anchored  S = Σ (x_t − a_i), where a_i + ρ_i = y_{i−1}: the last mean, rounded, and its residual.
          s_i = S/k − ρ_i has the relative accuracy of the deviations, however small they are
          beside x.  For float32.

What is needed at the ends of windows only (S_{i−1}, ρ, the last step d) can stay in the host's
memory (`offload`) and comes to the device piece by piece.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch

from autodrop.products import products, summed
from autodrop.sources import Source

__all__ = ["AnchoredSums", "PlainSums", "Sums"]

# Elements of scratch and of the float64 products: bounds what a step and a window's end allocate.
# Small enough for a CPU's cache; on other devices every operation is a launch to save.
_CHUNK = 2**19
_BATCH = 2**22

# Where one tensor at a time is no slower than many.
_ONE_BY_ONE = ("cpu",)

Tensors = list[torch.Tensor]


class Sums(ABC):
    """The state of some vectors x: `add` takes them in, `close` ends a window.

    copies: names of the lists of vectors that are the state, for checkpoints.
    """

    copies: tuple[str, ...] = ()

    def __init__(self, sources: Sequence[Source], offload: bool = False) -> None:
        self.sources = tuple(sources)
        self._offload = offload

    def _zeros(
        self, dtype: torch.dtype | None = None, *, wide: bool = False, ends_only: bool = False
    ) -> Tensors:
        """A vector for each x, in its dtype or `dtype`; with `wide` in float32 or wider.

        In the host's memory if it is needed at windows' ends only.
        """
        vectors = []
        for source in self.sources:
            kept = dtype or source.dtype
            if wide and dtype is None:
                kept = torch.promote_types(kept, torch.float32)
            if ends_only and self._offload and source.device.type != "cpu":
                pinned = source.device.type == "cuda"
                vectors.append(torch.zeros(source.size, dtype=kept, pin_memory=pinned))
            else:
                vectors.append(torch.zeros(source.size, dtype=kept, device=source.device))
        return vectors

    @abstractmethod
    def add(self, weight: torch.Tensor | None = None) -> None:
        """Take in the vectors as they are now; times a weight, a float64 tensor of one element."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the current window and the means before it; the next window starts here."""

    def settle(self) -> None:
        """Wait until what lies in the host's memory is there; before it is read or written."""
        if self._offload:
            for device in {s.device for s in self.sources if s.device.type == "cuda"}:
                torch.cuda.current_stream(device).synchronize()

    def close(self, count: int) -> Iterator[tuple[Source, torch.Tensor]]:
        """End a window of `count` additions; for each vector whose products count here, these.

        See `products`: of the step s to this window's mean and the step d before it. Where a sum
        is not finite, ⟨s,s⟩ is not either; the state is made finite again as soon as x is.
        """
        for i, source in enumerate(self.sources):
            source.require_layout()
            if not source.size:
                continue
            pieces = self._close_one(i, count)
            if source.owned:
                yield source, summed(source, pieces)

    @abstractmethod
    def _close_one(self, i: int, count: int) -> Tensors:
        """End the window of the i-th vector; its products, piece by piece."""


def _finite(x: torch.Tensor) -> torch.Tensor:
    """A copy of x with 0 where it is not finite, so that no later window is lost to it."""
    return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def _beside(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The weight on the device of x, in its dtype."""
    return weight.to(x.device, x.dtype, non_blocking=True)


def _chunk(device: torch.device) -> int:
    return _CHUNK if device.type in _ONE_BY_ONE else max(_CHUNK, _BATCH)


def _write(home: torch.Tensor, value: torch.Tensor) -> None:
    """home ← value, without waiting; home may lie in pinned memory of the host."""
    home.copy_(value, non_blocking=True)


class PlainSums(Sums):
    """S, S_{i−1} and d: three copies, in float32 or, for float64 tensors, float64.

    `direction`: the dtype of d, where it is not theirs.
    """

    copies = ("sum", "previous", "direction")

    def __init__(
        self,
        sources: Sequence[Source],
        direction: torch.dtype | None = None,
        offload: bool = False,
    ) -> None:
        super().__init__(sources, offload)
        self.sum = self._zeros(wide=True)
        self.previous = self._zeros(wide=True, ends_only=True)
        self.direction = self._zeros(direction, wide=True, ends_only=True)
        # One multi-tensor operation for each device and dtype.
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, source in enumerate(self.sources):
            groups.setdefault((source.device, source.dtype), []).append(i)
        self._groups = list(groups.values())

    def add(self, weight: torch.Tensor | None = None) -> None:
        """S ← S + x."""
        if weight is not None:
            for S, source in zip(self.sum, self.sources, strict=True):
                S.addcmul_(source.read().to(S.dtype), _beside(S, weight))
            return
        for group in self._groups:
            torch._foreach_add_(
                [self.sum[i] for i in group], [self.sources[i].read() for i in group]
            )

    def reset(self) -> None:
        """S ← 0."""
        torch._foreach_zero_(self.sum)

    def _close_one(self, i: int, count: int) -> Tensors:
        found = []
        device = self.sources[i].device
        parts = (self.sum[i], self.previous[i], self.direction[i])
        for S, before, d in zip(*(part.split(_chunk(device)) for part in parts), strict=True):
            s = (S - before.to(device, non_blocking=True)).div_(count)
            found.append(products(s, d.to(device, non_blocking=True), self.sources[i].sampled))
            _write(d, _finite(s))
            _write(before, _finite(S))
            S.zero_()
        return found


class AnchoredSums(Sums):
    """a, S and d in float32 (d in `direction` if given), ρ in bfloat16: 3.5 copies, or 3."""

    copies = ("anchor", "residual", "sum", "direction")

    def __init__(
        self,
        sources: Sequence[Source],
        direction: torch.dtype | None = None,
        offload: bool = False,
    ) -> None:
        super().__init__(sources, offload)
        self.anchor = [_finite(source.read()) for source in self.sources]
        self.sum = self._zeros()
        self.residual = self._zeros(torch.bfloat16, ends_only=True)
        self.direction = self._zeros(direction, ends_only=True)
        self._scratch: dict[torch.device, torch.Tensor] = {}
        self._pieces: list[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]] = []
        batches: dict[torch.device, list[list[tuple[int, int, int]]]] = {}
        for i, source in enumerate(self.sources):
            if source.device.type in _ONE_BY_ONE:
                self._scratch_for(source)
                chunks = zip(self.sum[i].split(_CHUNK), self.anchor[i].split(_CHUNK), strict=True)
                self._pieces.append((i, list(chunks)))
            else:
                _fill(batches.setdefault(source.device, [[]]), i, source.size)
        self._batches = [batch for found in batches.values() for batch in found if batch]

    def _scratch_for(self, source: Source) -> None:
        size = min(source.size, _CHUNK)
        held = self._scratch.get(source.device)
        if held is None or len(held) < size:
            self._scratch[source.device] = torch.empty(
                size, dtype=source.dtype, device=source.device
            )

    def add(self, weight: torch.Tensor | None = None) -> None:
        """S ← S + (x − a)."""
        for i, pieces in self._pieces:
            x = self.sources[i].read()
            scratch = self._scratch[x.device]
            parts = (x,) if len(pieces) == 1 else x.split(_CHUNK)
            for part, (S, a) in zip(parts, pieces, strict=True):
                room = scratch.narrow(0, 0, len(part))
                torch.sub(part, a, out=room)
                if weight is None:
                    S.add_(room)
                else:
                    S.addcmul_(room, _beside(S, weight))
        for batch in self._batches:
            values = {i: self.sources[i].read() for i, _, _ in batch}
            moved = list(
                torch._foreach_sub(
                    [values[i].narrow(0, start, size) for i, start, size in batch],
                    [self.anchor[i].narrow(0, start, size) for i, start, size in batch],
                )
            )
            if weight is not None:
                torch._foreach_mul_(moved, _beside(moved[0], weight))
            torch._foreach_add_(
                [self.sum[i].narrow(0, start, size) for i, start, size in batch], moved
            )

    def reset(self) -> None:
        """a ← x, ρ ← 0, S ← 0."""
        for a, source in zip(self.anchor, self.sources, strict=True):
            a.copy_(_finite(source.read()))
        torch._foreach_zero_(self.sum)
        self.settle()
        torch._foreach_zero_(self.residual)

    def _close_one(self, i: int, count: int) -> Tensors:
        found = []
        source = self.sources[i]
        parts = (self.sum[i], self.anchor[i], self.residual[i], self.direction[i], source.read())
        split = (part.split(_chunk(source.device)) for part in parts)
        for S, a, kept_ρ, kept_d, x in zip(*split, strict=True):
            ρ = kept_ρ.to(source.device, non_blocking=True)
            d = kept_d.to(source.device, non_blocking=True)
            m = S.div_(count)
            s = m - ρ
            # Parameters at rest would step by what rounding left of the last step: S rounds to
            # (k + 2)·2⁻²⁴ of it, and ρ to 2⁻⁹ of itself.
            noise = torch.add(ρ.abs() * 2.0**-8, d.abs(), alpha=(count + 2) * 2.0**-24)
            s = s.masked_fill(s.abs() <= noise, 0)
            found.append(products(s, d, source.sampled))
            moved = a + m
            # What rounding took from a + m, exactly: Knuth's two-sum.
            part = moved - a
            lost = (a - (moved - part)) + (m - part)
            _write(kept_d, _finite(s))
            _write(kept_ρ, _finite(lost))
            a.copy_(torch.where(torch.isfinite(moved), moved, _finite(x)))
            S.zero_()
        return found


def _fill(batches: list[list[tuple[int, int, int]]], i: int, size: int) -> None:
    """Put the i-th vector into batches of at most _BATCH elements, as (i, start, length)."""
    start = 0
    while start < size:
        room = _BATCH - sum(length for _, _, length in batches[-1])
        if room <= 0:
            batches.append([])
            continue
        taken = min(room, size - start)
        batches[-1].append((i, start, taken))
        start += taken
