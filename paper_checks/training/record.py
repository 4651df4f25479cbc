"""What a training run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodrop import DropEvent
from paper_checks.training.config import Config


@dataclass(frozen=True)
class Curves:
    """One entry per epoch, evaluated at its end on the whole training and test set.

    What `Config.evaluate` leaves out is missing here: the training set's curves are empty, or all
    others have one entry, of the last epoch.

    Losses are mean cross-entropies in nats without the weight decay's term, accuracies are in
    [0, 1], learning_rate is the one that holds from there on.
    """

    train_loss: tuple[float, ...]
    test_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    learning_rate: tuple[float, ...]


@dataclass(frozen=True)
class Record:
    """A finished training run.

    data: name, sizes, classes and fingerprint of the data set.
    iterations: updates done; epoch_length of them are one epoch.
    window: updates per window.
    angle_iterations, angles: each angular velocity in degrees and the number of updates done when
        it was known.
    weights: SHA-256 of the final parameters.
    """

    config: Config
    data: dict[str, Any]
    versions: dict[str, str]
    device: str
    iterations: int
    epoch_length: int
    window: int
    curves: Curves
    angle_iterations: tuple[int, ...]
    angles: tuple[float, ...]
    drops: tuple[DropEvent, ...]
    weights: str
    seconds: float

    def differences(self, other: Record) -> tuple[str, ...]:
        """Names of the fields in which two runs differ by as little as one bit; not `seconds`."""
        names = [f.name for f in dataclasses.fields(self) if f.name != "seconds"]
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON has it, with a summary of where the run ended."""
        curves = {f.name: getattr(self.curves, f.name) for f in dataclasses.fields(Curves)}
        last = {name: values[-1] for name, values in curves.items() if values}
        return {**dataclasses.asdict(self), "final": {**last, "drops": len(self.drops)}}


def write_json(path: Path, records: dict[str, Record]) -> None:
    """Write the records, by name; the file is never half written, and NaN is an error."""
    named = {name: record.as_dict() for name, record in records.items()}
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(named, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
