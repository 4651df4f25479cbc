"""A weighted average of iterates, written back into the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["WeightedAverage"]


class WeightedAverage:
    """Σ w_j x_j / Σ w_j of live parameters; the variance reduction of arXiv 2111.15317.

    params: tensors by name, of any shapes and devices, read and written in place. Sums are float64.
    `write` replaces the parameters and nothing else: momentum buffers and batch-norm statistics
    stay as they are.
    """

    def __init__(self, params: Mapping[str, torch.Tensor]) -> None:
        self._params = dict(params)
        self._sum = {
            key: torch.zeros_like(p, dtype=torch.float64, requires_grad=False)
            for key, p in self._params.items()
        }
        self._weight = 0

    @torch.no_grad()
    def add(self, weight: int) -> None:
        """Σ ← Σ + weight·x, x the parameters as they are now; weight > 0."""
        for key, p in self._params.items():
            self._sum[key].add_(p.to(torch.float64), alpha=weight)
        self._weight += weight

    @torch.no_grad()
    def write(self) -> None:
        """x ← Σ w_j x_j / Σ w_j, rounded to the parameters' dtype; then `clear`. After an `add`."""
        for key, p in self._params.items():
            p.copy_(self._sum[key] / self._weight)
        self.clear()

    def clear(self) -> None:
        """Σ ← 0: forget every iterate taken in."""
        for total in self._sum.values():
            total.zero_()
        self._weight = 0

    def state_dict(self) -> dict[str, Any]:
        """Σ w_j and Σ w_j x_j, copied; loads with torch.load(weights_only=True)."""
        return {
            "weight": self._weight,
            "sum": {key: total.clone() for key, total in self._sum.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same parameters; ValueError for others."""
        saved = state_dict["sum"]
        if saved.keys() != self._sum.keys():
            raise ValueError(
                f"the saved average must be of {', '.join(self._sum)}, got {', '.join(saved)}"
            )
        self._weight = state_dict["weight"]
        for key, total in self._sum.items():
            total.copy_(saved[key])
