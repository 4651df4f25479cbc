"""Window sums of live tensors on their own devices: nothing here waits for a device.

Two ways to keep the mean y_i of a window and its step s_i = y_i − y_{i−1}:

plain     S = Σ x_t, and s_i = (S_i − S_{i−1})/k.  Exact enough when the sums have more digits than
          the parameters: float32 for bfloat16 and float16, float64 for float64.
anchored  S = Σ (x_t − a_i), where a_i + ρ_i = y_{i−1}: the last mean, rounded, and its residual.
          s_i = S/k − ρ_i has the relative accuracy of the deviations, however small they are
          beside x.  For float32.

What is needed at the ends of windows only (S_{i−1}, ρ, the last step d) can stay in the host's
memory (`offload`) and comes to the device piece by piece.

Small vectors of one device and dtype share their storage, see `autodrop.batches`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch

from autodrop.batches import Batch, batched
from autodrop.products import products, summed
from autodrop.sources import Source

__all__ = ["AnchoredSums", "PlainSums", "Sums"]

# Elements of scratch and of the float64 products: bounds what a step and a window's end allocate.
# Small enough for a CPU's cache; on other devices every operation is a launch to save.
_CHUNK = 2**19
_BATCH = 2**22

# Where one tensor at a time is no slower than many, but for batches of at most so many elements: to
# copy them together costs less than the operations that it saves.
_ONE_BY_ONE = ("cpu",)
_SMALL = 2**16

Tensors = list[torch.Tensor]


class Sums(ABC):
    """The state of some vectors x: `add` takes them in, `close` ends a window.

    copies: names of the lists of vectors that are the state, for checkpoints.
    """

    copies: tuple[str, ...] = ()

    def __init__(self, sources: Sequence[Source], offload: bool = False) -> None:
        self.sources = tuple(sources)
        self._offload = offload
        self._batches = batched(self.sources, _most)
        # The vectors of the batches for each of `copies`.
        self._whole: tuple[Tensors, ...] = ()

    def _zeros(
        self, dtype: torch.dtype | None = None, *, wide: bool = False, ends_only: bool = False
    ) -> Tensors:
        """A vector for each batch, in its dtype or `dtype`; with `wide` in float32 or wider.

        In the host's memory if it is needed at windows' ends only.
        """
        vectors = []
        for batch in self._batches:
            kept = dtype or batch.dtype
            if wide and dtype is None:
                kept = torch.promote_types(kept, torch.float32)
            if ends_only and self._offload and batch.device.type != "cpu":
                pinned = batch.device.type == "cuda"
                vectors.append(torch.zeros(batch.size, dtype=kept, pin_memory=pinned))
            else:
                vectors.append(torch.zeros(batch.size, dtype=kept, device=batch.device))
        return vectors

    def _each(self, whole: Tensors) -> Tensors:
        """What is for each source in the vectors of the batches, aliased."""
        parts = {
            source: part
            for batch, vector in zip(self._batches, whole, strict=True)
            for source, part in zip(batch.sources, batch.parts(vector), strict=True)
        }
        return [parts[source] for source in self.sources]

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
        for source in self.sources:
            source.require_layout()
        pieces: dict[Source, Tensors] = {source: [] for source in self.sources}
        for batch, *whole in zip(self._batches, *self._whole, strict=True):
            split = [vector.split(_chunk(batch.device)) for vector in whole]
            for s, d in self._steps(batch, count, zip(*split, strict=True)):
                if batch.owned:
                    rows = products(batch.parts(s.double()), batch.parts(d.double()), batch.sampled)
                    for source, row in zip(batch.sources, rows, strict=True):
                        pieces[source].append(row)
        for source, found in pieces.items():
            if found and source.size:
                yield source, summed(source, found)

    @abstractmethod
    def _steps(
        self, batch: Batch, count: int, chunks: Iterable[tuple[torch.Tensor, ...]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """End the window of a batch, whose state is in `chunks`; s and d on the device, for each.

        The state is written when the next ones are asked for: d may be an alias of it.
        """


def _finite(x: torch.Tensor) -> torch.Tensor:
    """A copy of x with 0 where it is not finite, so that no later window is lost to it."""
    return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def _beside(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The weight on the device of x, in its dtype."""
    return weight.to(x.device, x.dtype, non_blocking=True)


def _chunk(device: torch.device) -> int:
    return _CHUNK if device.type in _ONE_BY_ONE else max(_CHUNK, _BATCH)


def _most(device: torch.device) -> int:
    """Elements of a batch."""
    return min(_SMALL, _CHUNK) if device.type in _ONE_BY_ONE else _chunk(device)


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
        self._whole = (
            self._zeros(wide=True),
            self._zeros(wide=True, ends_only=True),
            self._zeros(direction, wide=True, ends_only=True),
        )
        self.sum, self.previous, self.direction = map(self._each, self._whole)
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
        torch._foreach_zero_(self._whole[0])

    def _steps(
        self, batch: Batch, count: int, chunks: Iterable[tuple[torch.Tensor, ...]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for S, before, d in chunks:
            s = (S - before.to(batch.device, non_blocking=True)).div_(count)
            yield s, d.to(batch.device, non_blocking=True)
            _write(d, _finite(s))
            _write(before, _finite(S))
            S.zero_()


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
        self._whole = (
            [_finite(batch.read()) for batch in self._batches],
            self._zeros(torch.bfloat16, ends_only=True),
            self._zeros(),
            self._zeros(direction, ends_only=True),
        )
        self.anchor, self.residual, self.sum, self.direction = map(self._each, self._whole)
        # What `add` works on: of several sources together, and of chunks, with room for x − a where
        # it pays to keep it.
        self._together: list[tuple[Batch, Tensors, Tensors]] = []
        self._apart: list[
            tuple[Batch, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]]
        ] = []
        large = [
            batch.size
            for batch in self._batches
            if len(batch.sources) == 1 and batch.device.type in _ONE_BY_ONE
        ]
        scratch = torch.empty(min(_CHUNK, max(large, default=0)), dtype=torch.float32, device="cpu")
        for batch, a, _, S, _ in zip(self._batches, *self._whole, strict=True):
            alone, one_by_one = len(batch.sources) == 1, batch.device.type in _ONE_BY_ONE
            if not (alone or one_by_one):
                self._together.append((batch, batch.parts(a), batch.parts(S)))
                continue
            size, keep = _chunk(batch.device), alone and one_by_one
            chunks = [
                (a, S, scratch.narrow(0, 0, len(S)) if keep else None)
                for a, S in zip(a.split(size), S.split(size), strict=True)
            ]
            self._apart.append((batch, chunks))

    def add(self, weight: torch.Tensor | None = None) -> None:
        """S ← S + (x − a)."""
        for batch, chunks in self._apart:
            x = batch.read()
            parts = (x,) if len(chunks) == 1 else x.split(_chunk(batch.device))
            for part, (a, S, room) in zip(parts, chunks, strict=True):
                moved = torch.sub(part, a, out=room)
                if weight is None:
                    S.add_(moved)
                else:
                    S.addcmul_(moved, _beside(S, weight))
        for batch, anchors, sums in self._together:
            differences = list(torch._foreach_sub(batch.values(), anchors))
            if weight is not None:
                torch._foreach_mul_(differences, _beside(differences[0], weight))
            torch._foreach_add_(sums, differences)

    def reset(self) -> None:
        """a ← x, ρ ← 0, S ← 0."""
        anchors, residuals, sums, _ = self._whole
        for a, batch in zip(anchors, self._batches, strict=True):
            a.copy_(_finite(batch.read()))
        torch._foreach_zero_(sums)
        self.settle()
        torch._foreach_zero_(residuals)

    def _steps(
        self, batch: Batch, count: int, chunks: Iterable[tuple[torch.Tensor, ...]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        now = batch.read().split(_chunk(batch.device))
        for (a, kept_ρ, S, kept_d), x in zip(chunks, now, strict=True):
            ρ = kept_ρ.to(batch.device, non_blocking=True)
            d = kept_d.to(batch.device, non_blocking=True)
            m = S.div_(count)
            s = m - ρ
            # Parameters at rest would step by what rounding left of the last step: S rounds to
            # (k + 2)·2⁻²⁴ of it, and ρ to 2⁻⁹ of itself.
            noise = torch.add(ρ.abs() * 2.0**-8, d.abs(), alpha=(count + 2) * 2.0**-24)
            s.masked_fill_(s.abs() <= noise, 0)
            yield s, d
            moved = a + m
            # What rounding took from a + m, exactly: Knuth's two-sum.
            part = moved - a
            lost = (a - (moved - part)) + (m - part)
            _write(kept_d, _finite(s))
            _write(kept_ρ, _finite(lost))
            a.copy_(torch.where(torch.isfinite(moved), moved, _finite(x)))
            S.zero_()
