"""Window sums of live tensors on their own devices: nothing here waits for a device.

Two ways to keep the mean y_i of a window and its step s_i = y_i − y_{i−1}:

plain     S = Σ x_t, and s_i = (S_i − S_{i−1})/k.  Exact enough when the sums have more digits than
          the parameters: float32 for bfloat16 and float16, float64 for float64.
anchored  S = Σ (x_t − a_i), where a_i + ρ_i = y_{i−1}: the last mean, rounded, and its residual.
          s_i = S/k − ρ_i has the relative accuracy of the deviations, however small they are
          beside x.  For float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

__all__ = ["AnchoredSums", "PlainSums", "Sums", "layout"]

# Elements of scratch and of the float64 products: bounds what a step and a window's end allocate.
_CHUNK = 2**19

Tensors = list[torch.Tensor]


def _flat(t: torch.Tensor) -> torch.Tensor:
    """All elements of a dense tensor as one vector in the order of its storage, without a copy."""
    if t.is_contiguous():
        return t.view(-1)
    return t.as_strided((t.numel(),), (1,), t.storage_offset())


def layout(t: torch.Tensor) -> list[int]:
    """The strides of the dimensions that have more than one element: the order of the elements."""
    return [stride for size, stride in zip(t.shape, t.stride(), strict=True) if size > 1]


def _dense(t: torch.Tensor) -> bool:
    """Whether the tensor's elements fill its storage range, in any order, once each."""
    expected = 1
    for size, stride in sorted(zip(t.shape, t.stride(), strict=True), key=lambda pair: pair[1]):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


class Sums(ABC):
    """The state of some tensors x: `add` takes them in, `close` ends a window.

    copies: names of the lists of tensors that are the state, for checkpoints.
    """

    copies: tuple[str, ...] = ()

    def __init__(self, params: Sequence[torch.Tensor]) -> None:
        self.params = tuple(params)
        self._whole = [_dense(p) for p in self.params]
        self._layouts = [layout(p) for p in self.params]

    def _x(self, i: int) -> torch.Tensor:
        """x_i as a vector in the order in which the state is kept."""
        p = self.params[i].detach()
        return _flat(p) if self._whole[i] else p.reshape(-1)

    def _zeros(self, dtype: torch.dtype | None = None) -> Tensors:
        return [
            torch.zeros(p.numel(), dtype=dtype or p.dtype, device=p.device) for p in self.params
        ]

    @abstractmethod
    def add(self) -> None:
        """Take in the tensors as they are now."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the current window and the means before it; the next window starts here."""

    def close(self, count: int) -> dict[torch.device, torch.Tensor]:
        """End a window of `count` additions; (⟨s,s⟩, ⟨d,d⟩, ⟨s,d⟩) for each device, float64.

        s is the step to this window's mean and d the step before it.  Where a sum is not finite,
        ⟨s,s⟩ is not either; the state is made finite again as soon as x is.
        """
        totals: dict[torch.device, torch.Tensor] = {}
        for i, p in enumerate(self.params):
            if layout(p) != self._layouts[i]:
                raise RuntimeError(
                    f"the memory layout of parameter {i} has changed since tracking started; "
                    "choose the memory_format before the scheduler or tracker is made"
                )
            if not p.numel():
                continue
            for products in self._close_one(i, count):
                before = totals.get(p.device)
                totals[p.device] = products if before is None else before + products
        return totals

    @abstractmethod
    def _close_one(self, i: int, count: int) -> Tensors:
        """End the window of the i-th tensor; its products, piece by piece."""


def _finite(x: torch.Tensor) -> torch.Tensor:
    """A copy of x with 0 where it is not finite, so that no later window is lost to it."""
    return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)


def _products(s: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """(⟨s,s⟩, ⟨d,d⟩, ⟨s,d⟩) in float64."""
    s, d = s.double(), d.double()
    return torch.stack((s.dot(s), d.dot(d), s.dot(d)))


class PlainSums(Sums):
    """S, S_{i−1} and d: three copies, in float32 or, for float64 tensors, float64."""

    copies = ("sum", "previous", "direction")

    def __init__(self, params: Sequence[torch.Tensor]) -> None:
        super().__init__(params)
        kept = [torch.promote_types(p.dtype, torch.float32) for p in self.params]
        self.sum, self.previous, self.direction = (
            [
                torch.zeros(p.numel(), dtype=dtype, device=p.device)
                for p, dtype in zip(self.params, kept, strict=True)
            ]
            for _ in range(3)
        )
        # One multi-tensor operation for each device and dtype.
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, p in enumerate(self.params):
            groups.setdefault((p.device, p.dtype), []).append(i)
        self._groups = list(groups.values())

    def add(self) -> None:
        """S ← S + x."""
        for group in self._groups:
            torch._foreach_add_([self.sum[i] for i in group], [self._x(i) for i in group])

    def reset(self) -> None:
        """S ← 0."""
        torch._foreach_zero_(self.sum)

    def _close_one(self, i: int, count: int) -> Tensors:
        found = []
        parts = (self.sum[i], self.previous[i], self.direction[i])
        for S, before, d in zip(*(part.split(_CHUNK) for part in parts), strict=True):
            s = (S - before).div_(count)
            found.append(_products(s, d))
            d.copy_(_finite(s))
            before.copy_(_finite(S))
            S.zero_()
        return found


class AnchoredSums(Sums):
    """a, S and d in float32 (d in `direction` if given), ρ in bfloat16: 3.5 copies, or 3."""

    copies = ("anchor", "residual", "sum", "direction")

    def __init__(
        self, params: Sequence[torch.Tensor], direction: torch.dtype | None = None
    ) -> None:
        super().__init__(params)
        self.anchor = [_finite(self._x(i)) for i in range(len(self.params))]
        self.sum = self._zeros()
        self.residual = self._zeros(torch.bfloat16)
        self.direction = self._zeros(direction)
        largest: dict[torch.device, torch.Tensor] = {}
        for p in self.params:
            size = min(p.numel(), _CHUNK)
            if p.device not in largest or len(largest[p.device]) < size:
                largest[p.device] = torch.empty(size, dtype=p.dtype, device=p.device)
        self._scratch = largest
        self._pieces = [
            list(zip(S.split(_CHUNK), a.split(_CHUNK), strict=True))
            for S, a in zip(self.sum, self.anchor, strict=True)
        ]

    def add(self) -> None:
        """S ← S + (x − a)."""
        for i, pieces in enumerate(self._pieces):
            x = self._x(i)
            scratch = self._scratch[x.device]
            parts = (x,) if len(pieces) == 1 else x.split(_CHUNK)
            for part, (S, a) in zip(parts, pieces, strict=True):
                room = scratch.narrow(0, 0, len(part))
                torch.sub(part, a, out=room)
                S.add_(room)

    def reset(self) -> None:
        """a ← x, ρ ← 0, S ← 0."""
        for i, a in enumerate(self.anchor):
            a.copy_(_finite(self._x(i)))
        torch._foreach_zero_(self.sum)
        torch._foreach_zero_(self.residual)

    def _close_one(self, i: int, count: int) -> Tensors:
        found = []
        parts = (self.sum[i], self.anchor[i], self.residual[i], self.direction[i], self._x(i))
        for S, a, ρ, d, x in zip(*(part.split(_CHUNK) for part in parts), strict=True):
            m = S.div_(count)
            s = m - ρ
            # Parameters at rest would step by what rounding left of the last step: S rounds to
            # (k + 2)·2⁻²⁴ of it, and ρ to 2⁻⁹ of itself.
            noise = torch.add(ρ.abs() * 2.0**-8, d.abs(), alpha=(count + 2) * 2.0**-24)
            s = s.masked_fill(s.abs() <= noise, 0)
            found.append(_products(s, d))
            moved = a + m
            # What rounding took from a + m, exactly: Knuth's two-sum.
            part = moved - a
            lost = (a - (moved - part)) + (m - part)
            d.copy_(_finite(s))
            ρ.copy_(_finite(lost))
            a.copy_(torch.where(torch.isfinite(moved), moved, _finite(x)))
            S.zero_()
        return found
