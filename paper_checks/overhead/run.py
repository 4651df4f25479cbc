"""The measurement: everything once in every round, in a new order each time."""

from __future__ import annotations

import dataclasses
import platform
import random
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from paper_checks.overhead.cases import build_cases
from paper_checks.overhead.result import Result, Row
from paper_checks.overhead.setup import Setup
from paper_checks.overhead.timing import read_backs, seconds

__all__ = ["measure"]

_WARM_UP = 3  # rounds; the third window gives the first angle, and all memory is allocated


def measure(setup: Setup, progress: Callable[[int], object] = lambda done: None) -> Result:
    """Time everything in `setup.repeats` rounds; `progress` hears of each round that is done.

    Each call comes just after an update of the parameters, which is where training has it and
    leaves the caches as training does. Comparisons are within a round, so that what else the
    machine does weighs on both sides; the order in a round is random, from a fixed seed.

    The number of torch's threads is put back at the end.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads or before)
    try:
        return _measure(setup, progress)
    finally:
        torch.set_num_threads(before)


def _measure(setup: Setup, progress: Callable[[int], object]) -> Result:
    model, loss = setup.build()
    update, cases = build_cases(model, loss)
    device = torch.device(setup.device)
    order = random.Random(0)
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    for done in range(-_WARM_UP, setup.repeats):
        for case in order.sample(cases, len(cases)):
            update()
            taken = seconds(case.call, device)
            if done >= 0:
                samples[case.name].append(taken)
        progress(max(0, done + 1))
    counts = {}
    for case in cases:
        update()
        counts[case.name] = read_backs(case.call)

    params = list(model.parameters())
    size = 4 * sum(p.numel() for p in params)  # float32
    floor, copy = samples["foreach_add"], samples["copy"]
    step = [a + b for a, b in zip(samples["forward_backward"], samples["optimizer"], strict=True)]
    speed = next(case.traffic for case in cases if case.name == "copy")
    assert speed is not None
    rows = []
    for case in cases:
        own = samples[case.name]
        rows.append(
            Row(
                name=case.name,
                label=case.label,
                seconds=median(own),
                ratio=_paired(own, floor),
                share=_paired(own, step),
                traffic=case.traffic,
                bandwidth=None
                if case.traffic is None
                else _paired(copy, own) * case.traffic / speed,
                memory=None if case.state is None else case.state / size,
                read_backs=counts[case.name],
                samples=tuple(own),
            )
        )
    return Result(
        setup=dataclasses.asdict(setup),
        device=_device_name(device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        batch=setup.describe(),
        parameters=size // 4,
        tensors=len(params),
        copy_bandwidth=speed / median(copy),
        rows=tuple(rows),
    )


def _paired(numerators: list[float], denominators: list[float]) -> float:
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # Linux knows the processor's name; elsewhere there is only its architecture.
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
