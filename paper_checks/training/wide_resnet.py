"""The wide residual network of Zagoruyko and Komodakis (BMVC 2016) for 32×32 images.

Blocks are relu-BN first; the shortcut is the identity, or a 1×1 convolution where the shape
changes. No dropout, as in the paper (UAI 2024, Section 6.1).
"""

from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Module):
    """x' + conv(relu(BN(conv(relu(BN(x)))))); x' is x, or conv₁(relu(BN(x)))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.first(x)
        return self.body(activated) + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes); WRN-16-4, 2,748,890 parameters at the defaults.

    depth: 6n + 4. width: channels of the first stage, 16 × the widening factor; the other two have
    2 and 4 times as many. Raises ValueError for another depth.
    """

    def __init__(self, classes: int = 10, depth: int = 16, width: int = 64) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, got {depth}")
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        inputs = 16
        for factor in (1, 2, 4):
            for i in range((depth - 4) // 6):
                stride = 2 if i == 0 and factor > 1 else 1
                layers.append(_Block(inputs, factor * width, stride))
                inputs = factor * width
        self.layers = nn.Sequential(
            *layers,
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(inputs, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
