"""Networks of customary size for measurements: a ResNet-18 for CIFAR and a small transformer.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, with the
3×3 stem that is usual for 32×32 images; Radford et al., "Language Models are Unsupervised Multitask
Learners" (GPT-2), 2019.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["ResNet18", "Transformer"]


class _Residual(nn.Module):
    """relu(x' + BN(conv(relu(BN(conv(x)))))); x' is x or, where the shape changes, BN(conv₁(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.body(x))


class ResNet18(nn.Module):
    """Images (N, 3, H, W) to logits (N, classes); 11,173,962 parameters at the defaults.

    width: channels of the first stage; the others have 2, 4 and 8 times as many.
    """

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        blocks = []
        inputs = width
        for factor in (1, 2, 4, 8):
            outputs = factor * width
            blocks.append(_Residual(inputs, outputs, stride=1 if factor == 1 else 2))
            blocks.append(_Residual(outputs, outputs, stride=1))
            inputs = outputs
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(inputs, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); attention to earlier positions only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.query_key_value(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = heads.movedim(-3, 0).transpose(-2, -3)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(-2, -3).flatten(-2))
        return x + self.mlp(self.before_mlp(x))


class Transformer(nn.Module):
    """Tokens (N, T), T ≤ context, to logits (N, T, vocabulary), position t from tokens 0 … t.

    12·depth·width² + (vocabulary + context)·width parameters in weights, the rest are biases and
    norms: 100,809,216 at the defaults. The embedding and the last layer share their weight.

    Raises ValueError unless heads divides width.
    """

    def __init__(
        self,
        vocabulary: int = 20_000,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        context: int = 512,
    ) -> None:
        if width % heads:
            raise ValueError(f"heads must divide width = {width}, got {heads}")
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[-1]]
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)
