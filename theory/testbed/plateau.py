"""torch's own ReduceLROnPlateau, one instance for each trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import ReduceLROnPlateau

from theory import checks
from theory.testbed.contenders import Observation, Observe

__all__ = ["Plateau"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plateau:
    """`torch.optim.lr_scheduler.ReduceLROnPlateau`, fed the mean observed loss of each window.

    window : updates.  factor, patience, threshold : torch's.  torch's `eps`, below which it does
    not lower a rate, is 0 here.
    """

    window: int = 50
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    name: str = ""

    def __post_init__(self) -> None:
        checks.positive_integer("window", self.window)
        if not self.name:
            label = f"plateau patience={self.patience} ρ={self.factor:g}"
            object.__setattr__(self, "name", label)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        total = np.zeros(len(weights))
        optimizers = [torch.optim.SGD([torch.zeros(1)], lr=float(α)) for α in rates]
        schedulers = [
            ReduceLROnPlateau(
                each,
                factor=self.factor,
                patience=self.patience,
                threshold=self.threshold,
                eps=0.0,
            )
            for each in optimizers
        ]

        def observe(seen: Observation) -> Array | None:
            nonlocal total
            total += seen.loss
            if seen.updates % self.window:
                return None
            before = np.array([each.param_groups[0]["lr"] for each in optimizers])
            for scheduler, loss in zip(schedulers, total / self.window, strict=True):
                scheduler.step(float(loss))
            total[:] = 0.0
            after = np.array([each.param_groups[0]["lr"] for each in optimizers])
            return None if (after == before).all() else after / before

        return observe
