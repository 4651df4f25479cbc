"""A weighted average of iterates, written back into the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class WeightedAverage:
    """Σ w_j x_j / Σ w_j of live parameters; the variance reduction of arXiv 2111.15317.

    Sums are float64. `write` replaces the parameters and nothing else: momentum buffers and
    batch-norm statistics stay as they are.
    """

    def __init__(self, params: Iterable[torch.Tensor]) -> None:
        self._params = tuple(params)
        self._sum = [torch.zeros_like(p, dtype=torch.float64) for p in self._params]
        self._weight = 0

    @torch.no_grad()
    def add(self, weight: int) -> None:
        """Take the parameters in as they are now."""
        for total, p in zip(self._sum, self._params, strict=True):
            total.add_(p.to(torch.float64), alpha=weight)
        self._weight += weight

    @torch.no_grad()
    def write(self) -> None:
        """Parameters ← average; forget it."""
        for total, p in zip(self._sum, self._params, strict=True):
            p.copy_(total / self._weight)
        self.clear()

    def clear(self) -> None:
        torch._foreach_zero_(self._sum)
        self._weight = 0

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self._weight, "sum": [total.clone() for total in self._sum]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._weight = state_dict["weight"]
        for ours, saved in zip(self._sum, state_dict["sum"], strict=True):
            ours.copy_(saved)
