"""Command line: the comparison of schedules by PROTOCOL.md, resumable at any moment.

    python -m paper_checks.training.sweep --level quick     # a slice, seconds
    python -m paper_checks.training.sweep --level full      # all tasks on digits, minutes
    python -m paper_checks.training.sweep --task cifar-resnet18 --data cifar10.npz --device cuda \\
        --precision bfloat16 --minutes 10                   # again until it says that all is done
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paper_checks import terminal
from paper_checks.context import Level
from paper_checks.training import plan, store, tables
from paper_checks.training.config import PrecisionName
from paper_checks.training.decide import CONSTANT, OURS
from paper_checks.training.plan import Errors, Trial
from paper_checks.training.results import Results, collect, named, unavailable, validation_errors
from paper_checks.training.schedules import SCHEDULES
from paper_checks.training.tasks import DIGITS, TASKS, Task
from paper_checks.training.work import OutOfTime, Place, missing, perform_all, workers

OK, USAGE, UNFINISHED, INTERRUPTED = 0, 2, 3, 130
RESULTS = "results.json"
_QUICK = ("mlp-short",)  # of the tasks
_QUICK_SEEDS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is missing, print the tables, write results.json.

    Returns 0; 2 for wrong usage or data; 3 if the time was over before all was done, 130 if
    interrupted: the same command goes on.
    """
    options = _parser().parse_args(argv)
    console = terminal.console()
    try:
        for name, least in (("seeds", 2), ("tuning_seeds", 1), ("jobs", 1), ("epochs", 1)):
            value = getattr(options, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} must be >= {least}, got {value}")
        if options.minutes is not None and not options.minutes > 0:
            raise ValueError(f"--minutes must be > 0, got {options.minutes:g}")
        tasks = _tasks(options)
        place = Place(
            folder=options.out / "records",
            path=options.data,
            samples=options.samples,
            device=options.device,
            precision=options.precision,
            epochs=options.epochs,
            deadline=None if options.minutes is None else time.time() + 60 * options.minutes,
        )
        results = sweep(tasks, place, console, options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    except OutOfTime:
        sys.stderr.write("the time is over; the same command goes on\n")
        return UNFINISHED
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on\n")
        return INTERRUPTED
    path = options.results or options.out / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    results.save(path)
    tables.show(results, console)
    console.print(f"{results.document['cpu_seconds']:.0f} s of CPU time in the runs. {path}")
    return OK


def sweep(
    tasks: Sequence[Task], place: Place, console: Console, options: argparse.Namespace
) -> Results:
    """Tune, choose, test; what is there already is read."""
    skipped = unavailable()
    compared = {*(options.schedules or SCHEDULES), OURS, CONSTANT}
    names = [name for name in SCHEDULES if name in compared and name not in skipped]
    for name, why in skipped.items():
        console.print(f"{name} is left out: {why}", markup=False)
    schedules = {task.name: plan.schedules_of(task, names) for task in tasks}
    chosen, tested = {}, {}
    with workers(options.jobs) as pool:
        perform = partial(_perform, console, place, pool)
        trials, tuned = _tune(tasks, schedules, place, perform, options.tuning_seeds)
        for task in tasks:
            chosen[task.name] = plan.choose(task, schedules[task.name], tuned[task.name])
            wanted = plan.to_test(task, chosen[task.name], options.seeds)
            tested[task.name] = [place.adapted(trial) for trial in wanted]
        perform("testing", _joined(tested))
    spent = sum(
        store.read(place.file(trial))["cpu_seconds"] for trial in (*trials, *_joined(tested))
    )
    return collect(tasks, tuned, chosen, tested, skipped, place, spent)


def _tune(
    tasks: Sequence[Task],
    schedules: Mapping[str, Sequence[str]],
    place: Place,
    perform: Callable[[str, list[Trial]], None],
    seeds: int | None,
) -> tuple[list[Trial], dict[str, Errors]]:
    """Try rates until each variant's best lies between others: the runs, and errors by task."""
    tried: dict[str, list[Trial]] = {task.name: [] for task in tasks}
    more = {task.name: plan.to_tune(task, schedules[task.name], seeds) for task in tasks}
    errors: dict[str, Errors] = {}
    stage = "tuning"
    while any(more.values()):
        adapted = {
            name: [place.adapted(trial) for trial in several] for name, several in more.items()
        }
        perform(stage, _joined(adapted))
        for task in tasks:
            tried[task.name] += adapted[task.name]
            errors[task.name] = validation_errors(tried[task.name], place)
            more[task.name] = plan.to_tune_on(task, schedules[task.name], errors[task.name], seeds)
        stage = "tuning, one rate further"
    return _joined(tried), errors


def _joined(trials: Mapping[str, Sequence[Trial]]) -> list[Trial]:
    return [trial for several in trials.values() for trial in several]


def _perform(
    console: Console, place: Place, pool: Executor | None, stage: str, trials: Sequence[Trial]
) -> None:
    """Do what is missing under a progress bar, or with a line now and then in a log."""
    todo = missing(trials, place, lambda text: console.print(text, markup=False, soft_wrap=True))
    if len(todo) < len(trials):
        console.print(f"{stage}: {len(trials) - len(todo)} of {len(trials)} runs are there already")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    start, every = time.perf_counter(), max(1, len(todo) // 10)
    with bar:
        under_way = bar.add_task(stage, total=len(todo))
        for done, _ in enumerate(perform_all(todo, place, pool), start=1):
            bar.update(under_way, completed=done)
            if not console.is_terminal and (done % every == 0 or done == len(todo)):
                left = (time.perf_counter() - start) * (len(todo) - done) / done
                console.print(f"{stage}: {done} of {len(todo)} runs, about {left:.0f} s left")


def _tasks(options: argparse.Namespace) -> tuple[Task, ...]:
    if options.task:
        if options.level is not None:
            raise ValueError("--level and --task exclude each other")
        return tuple(_fitting(named(name), options) for name in options.task)
    if options.level == "full":
        return tuple(_fitting(task, options) for task in DIGITS)
    options.seeds = options.seeds or _QUICK_SEEDS
    options.tuning_seeds = options.tuning_seeds or 1
    return tuple(
        replace(_fitting(task, options), factors=(), tuned=False)
        for task in DIGITS
        if task.name in _QUICK
    )


def _fitting(task: Task, options: argparse.Namespace) -> Task:
    """The task. Raises ValueError for options on data that it would not heed."""
    for name, sources in (("data", ("images",)), ("samples", ("images", "text"))):
        if getattr(options, name) is not None and task.source not in sources:
            raise ValueError(f"--{name} is not for task {task.name!r}, whose data are fixed")
    return task


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.training.sweep",
        description="Compare AutoDrop with other schedules by the protocol in "
        "paper_checks/training/PROTOCOL.md. Finished runs are kept in --out; the same command goes "
        "on after an interruption.",
    )
    add = parser.add_argument
    add(
        "--level", choices=get_args(Level),
        help="the tasks on digits: a slice, or all (default: quick)",
    )  # fmt: skip
    add("--task", action="append", help=f"in place of --level, repeatable: {', '.join(TASKS)}")
    add(
        "--schedules", nargs="+", choices=tuple(SCHEDULES),
        help=f"only these, and {OURS} and {CONSTANT} (default: all)",
    )  # fmt: skip
    add("--data", help="images, for the tasks named cifar: see paper_checks/training/images.py")
    add("--samples", type=int, help="how many of the training images or sequences to keep")
    add("--epochs", type=int, help="in place of the task's")
    add("--seeds", type=int, help="of every tested setting, ≥ 2, in place of the task's")
    add("--tuning-seeds", type=int, help="at most so many of the task's")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    add("--precision", choices=get_args(PrecisionName), default="float32")
    add("--jobs", type=int, default=1, help="runs at a time (default: %(default)s)")
    add("--minutes", type=float, help="start nothing new after so many; the next call goes on")
    add("--out", type=Path, default=Path("runs/sweep"), help="(default: %(default)s)")
    add("--results", type=Path, help=f"where to write the results (default: OUT/{RESULTS})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
