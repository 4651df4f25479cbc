"""The network: a multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn


def mlp(
    features: int, classes: int, hidden: Sequence[int], generator: torch.Generator
) -> nn.Sequential:
    """Linear, ReLU, …, Linear: `features` numbers in, one logit for each of `classes` out.

    hidden: width of each hidden layer; none gives logistic regression.
    generator: draws the weights (He et al. 2015, uniform); biases start at 0. torch's global
        generator is neither used nor moved.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((features, *hidden, classes)):
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
