"""Doing trials: each leaves one record; what is there already is not done again.

A process that is killed loses at most the runs in flight, of which long ones go on from their last
checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_checks.training import store
from paper_checks.training.data import Dataset
from paper_checks.training.plan import Trial
from paper_checks.training.run import Diverged, Run, threads
from paper_checks.training.tasks import TASKS


class OutOfTime(Exception):
    """The time given is over; the next start goes on."""


@dataclass(frozen=True)
class Place:
    """Where records are and what is trained on.

    folder: of the records. path, samples: of the data, see `Task.data`. device, epochs: in place
    of the tasks', if given. deadline: of `time.time`, after which no run is started and long ones
    stop.
    """

    folder: Path
    path: str | None = None
    samples: int | None = None
    device: str = "cpu"
    precision: str = "float32"
    epochs: int | None = None
    deadline: float | None = None

    def data(self, trial: Trial) -> Dataset:
        """What the trial trains on."""
        task = TASKS[trial.task]
        if trial.part == "test":
            return task.data(self.path, self.samples)[1]
        return task.data(self.path, self.samples, held=trial.config.seed)[0]

    def adapted(self, trial: Trial) -> Trial:
        """The trial with this place's device, precision and budget."""
        changes: dict[str, Any] = {"device": self.device, "precision": self.precision}
        if self.epochs is not None:
            changes["epochs"] = self.epochs
        return dataclasses.replace(trial, config=dataclasses.replace(trial.config, **changes))

    def file(self, trial: Trial) -> Path:
        """Its record."""
        return self.folder / f"{trial.key(self.data(trial).fingerprint())}.json"


def perform(trial: Trial, place: Place) -> None:
    """Train and write the record. Raises OutOfTime, and what `Run` raises but for Diverged."""
    path = place.file(trial)
    long = TASKS[trial.task].long
    checkpoint = path.with_suffix(".pt")
    run = Run(trial.config, place.data(trial))
    if long and checkpoint.exists():
        try:
            run.load(checkpoint)
        except ValueError:  # half a file, or of another version: the run starts again
            run = Run(trial.config, place.data(trial))
    start, before = time.process_time(), run.seconds
    diverged = None
    with threads(trial.config.threads), warnings.catch_warnings():
        # Rates that have dropped to nothing move nothing, and AutoDrop says so in every run.
        warnings.filterwarnings("ignore", "no angular velocity", RuntimeWarning)
        try:
            while not run.finished:
                run.advance()
                if long and run.iteration % run.epoch_length == 0 and not run.finished:
                    run.save(checkpoint)
                    if place.deadline is not None and time.time() > place.deadline:
                        raise OutOfTime
        except Diverged:
            diverged = run.iteration
    document = {
        **dataclasses.asdict(run.record()),
        "task": trial.task,
        "part": trial.part,
        "of": run.data.test_y.numel(),
        "variant": trial.variant.name,
        "diverged": diverged,
        "cpu_seconds": time.process_time() - start,
        "resumed_after": before,
    }
    store.write(path, document)
    checkpoint.unlink(missing_ok=True)


def missing(trials: Sequence[Trial], place: Place, complain: Callable[[str], None]) -> list[Trial]:
    """The trials without a whole record; a broken one is complained about and counts as missing."""
    found = []
    for trial in trials:
        try:
            store.read(place.file(trial))
        except FileNotFoundError:
            found.append(trial)
        except store.Corrupt as error:
            complain(f"{error}; it is run again")
            found.append(trial)
    return found


@contextlib.contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """So many processes for `perform_all`; for 1 none, the work is done in this one.

    Left by an exception, nothing new is started, and what is in flight is done or saved.
    """
    if jobs == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def perform_all(
    trials: Sequence[Trial], place: Place, pool: Executor | None = None
) -> Iterator[Trial]:
    """Perform the trials, in `workers` if given; yield each when its record is there.

    Raises OutOfTime when the deadline has passed.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    if pool is None:
        for trial in trials:
            _in_time(trial, place)
            yield trial
        return
    futures = {pool.submit(_in_time, trial, place): trial for trial in trials}
    for future in as_completed(futures):
        future.result()
        yield futures[future]


def _in_time(trial: Trial, place: Place) -> None:
    if place.deadline is not None and time.time() > place.deadline:
        raise OutOfTime
    perform(trial, place)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
