"""The measurement: every call once in every round, in a new order each time; then the loops."""

from __future__ import annotations

import dataclasses
import gc
import platform
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import nn

from paper_checks.overhead.cases import TRACKERS, Case, Tracker, build_cases
from paper_checks.overhead.counting import Counts, count, peak_on_cuda, waits_for_cuda
from paper_checks.overhead.loops import LOOPS, Loop, Times, run_loops
from paper_checks.overhead.result import LoopRow, Result, Row
from paper_checks.overhead.setup import Setup
from paper_checks.overhead.statistics import mixture, paired
from paper_checks.overhead.timing import CLOCKS, on_cuda, on_host, threads

__all__ = ["measure"]

_WARM_UP = 3  # rounds; the third window gives the first angle, and all memory is allocated


def measure(
    setup: Setup,
    progress: Callable[[int], object] = lambda done: None,
    *,
    trackers: tuple[Tracker, ...] = TRACKERS,
    loops: Sequence[Loop] = LOOPS,
) -> Result:
    """Time every call in `setup.repeats` rounds, then every loop in `setup.windows` windows.

    progress hears of each round and window that is done. trackers and loops are what is compared,
    loops with the first of them.

    Each call comes just after an update of the parameters, which is where training has it and
    leaves the caches as training does. Comparisons are within a round, so that what else the
    machine does weighs on both sides; the order in a round is random, from a fixed seed.

    The number of torch's threads is put back at the end.
    """
    with threads(setup.threads):
        model, loss = setup.build()
        rows, bandwidth = _calls(setup, model, loss, trackers, progress)
        # Schedulers and optimizers refer to each other, and hold many copies of the parameters.
        gc.collect()
        times = run_loops(setup, model, loss, loops, lambda done: progress(setup.repeats + done))
        params = list(model.parameters())
        return Result(
            setup=dataclasses.asdict(setup),
            device=_device_name(torch.device(setup.device)),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            batch=setup.describe(),
            parameters=sum(p.numel() for p in params),
            tensors=len(params),
            bandwidth=bandwidth,
            rows=rows,
            loops=_compared(loops, times),
        )


@dataclass
class _Seen:
    """What was seen of one row."""

    case: Case
    label: str
    first: bool
    seconds: list[float] = field(default_factory=list)
    launch: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    counts: Counts | None = None
    waits: int | None = None
    peak: int = 0


def _calls(
    setup: Setup,
    model: nn.Module,
    loss: Callable[[], torch.Tensor],
    trackers: tuple[Tracker, ...],
    progress: Callable[[int], object],
) -> tuple[tuple[Row, ...], float]:
    """The rows, and bytes per second of the stream."""
    update, cases = build_cases(model, loss, trackers)
    seen = {
        name: _Seen(case, label, i == 0)
        for case in cases
        for i, (name, label) in enumerate(case.rows)
    }
    order = random.Random(0)
    for done in range(-_WARM_UP, setup.repeats):
        for case in order.sample(cases, len(cases)):
            _time(setup, update, case, seen, keep=done >= 0)
        progress(max(0, done + 1))
    for case in cases:
        _count(torch.device(setup.device), update, case, seen)

    size = sum(p.numel() * p.element_size() for p in model.parameters())
    floor, stream = seen["foreach_add"].seconds, seen["stream"]
    step = [
        a + b
        for a, b in zip(seen["forward_backward"].seconds, seen["optimizer"].seconds, strict=True)
    ]
    assert stream.case.traffic is not None
    speeds = [stream.case.traffic / seconds for seconds in stream.seconds]
    rows = []
    for name, row in seen.items():
        end, k = seen.get(f"end_{name}"), setup.window
        mean = end and [
            ((k - 1) * a + b) / k for a, b in zip(row.seconds, end.seconds, strict=True)
        ]
        case, counts = row.case, row.counts
        traffic = case.traffic if row.first else None
        assert counts is not None
        rows.append(
            Row(
                name=name,
                label=row.label,
                seconds=median(row.seconds),
                launch=median(row.launch),
                ratio=paired(row.seconds, floor),
                share=paired(row.seconds, step),
                window_ratio=paired(mean, floor) if mean else None,
                window_share=paired(mean, step) if mean else None,
                traffic=traffic,
                bandwidth=None
                if traffic is None
                else paired([traffic / seconds for seconds in row.seconds], speeds).value,
                memory=None if case.state is None else case.state / size,
                held=None if case.held is None else case.held / size,
                peak=row.peak / size,
                moved=counts.moved / size,
                operations=counts.operations,
                read_backs=counts.read_backs,
                waits=row.waits,
                faults=median(row.faults) if row.faults else None,
                samples=tuple(row.seconds),
            )
        )
    return tuple(rows), median(speeds)


def _time(
    setup: Setup,
    update: Callable[[], object],
    case: Case,
    seen: dict[str, _Seen],
    keep: bool,
) -> None:
    """All rows of a case once, in turn."""
    device, clock = torch.device(setup.device), CLOCKS[setup.clock]
    host = [on_host(update, case.call, device, clock) for _ in case.rows]
    seconds = [taken.seconds for taken in host]
    if device.type == "cuda":
        seconds = [on_cuda(update, case.call, device, launch) for launch in seconds]
    for (name, _), taken, own in zip(case.rows, host, seconds, strict=True):
        if keep:
            seen[name].seconds.append(own)
            seen[name].launch.append(taken.seconds)
            if taken.faults is not None:
                seen[name].faults.append(taken.faults)


def _count(
    device: torch.device, update: Callable[[], object], case: Case, seen: dict[str, _Seen]
) -> None:
    """Count for all rows of a case, in turn."""
    for name, _ in case.rows:
        update()
        seen[name].counts = counts = count(case.call)
        seen[name].peak = counts.peak
    if device.type == "cuda":
        for name, _ in case.rows:
            update()
            seen[name].waits = waits_for_cuda(case.call)
        for name, _ in case.rows:
            update()
            # What the allocator saw, kernels' own scratch included.
            seen[name].peak = peak_on_cuda(case.call, device)


def _compared(loops: Sequence[Loop], times: dict[str, Times]) -> tuple[LoopRow, ...]:
    base = times[loops[0].name]
    rows = []
    for loop in loops:
        own = times[loop.name]
        ordinary, ends = (
            [a / b for a, b in zip(mine, theirs, strict=True)]
            for mine, theirs in ((own.ordinary, base.ordinary), (own.ends, base.ends))
        )
        rows.append(
            LoopRow(
                name=loop.name,
                label=loop.label,
                seconds=mixture(own.ordinary, own.ends, own.share).value,
                ratio=mixture(ordinary, ends, own.share),
                ordinary=own.ordinary,
                ends=own.ends,
                end_share=own.share,
            )
        )
    return tuple(rows)


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
