"""Hypergradient descent: the rate follows the gradient of the loss with respect to the rate.

α_t = max(0, α_{t−1} + β ⟨g_t, u_{t−1}⟩), u_{t−1} the direction of the last update.

Source: Baydin, Cornish, Martínez Rubio, Schmidt, Wood, "Online Learning Rate Adaptation with
Hypergradient Descent", ICLR 2018, Algorithms 4 and 5. As in the authors' code the gradient includes
the weight decay, and u is the momentum buffer, for Nesterov's momentum too. Deviation: α stays ≥ 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import SGD, Optimizer


class Hypergradient:
    """Sets the rate of every group of an SGD before each of its updates.

    rate: β, the hypergradient's own rate. It keeps no state: the last direction is the optimizer's
    momentum buffer.

    Raises TypeError for another optimizer; ValueError for one without momentum, where that buffer
    is missing, and unless rate is finite and > 0.
    """

    def __init__(self, optimizer: Optimizer, rate: float = 1e-4) -> None:
        if not isinstance(optimizer, SGD):
            raise TypeError(f"optimizer must be an SGD, got {type(optimizer).__name__}")
        if any(not group["momentum"] for group in optimizer.param_groups):
            raise ValueError("optimizer must have momentum > 0, got 0")
        if not 0.0 < rate < math.inf:
            raise ValueError(f"rate must be finite and > 0, got {rate!r}")
        self.rate = rate
        optimizer.register_step_pre_hook(self._adapt)

    def step(self) -> None:
        """Nothing: the rate changes before the update, not after it."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is kept."""

    @torch.no_grad()
    def _adapt(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        product = 0.0
        for group in optimizer.param_groups:
            for p in group["params"]:
                direction = optimizer.state[p].get("momentum_buffer")
                if p.grad is not None and direction is not None:
                    gradient = torch.add(p.grad, p, alpha=group["weight_decay"])
                    product += float(torch.vdot(gradient.flatten(), direction.flatten()))
        for group in optimizer.param_groups:
            group["lr"] = max(0.0, group["lr"] + self.rate * product)
