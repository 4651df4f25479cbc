"""Command line: what AutoDrop costs per step, beside what it could cost and the step itself."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from paper_checks import terminal
from paper_checks.overhead.result import Result
from paper_checks.overhead.run import measure
from paper_checks.overhead.setup import ClockName, ModelName, Setup

OK, USAGE, INTERRUPTED = 0, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the JSON if asked to.

    Returns 0; 2 for wrong usage; 130 if interrupted.
    """
    options = _parser().parse_args(argv)
    console = terminal.console()
    try:
        setup = Setup(
            device=options.device,
            model=options.model,
            repeats=options.repeats,
            windows=options.windows,
            batch=options.batch,
            width=options.width,
            depth=options.depth,
            window=options.window,
            threads=options.threads,
            clock=options.clock,
        )
        if options.out is not None:
            if options.out.is_dir():
                raise ValueError(f"out must be a file, got the directory {options.out}")
            options.out.parent.mkdir(parents=True, exist_ok=True)
        result = _measure(console, setup)
        if options.out is not None:
            result.write_json(options.out)
    except (ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    console.print(_summary(result), markup=False)
    for table in (_times(result), _counts(result), _loops(result)):
        console.print(table)
    if options.out is not None:
        console.print(str(options.out), markup=False, soft_wrap=True)
    return OK


def _parser() -> argparse.ArgumentParser:
    defaults = Setup()
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.overhead",
        description="Time the angular velocity and AutoDrop per step, beside a bare "
        "torch._foreach_add_ of the same tensors, torch's AveragedModel, a flat snapshot, the "
        "optimizer's step, and forward and backward, everything once in every round; count "
        "operations, read-backs and memory; then time whole training loops side by side.",
    )
    add = parser.add_argument
    add("--device", default=defaults.device, help="cpu, cuda or cuda:N (default: %(default)s)")
    add("--model", choices=get_args(ModelName), default=defaults.model, help="%(choices)s")
    add(
        "--repeats",
        type=int,
        default=defaults.repeats,
        help="rounds of calls (default: %(default)s)",
    )
    add(
        "--windows",
        type=int,
        default=defaults.windows,
        help="windows of each training loop: of 3 iterations on the cpu, of --window iterations "
        "on cuda (default: %(default)s)",
    )
    add(
        "--batch",
        type=int,
        help="images or sequences (default: 128 and 8 on cuda, 16 and 1 on the cpu)",
    )
    add(
        "--width",
        type=int,
        help="channels of the first stage of the ResNet, width of the transformer "
        "(default: 64 and 768)",
    )
    add(
        "--depth",
        type=int,
        default=defaults.depth,
        help="blocks of the transformer (default: %(default)s)",
    )
    add(
        "--window",
        type=int,
        default=defaults.window,
        help="updates over which a window's end is spread (default: %(default)s)",
    )
    add("--threads", type=int, help="of torch on the CPU (default: torch's)")
    add(
        "--clock",
        choices=get_args(ClockName),
        default=defaults.clock,
        help="cpu: CPU time, on a machine that is busy with other things; needs --device cpu and "
        "--threads 1 (default: %(default)s)",
    )
    add("--out", type=Path, metavar="FILE.json", help="write the result there")
    return parser


def _measure(console: Console, setup: Setup) -> Result:
    """Measure under a progress bar."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        # Nothing runs beside the measurement.
        auto_refresh=False,
    )
    with bar:
        task = bar.add_task("rounds", total=setup.repeats + setup.windows)

        def advance(done: int) -> None:
            bar.update(task, completed=done, refresh=True)

        return measure(setup, advance)


def _summary(result: Result) -> str:
    clock = " of CPU time" if result.setup["clock"] == "cpu" else ""
    return (
        f"{result.setup['model']}: {result.parameters:,} parameters in {result.tensors} tensors, "
        f"{result.batch}\n{result.device}, {result.threads} threads, torch {result.torch}; an "
        f"addition in one large buffer reads and writes {result.bandwidth / 1e9:.1f} GB/s\nMedians "
        f"of {result.setup['repeats']} rounds{clock}, in brackets intervals at 95 %. Ratios are "
        "paired. The floor is torch._foreach_add_; plain and anchored are AngularVelocity's sums."
    )


def _times(result: Result) -> Table:
    window = result.setup["window"]
    launch = result.device_kind == "cuda"
    table = Table(box=SIMPLE_HEAD)
    table.add_column("one call")
    columns = ["ms", "× floor", "of a step", f"window {window}: × floor", "of a step"]
    for name in (*columns, *(["ms to launch"] if launch else [])):
        table.add_column(name, justify="right")
    for row in result.rows:
        cells = [
            f"{row.seconds * 1e3:.3f}",
            f"{row.ratio:.2f}",
            f"{row.share.value:.2%}",
            "" if row.window_ratio is None else f"{row.window_ratio:.2f}",
            "" if row.window_share is None else f"{row.window_share.value:.2%}",
        ]
        table.add_row(row.label, *cells, *([f"{row.launch * 1e3:.3f}"] if launch else []))
    return table


def _counts(result: Result) -> Table:
    on_cuda = result.device_kind == "cuda"
    table = Table(box=SIMPLE_HEAD, caption="kept, in the call, moved: copies of the parameters")
    table.add_column("one call")
    seen = "waits" if on_cuda else "page faults"
    for name in ("operations", "read-backs", seen, "kept", "in the call", "moved", "speed"):
        table.add_column(name, justify="right")
    for row in result.rows:
        noticed = row.waits if on_cuda else row.faults
        table.add_row(
            row.label,
            str(row.operations),
            str(row.read_backs),
            "" if noticed is None else f"{noticed:.0f}",
            "" if row.held is None else f"{row.held:.2f}",
            f"{row.peak:.2f}",
            f"{row.moved:.2f}",
            "" if row.bandwidth is None else f"{row.bandwidth:.0%}",
        )
    return table


def _loops(result: Result) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("training loop")
    for name in ("s per iteration", f"× {result.loops[0].label}"):
        table.add_column(name, justify="right")
    for loop in result.loops:
        table.add_row(loop.label, f"{loop.seconds:.4f}", f"{loop.ratio:.3f}")
    return table


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may lack × and ′
    sys.exit(main())
