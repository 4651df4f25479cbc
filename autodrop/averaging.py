"""A weighted average of iterates, written back into the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["WeightedAverage"]


class WeightedAverage:
    """Σ w_j x_j / Σ w_j of live parameters; the variance reduction of arXiv 2111.15317.

    params: tensors of any shapes and devices, read and written in place. Sums are float64.
    `write` replaces the parameters and nothing else: momentum buffers and batch-norm statistics
    stay as they are.
    """

    def __init__(self, params: Iterable[torch.Tensor]) -> None:
        self._params = tuple(params)
        self._sum = [torch.zeros_like(p, dtype=torch.float64) for p in self._params]
        self._weight = 0

    @torch.no_grad()
    def add(self, weight: int) -> None:
        """Σ ← Σ + weight·x, x the parameters as they are now; weight > 0."""
        for total, p in zip(self._sum, self._params, strict=True):
            total.add_(p.to(torch.float64), alpha=weight)
        self._weight += weight

    @torch.no_grad()
    def write(self) -> None:
        """x ← Σ w_j x_j / Σ w_j, rounded to the parameters' dtype; then `clear`. After an `add`."""
        for total, p in zip(self._sum, self._params, strict=True):
            p.copy_(total / self._weight)
        self.clear()

    def clear(self) -> None:
        """Σ ← 0: forget every iterate taken in."""
        torch._foreach_zero_(self._sum)
        self._weight = 0

    def state_dict(self) -> dict[str, Any]:
        """Σ w_j and Σ w_j x_j, copied; loads with torch.load(weights_only=True)."""
        return {"weight": self._weight, "sum": [total.clone() for total in self._sum]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same parameters; ValueError for more or fewer."""
        self._weight = state_dict["weight"]
        for ours, saved in zip(self._sum, state_dict["sum"], strict=True):
            ours.copy_(saved)
