"""Command line: train with AutoDrop and at a constant rate, side by side."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from paper_checks import terminal
from paper_checks.training import figure
from paper_checks.training.config import Config, OptimizerName, RuleName
from paper_checks.training.data import Dataset, load_digits, load_npz
from paper_checks.training.record import Record, write_json
from paper_checks.training.run import Diverged, Run, train

OK, DIVERGED, USAGE, INTERRUPTED = 0, 1, 2, 130
_RATES = {"sgd": 0.1, "adamw": 0.001}
_SCHEDULES: tuple[str, ...] = ("autodrop", "constant")


def main(argv: Sequence[str] | None = None) -> int:
    """Train twice, print a table, write record.json, training.png and training.svg.

    Returns 0; 1 if the loss diverged; 2 for wrong usage or data; 130 if interrupted, after which
    --resume goes on from the last finished epoch.
    """
    options = _parser().parse_args(argv)
    console = terminal.console()
    try:
        data = load_digits() if options.data == "digits" else load_npz(options.data)
        configs = {schedule: _config(options, schedule) for schedule in _SCHEDULES}
        for config in configs.values():
            Run(config, data)  # before any work: is there anything to complain about?
        options.out.mkdir(parents=True, exist_ok=True)
        records = _train(console, configs, data, options.out, options.resume)
    except (ValueError, OSError) as error:
        return _fail(error, USAGE)
    except Diverged as error:
        return _fail(error, DIVERGED)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return INTERRUPTED

    write_json(options.out / "record.json", records)
    drawn = figure.training_figure(records["autodrop"], records["constant"])
    png, svg = figure.save(drawn, options.out / "training")
    console.print(_summary(data, records["autodrop"]), markup=False)
    console.print(_table(records))
    for path in (png, svg, options.out / "record.json"):
        console.print(str(path), markup=False, soft_wrap=True)
    return OK


def _parser() -> argparse.ArgumentParser:
    defaults = Config()
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.training",
        description="Train a network with AutoDrop and with the same optimizer at a constant rate; "
        "print and plot loss, accuracy, angular velocity and learning rate of both.",
    )
    add = parser.add_argument
    add(
        "--data",
        default="digits",
        help="digits (bundled with scikit-learn), or an .npz file with arrays x of shape (N, …) "
        "and y of N integer labels; a fifth of each class is kept for the test "
        "(default: %(default)s)",
    )
    add("--epochs", type=int, default=defaults.epochs, help="(default: %(default)s)")
    add("--batch-size", type=int, default=defaults.batch_size, help="(default: %(default)s)")
    add(
        "--lr",
        type=float,
        help="first learning rate, and the constant one "
        f"(default: {_RATES['sgd']} for sgd, {_RATES['adamw']} for adamw)",
    )
    add(
        "--optimizer",
        choices=get_args(OptimizerName),
        default=defaults.optimizer,
        help="(default: %(default)s)",
    )
    add(
        "--momentum",
        type=float,
        default=defaults.momentum,
        help="momentum of sgd, β₁ of adamw (default: %(default)s)",
    )
    add("--weight-decay", type=float, default=defaults.weight_decay, help="(default: %(default)s)")
    add(
        "--rule",
        choices=get_args(RuleName),
        default=defaults.rule,
        help="which AutoDrop: Algorithm 1 of UAI 2024, or that of the first version of the paper "
        "(default: %(default)s)",
    )
    add(
        "--window",
        type=int,
        metavar="K",
        help="updates per window of the angular velocity (default: a sixth of an epoch, as in the "
        "paper; one epoch for arxiv2021)",
    )
    add("--factor", type=float, help="factor of a drop (default: the rule's)")
    add(
        "--seed",
        type=int,
        default=defaults.seed,
        help="of the first weights and the order of the samples; the split into training and "
        "test set is always the same (default: %(default)s)",
    )
    add("--device", default=defaults.device, help="cpu, cuda or cuda:N (default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("runs/training"),
        help="directory for record.json, training.png, training.svg and the checkpoints "
        "(default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from the checkpoints in --out")
    return parser


def _config(options: argparse.Namespace, schedule: str) -> Config:
    return Config(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=_RATES[options.optimizer] if options.lr is None else options.lr,
        optimizer=options.optimizer,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        schedule=schedule,
        rule=options.rule,
        window=options.window,
        factor=options.factor,
        seed=options.seed,
        device=options.device,
    )


def _train(
    console: Console, configs: dict[str, Config], data: Dataset, out: Path, resume: bool
) -> dict[str, Record]:
    """Train every config under one progress bar."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    records: dict[str, Record] = {}
    with bar:
        for name, config in configs.items():
            task = bar.add_task(f"{name:<8}", total=config.epochs)
            records[name] = train(
                config,
                data,
                checkpoint=out / f"{name}.pt",
                resume=resume,
                progress=lambda run, task=task: bar.update(  # type: ignore[misc]
                    task, completed=run.iteration // run.epoch_length
                ),
            )
    return records


def _summary(data: Dataset, record: Record) -> str:
    return (
        f"{data.name}: {len(data.train_x)} samples to train and {len(data.test_x)} to test, "
        f"{len(data.classes)} classes; epochs of {record.epoch_length} updates, windows of "
        f"{record.window}"
    )


def _table(records: dict[str, Record]) -> Table:
    first = next(iter(records.values()))
    table = Table(box=SIMPLE_HEAD)
    table.add_column(f"after {first.config.epochs} epochs")
    for name in records:
        table.add_column(name, justify="right")
    rows = {
        "training loss": lambda r: f"{r.curves.train_loss[-1]:.4f}",
        "test loss": lambda r: f"{r.curves.test_loss[-1]:.4f}",
        "training accuracy": lambda r: f"{r.curves.train_accuracy[-1]:.2%}",
        "test accuracy": lambda r: f"{r.curves.test_accuracy[-1]:.2%}",
        "learning rate": lambda r: f"{r.curves.learning_rate[-1]:.3g}",
        "drops": lambda r: f"{len(r.drops)}",
        "angle, mean of the last quarter": lambda r: (
            f"{np.mean(r.angles[-max(1, len(r.angles) // 4) :]):.1f}°" if r.angles else "none"
        ),
        "seconds": lambda r: f"{r.seconds:.1f}",
    }
    for name, cell in rows.items():
        table.add_row(name, *(cell(record) for record in records.values()))
    return table


def _fail(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may lack ° and …
    sys.exit(main())
