"""Whole training loops side by side, as in Table 3 of the paper: seconds per iteration."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from autodrop import AutoDrop
from paper_checks.overhead.setup import Setup
from paper_checks.overhead.timing import CLOCKS

__all__ = ["LOOPS", "Loop", "Times", "run_loops"]

# Windows on the CPU, where each iteration is timed by itself: short, so that many of them end.
_SHORT = 3

Make = Callable[[Optimizer, int, Callable[[], torch.Tensor]], Callable[[], object]]


@dataclass(frozen=True)
class Loop:
    """A training loop that differs from the others in what follows each step of the optimizer.

    make: (optimizer, window, loss) → what to call then.
    """

    name: str
    label: str
    make: Make


LOOPS = (
    Loop("constant", "constant rate", lambda optimizer, window, loss: lambda: None),
    Loop(
        "multistep",
        "MultiStepLR",
        lambda optimizer, window, loss: MultiStepLR(optimizer, [10**6]).step,
    ),
    Loop(
        "cosine",
        "CosineAnnealingLR",
        lambda optimizer, window, loss: CosineAnnealingLR(optimizer, 10**6).step,
    ),
    Loop("autodrop", "AutoDrop", lambda optimizer, window, loss: AutoDrop(optimizer, window).step),
    Loop(
        "autodrop_lag",
        "AutoDrop, lag 1",
        lambda optimizer, window, loss: AutoDrop(optimizer, window, lag=1).step,
    ),
    Loop(
        "autodrop_plain",
        "AutoDrop, plain",
        lambda optimizer, window, loss: AutoDrop(optimizer, window, accumulation="plain").step,
    ),
)


@dataclass(frozen=True)
class Times:
    """Seconds per iteration of one loop, block by block.

    ordinary: of blocks in which no window ends; ends: of those in which one does.
    share: of the iterations of a long run, those in blocks with an end.
    """

    ordinary: tuple[float, ...]
    ends: tuple[float, ...]
    share: float


def run_loops(
    setup: Setup,
    model: nn.Module,
    loss: Callable[[], torch.Tensor],
    loops: Sequence[Loop] = LOOPS,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Times]:
    """Train with every loop by turns, a block each in every round, in a new order each time.

    All loops train the same network, each with its own SGD with momentum. On CUDA a block is a
    whole window of `setup.window` iterations, from an idle device to an idle device, so that the
    host runs ahead as in training. On the CPU it is one iteration, so that what else the machine
    does weighs on all loops alike; windows are then of 3 updates, and an iteration that ends one
    counts 1/`setup.window`.
    """
    device = torch.device(setup.device)
    on_cpu = device.type == "cpu"
    window, length = (min(_SHORT, setup.window), 1) if on_cpu else (setup.window, setup.window)
    clock = CLOCKS[setup.clock]
    steps = {loop.name: _iteration(loop, model, loss, window) for loop in loops}

    def block(step: Callable[[], object]) -> float:
        if not on_cpu:
            torch.cuda.synchronize(device)
        start = clock()
        for _ in range(length):
            step()
        if not on_cpu:
            torch.cuda.synchronize(device)
        return (clock() - start) / length

    order = random.Random(0)
    blocks = window // length
    ordinary: dict[str, list[float]] = {name: [] for name in steps}
    ends: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(-1, setup.windows):
        for i in range(1, blocks + 1):
            for name in order.sample(list(steps), len(steps)):
                seconds = block(steps[name])
                if done >= 0:
                    (ends if i == blocks else ordinary)[name].append(seconds)
        progress(max(0, done + 1))
    share = length / setup.window
    return {name: Times(tuple(ordinary[name]), tuple(ends[name]), share) for name in steps}


def _iteration(
    loop: Loop, model: nn.Module, loss: Callable[[], torch.Tensor], window: int
) -> Callable[[], object]:
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)
    after = loop.make(optimizer, window, loss)

    def iteration() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        after()

    return iteration
