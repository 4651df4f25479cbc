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
from paper_checks.overhead.result import Result, Row
from paper_checks.overhead.run import measure
from paper_checks.overhead.setup import ModelName, Setup

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
            batch=options.batch,
            width=options.width,
            depth=options.depth,
            threads=options.threads,
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
    console.print(_table(result))
    if options.out is not None:
        console.print(str(options.out), markup=False, soft_wrap=True)
    return OK


def _parser() -> argparse.ArgumentParser:
    defaults = Setup()
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.overhead",
        description="Time the angular velocity and AutoDrop per step, beside a bare "
        "torch._foreach_add_ of the same tensors, torch's AveragedModel, a flat snapshot, the "
        "optimizer's step, and forward and backward; everything once in every round.",
    )
    add = parser.add_argument
    add("--device", default=defaults.device, help="cpu, cuda or cuda:N (default: %(default)s)")
    add("--model", choices=get_args(ModelName), default=defaults.model, help="%(choices)s")
    add("--repeats", type=int, default=defaults.repeats, help="rounds (default: %(default)s)")
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
    add("--threads", type=int, help="of torch on the CPU (default: torch's)")
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
        task = bar.add_task("rounds", total=setup.repeats)

        def advance(done: int) -> None:
            bar.update(task, completed=done, refresh=True)

        return measure(setup, advance)


def _summary(result: Result) -> str:
    return (
        f"{result.setup['model']}: {result.parameters:,} parameters in {result.tensors} tensors, "
        f"{result.batch}\n{result.device}, {result.threads} threads, torch {result.torch}; a copy "
        f"reads and writes {result.copy_bandwidth / 1e9:.1f} GB/s; medians of "
        f"{result.setup['repeats']} rounds"
    )


def _table(result: Result) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("one call")
    for name in ("ms", "× floor", "of a step", "of copy speed", "copies kept", "read-backs"):
        table.add_column(name, justify="right")
    for row in result.rows:
        table.add_row(row.label, *_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.seconds * 1e3:.3f}",
        f"{row.ratio:.2f}",
        f"{row.share:.2%}",
        "" if row.bandwidth is None else f"{row.bandwidth:.0%}",
        "" if row.memory is None else f"{row.memory:.2f}",
        str(row.read_backs),
    )


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may lack × and ′
    sys.exit(main())
