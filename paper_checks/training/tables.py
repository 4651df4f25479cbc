"""Tables of a comparison: ``python -m paper_checks.training.tables [results.json]``.

Also draws the figure, with --figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from paper_checks import style, terminal
from paper_checks.training import comparison_figure, decide, plan
from paper_checks.training.decide import Comparison
from paper_checks.training.measures import QUARTERS
from paper_checks.training.paired import difference
from paper_checks.training.plan import Arm
from paper_checks.training.results import COMMITTED, Results, named
from paper_checks.training.schedules import SCHEDULES

Row = tuple[str, ...]
COMPARED = ("rival", "its mean, %", "AutoDrop − it, points", "interval")
SANITY: dict[Arm, str] = {
    "rate": "Sanity of the rivals: final error minus the constant rate's, at the best rate",
    "tuned": "… at the best of rate and setting",
}
CURVES = (
    "schedule", "rate", "25 %", "50 %", "75 %", "100 %", "area", "epochs to target", "least",
)  # fmt: skip


def curves(results: Results, task: str) -> list[Row]:
    """A row a schedule, at its best rate: mean test error (%) at the quarters and so on."""
    target = decide.target(results, task)
    rows = []
    for name in results.schedules(task):
        choice = decide.choice(results, task, name, "rate")
        seen = results.curves(task, choice)
        rows.append(
            (
                SCHEDULES[name].label,
                f"{choice.rate:g}" + (" (end)" if choice.at_end else ""),
                *(f"{np.mean([c.at(part) for c in seen]):.2f}" for part in QUARTERS),
                f"{np.mean([c.area for c in seen]):.2f}",
                f"{np.mean([c.epochs_to(target) for c in seen]):.0f}",
                f"{np.mean([c.least for c in seen]):.2f}",
            )
        )
    return rows


def compared(found: Sequence[Comparison]) -> list[Row]:
    """A row a rival, see `COMPARED`: its mean, AutoDrop minus it, and the interval."""
    return [
        (
            SCHEDULES[c.rival].label,
            f"{c.theirs:.2f}",
            f"{c.interval.mean:+.2f}",
            f"{c.interval.low:+.2f} to {c.interval.high:+.2f}",
        )
        for c in found
    ]


def sanity(results: Results, arm: Arm) -> tuple[Row, list[Row]]:
    """Of tasks with that arm, a row a rival: its mean final error minus the constant rate's.

    (columns, rows), in points; "(!)" beyond the protocol's margin, where the rival may be crippled.
    """
    tasks = [task for task in results.tasks if results.choice(task, decide.CONSTANT, arm)]
    rows: dict[str, list[str]] = {}
    for i, task in enumerate(tasks):
        marked = decide.crippled(results, task, arm)
        errors = {c.rival: c.theirs for c in decide.comparisons(results, task, arm)}
        for name, error in errors.items():
            cells = rows.setdefault(name, [""] * len(tasks))
            cells[i] = f"{error - errors[decide.CONSTANT]:+.2f}" + " (!)" * (name in marked)
    labelled = [(SCHEDULES[name].label, *cells) for name, cells in rows.items()]
    return ("rival", *map(results.label, tasks)), labelled


def ablation(results: Results, task: str) -> list[Row]:
    """A row a setting of AutoDrop at the first guess of the rate: mean final error, its change."""
    known = named(task)
    default, *others = plan.ablation(known)
    base = [run.curve.final for run in results.runs(task, default, known.guess)]
    rows: list[Row] = [("default", f"{np.mean(base):.2f}", "", "")]
    for variant in others:
        errors = [run.curve.final for run in results.runs(task, variant, known.guess)]
        paired = difference(errors, base[: len(errors)])
        rows.append(
            (
                variant.name.removeprefix("autodrop "),
                f"{np.mean(errors):.2f}",
                f"{paired.mean:+.2f}",
                f"{paired.low:+.2f} to {paired.high:+.2f}",
            )
        )
    return rows


def all_tables(results: Results) -> Iterator[tuple[str, Row, list[Row]]]:
    """(title, columns, rows) of everything."""
    for task in results.tasks:
        entry = results.document["tasks"][task]
        yield (
            f"{entry['label']}: test error (%), every schedule at its best rate",
            CURVES,
            curves(results, task),
        )
        found = decide.comparisons(results, task)
        yield f"{entry['label']}: final test error", COMPARED, compared(found)
        found = decide.comparisons(results, task, "rate", decide.area)
        yield f"{entry['label']}: area under the curve", COMPARED, compared(found)
        found = decide.comparisons(results, task, "guess")
        yield f"{entry['label']}: final test error without any tuning", COMPARED, compared(found)
        if any(results.choice(task, name, "tuned") for name in decide.rivals(results, task)):
            found = decide.comparisons(results, task, "tuned")
            yield f"{entry['label']}: final test error, rivals tuned", COMPARED, compared(found)
    for arm, title in SANITY.items():
        columns, rows = sanity(results, arm)
        if rows:
            yield title, columns, rows


def show(results: Results, console: Console) -> None:
    """Print all tables."""
    for title, columns, rows in all_tables(results):
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of results, by default the committed ones; draw the figure if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.training.tables",
        description="Tables and figure of a comparison of schedules.",
    )
    parser.add_argument("results", nargs="?", type=Path, default=COMMITTED)
    parser.add_argument("--figure", type=Path, help="write the figure there, as SVG")
    options = parser.parse_args(argv)
    try:
        if options.figure is not None and options.figure.suffix != ".svg":
            raise ValueError(f"--figure must name an .svg file, got {str(options.figure)!r}")
        results = Results.load(options.results)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    show(results, terminal.console())
    if options.figure is not None:
        style.save_svg(comparison_figure.comparison(results), options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
