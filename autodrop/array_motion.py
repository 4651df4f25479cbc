"""The motion of B trajectories of plain arrays, each with its own times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from autodrop.motion import COPIES, LAGS, Motion, Plan

__all__ = ["ArrayMotion"]


class ArrayMotion:
    """Probe and snapshots, see `autodrop.motion`, of iterates of shape (B, n), numpy or torch."""

    def __init__(self, x: Any) -> None:
        B = x.shape[0]
        self._anchor = _copy(x)
        self._snapshots = [_copy(x) for _ in range(COPIES)]
        self._ages = np.zeros(B, dtype=np.int64)
        self._sums = np.zeros((B, len(LAGS)))
        self._counts = np.zeros((B, len(LAGS)), dtype=np.int64)

    def note(self, x: Any) -> None:
        """One update of each trajectory."""
        self._ages += 1
        for i, lag in enumerate(LAGS):
            due = np.flatnonzero(self._ages == lag)
            if len(due):
                self._sums[due, i] += _squares(x, self._anchor, due)
                self._counts[due, i] += 1
        old = np.flatnonzero(self._ages == LAGS[-1])
        if len(old):
            self._anchor[old] = x[old]
            self._ages[old] = 0

    def close(
        self, x: Any, window: int, steps: np.ndarray, plans: Sequence[Plan]
    ) -> list[Motion | None]:
        """The window that ends with x, of so many updates; None where the step of its mean is nan.

        steps: (B,), ‖y_i − y_{i−1}‖².
        """
        found: list[Motion | None] = []
        for b, plan in enumerate(plans):
            displacement = None
            if plan.compare is not None:
                displacement = float(_squares(x, self._snapshots[plan.compare], [b])[0])
            if plan.store is not None:
                self._snapshots[plan.store][b] = x[b]
            found.append(
                None
                if np.isnan(steps[b])
                else Motion(
                    window,
                    float(steps[b]),
                    displacement,
                    tuple(self._sums[b].tolist()),
                    tuple(self._counts[b].tolist()),
                )
            )
            if plan.restart:
                self._anchor[b] = x[b]
                self._ages[b] = 0
        self._sums[:] = 0.0
        self._counts[:] = 0
        return found


def _squares(x: Any, y: Any, rows: Any) -> np.ndarray:
    d = x[rows] - y[rows]
    squares = (d * d).sum(-1)
    return squares.cpu().numpy() if isinstance(squares, torch.Tensor) else np.asarray(squares)


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x.copy()
