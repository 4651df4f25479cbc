"""A small classifier of handwritten digits and its training loop in plain torch, the reference."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from autodrop import AutoDrop
from paper_checks.training import data
from paper_checks.training.model import mlp

BATCH, BATCHES, EPOCHS, WINDOW = 16, 29, 10, 3
SAMPLES = data.load_digits(seed=0)
X, Y = SAMPLES.train_x[: BATCH * BATCHES], SAMPLES.train_y[: BATCH * BATCHES]


def network(seed=0):
    return mlp(64, 10, (16,), torch.Generator().manual_seed(seed))


def sgd(model, groups=1):
    """SGD with one group, or two: the weights and the biases, as the Trainer of transformers."""
    parameters = list(model.parameters())
    if groups == 2:
        parameters = [{"params": parameters[::2]}, {"params": parameters[1::2]}]
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.9)


class Batches:
    """The batches of one epoch, in the same order every time."""

    def __len__(self):
        return BATCHES

    def __iter__(self):
        return zip(X.split(BATCH), Y.split(BATCH), strict=True)


@functools.cache
def plain(accumulate=1, whole=True, groups=1):
    """The scheduler after a loop without any framework, and the network.

    accumulate: micro-batches for an update; an epoch's last update has fewer if need be, and
        their gradients are divided by `accumulate` (`whole`) or by as many as there are.
    groups: see `sgd`.
    """
    model = network()
    opt = sgd(model, groups)
    scheduler = AutoDrop(opt, window=WINDOW)
    for _ in range(EPOCHS):
        batches = list(Batches())
        for first in range(0, BATCHES, accumulate):
            some = batches[first : first + accumulate]
            opt.zero_grad()
            for x, y in some:
                loss = nn.functional.cross_entropy(model(x), y)
                (loss / (accumulate if whole else len(some))).backward()
            opt.step()
            scheduler.step()
    return scheduler, model


def rates(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def check_same(scheduler, model, expected, expected_model):
    """The run is the reference's, bit for bit, and it is one that drops."""
    assert len(expected.drops) >= 2
    assert all(map(math.isfinite, expected.angular_velocities))
    assert scheduler.angular_velocities == expected.angular_velocities
    assert scheduler.angle_steps == expected.angle_steps
    assert scheduler.drops == expected.drops
    assert rates(scheduler) == rates(expected)
    ours, theirs = model.state_dict().values(), expected_model.state_dict().values()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))
