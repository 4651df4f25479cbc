"""Whether a run that was stopped and resumed is the run that was not stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset
from paper_checks.training.run import Run, threads, train


def resume_differences(
    config: Config, data: Dataset, stops: Iterable[int]
) -> dict[int, tuple[str, ...]]:
    """For each number of updates in `stops`: the fields of the record that resuming there changed.

    A run is saved to a file after that many updates, and the file loaded into a new run, which is
    finished. Compared bit by bit with the run that was not stopped: losses, accuracies, learning
    rates, angles, drops, final weights. Raises ValueError for a stop outside the run.
    """
    whole = train(config, data)
    stops = sorted(set(stops))
    for stop in stops:
        if not 0 <= stop <= whole.iterations:
            raise ValueError(f"stops must be in [0, {whole.iterations}], got {stop}")
    found = {}
    with tempfile.TemporaryDirectory() as folder, threads(config.threads):
        path = Path(folder) / "checkpoint.pt"
        first = Run(config, data)
        for stop in stops:
            while first.iteration < stop:
                first.advance()
            first.save(path)
            second = Run(config, data)
            second.load(path)
            while not second.finished:
                second.advance()
            found[stop] = whole.differences(second.record())
    return found


def resume_is_identical(config: Config, data: Dataset, stops: Iterable[int]) -> bool:
    """Whether resuming after each of `stops` updates changes no bit, see `resume_differences`."""
    return not any(resume_differences(config, data, stops).values())
