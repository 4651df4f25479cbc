"""The networks that are trained, by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from paper_checks.networks import ResNet18, Transformer
from paper_checks.training.wide_resnet import WideResNet

if TYPE_CHECKING:
    from paper_checks.training.config import Config
    from paper_checks.training.data import Dataset


def build(config: Config, data: Dataset, generator: torch.Generator) -> nn.Module:
    """The network `config.model` for the data: (N, features) in, logits (N, classes) out.

    "mlp": `mlp` with `config.hidden`. "cnn": `cnn`, "resnet18", "wrn16x4": for images of three
    channels. "transformer": two blocks, decoder only, for sequences of tokens.

    generator: draws the weights; torch's global generator is left as it was. Raises ValueError
    where the network does not fit the data.
    """
    classes = len(data.classes)
    if config.model == "mlp":
        return mlp(data.features, classes, config.hidden, generator)
    if config.model == "transformer":
        if data.train_x.dtype != torch.int64:
            raise ValueError(f"model 'transformer' needs tokens, {data.name!r} has numbers")
        width = config.width or 128
        return _seeded(
            generator,
            lambda: Transformer(classes, width, 2, max(1, width // 32), data.features),
        )
    if not data.image:
        raise ValueError(f"model {config.model!r} needs images, {data.name!r} has none")
    channels = data.image[0]
    if config.model != "cnn" and channels != 3:
        raise ValueError(f"model {config.model!r} needs 3 channels, {data.name!r} has {channels}")
    make: dict[str, Callable[[], nn.Module]] = {
        "cnn": lambda: cnn(data.image, classes, config.width or 16),
        "resnet18": lambda: ResNet18(classes, config.width or 64),
        "wrn16x4": lambda: WideResNet(classes, depth=16, width=config.width or 64),
    }
    return nn.Sequential(nn.Unflatten(1, data.image), _seeded(generator, make[config.model]))


def cnn(image: Sequence[int], classes: int, width: int = 16) -> nn.Sequential:
    """Two 3×3 convolutions of stride 2 with `width` and 2·`width` channels, and a linear layer."""
    channels, height, side = image
    cells = -(-height // 4) * -(-side // 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * cells, classes),
    )


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


def _seeded(generator: torch.Generator, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` builds with torch's default initialisation, drawn from the generator's state."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
