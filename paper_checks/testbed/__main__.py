"""Command line: rules that drop the learning rate against a known truth, and their score table."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paper_checks import ranks, style, terminal
from paper_checks.testbed import figures, stored, table
from paper_checks.testbed.plan import LEVELS, Level, tasks
from paper_checks.testbed.summary import score
from paper_checks.testbed.work import left, run, work

OK, BELOW, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the test bed, print the tables, write results.json and the figures.

    Returns 0; 1 if a rule beats the oracle beyond its interval, or a control that cheats is not
    exposed; 2 for wrong usage; 130 if interrupted, after which the same command goes
    on from what is finished.  Under torchrun the tasks are shared out among its ranks; rank 0
    prints and writes.
    """
    options = _parser().parse_args(argv)
    shared = ranks.of_torchrun()
    if shared is None:
        return _main(options, None)
    if shared.rank:
        level = LEVELS[options.level]
        planned = tasks(level)
        return shared.serve(lambda i: work(planned[i], level, options.seed), len(planned))
    status = INTERRUPTED
    try:
        status = _main(options, shared)
    finally:
        shared.finish(status)
    return status


def _main(options: argparse.Namespace, shared: ranks.Ranks | None) -> int:
    console = terminal.console()
    level = LEVELS[options.level]
    try:
        if options.jobs < 1:
            raise ValueError(f"jobs must be >= 1, got {options.jobs}")
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        return USAGE
    begun = time.monotonic()
    try:
        results = _run(console, level, options, shared)
    except KeyboardInterrupt:
        return INTERRUPTED
    scored = score(results) | {
        "settings": {
            "level": level.name,
            "trajectories": level.trajectories,
            "horizons": level.horizons,
            "stretches": level.stretches,
            "seed": options.seed,
        }
    }
    _write(scored, options.out)
    for each in (table.score_table(scored), table.momentum_table(scored)):
        if each is not None:
            console.print(each)
    console.print(table.sensing_table(scored))
    below = scored["below_the_oracle"]
    for each in below:
        console.print(f"BELOW THE ORACLE: {each}", markup=False)
    console.print(
        f"{len(results)} tasks, {time.monotonic() - begun:.0f} s; {options.out}/results.json",
        markup=False,
        soft_wrap=True,
    )
    controls = scored["controls"]
    exposed = (
        controls["leak of the rule that peeks"] is not None and controls["miscalibration exposed"]
    )
    return OK if exposed and not below else BELOW


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.testbed",
        description="Rules that drop the learning rate, on problems where the best schedule and "
        "the time at which the risk reaches its floor are known: AutoDrop's three rules, torch's "
        "ReduceLROnPlateau, Pflug's statistic, the distance diagnostic, SASA+, ABEL, and open-loop "
        "schedules.",
    )
    add = parser.add_argument
    add("--level", choices=tuple(LEVELS), default="quick", help="(default: %(default)s)")
    add("--jobs", type=int, default=2, help="processes; results are the same (default: 2)")
    add("--seed", type=int, default=0, help="of all noise (default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=Path("report-testbed"),
        metavar="DIR",
        help="for results.json, the figures, and finished parts (default: %(default)s)",
    )
    return parser


def _run(
    console: Console, level: Level, options: argparse.Namespace, shared: ranks.Ranks | None
) -> dict[str, Any]:
    planned = tasks(level)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    missing = {task.name for task in left(planned, level, options.seed, options.out)}
    total = sum(task.cost for task in planned if task.name in missing)
    results: dict[str, Any] = {}
    begun, done = time.monotonic(), 0.0
    with bar:
        shown = bar.add_task("starting", total=len(planned))
        for task, result in run(
            planned,
            level,
            jobs=options.jobs,
            seed=options.seed,
            out=options.out,
            shared=shared,
        ):
            results[task.name] = result
            done += task.cost if task.name in missing else 0.0
            bar.update(shown, advance=1, description=f"{task.name:<40.40}")
            if task.name in missing and not console.is_terminal:
                passed = time.monotonic() - begun
                console.print(
                    f"{task.name}: done; {passed:.0f} s, about "
                    f"{passed * (total - done) / done:.0f} s left",
                    markup=False,
                )
    return results


def _write(scored: dict[str, Any], out: Path) -> None:
    stored.write(scored, out / "results.json")
    for name, draw in (
        ("regret", figures.regret_figure),
        ("timing", figures.timing_figure),
        ("equivariance", figures.equivariance_figure),
        ("sensitivity", figures.sensitivity_figure),
    ):
        style.save_svg(draw(scored), out / f"{name}.svg")


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may lack × and ′
    sys.exit(main())
