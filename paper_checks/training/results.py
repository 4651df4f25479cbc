"""The results of a sweep as one small JSON document, and questions to it.

results = Results.load(path)
results.curves("mlp", choice)       # one Curve per seed
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paper_checks import files
from paper_checks.training import store
from paper_checks.training.measures import Curve, counts_of, final_error
from paper_checks.training.plan import Arm, Choice, Errors, Trial, Variant
from paper_checks.training.schedules import SCHEDULES
from paper_checks.training.tasks import TASKS, Task
from paper_checks.training.work import Place

COMMITTED = Path(__file__).with_name("results") / "digits.json"
SLICE = COMMITTED.with_name("cifar-cnn.json")  # of CIFAR-10, on a CPU
FORMAT = 2


@dataclass(frozen=True)
class Tested:
    """One run on the test set. weights: the first 12 digits of `Record.weights`."""

    variant: str
    rate: float
    seed: int
    curve: Curve
    drops: int
    final_rate: float
    diverged: int | None
    seconds: float
    weights: str


@dataclass(frozen=True)
class Results:
    """What a sweep found. document: see `collect`."""

    document: dict[str, Any]

    @classmethod
    def load(cls, path: Path = COMMITTED) -> Results:
        """From a file that `save` wrote. Raises ValueError for another one, OSError if absent."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} must be the results of a sweep, it is no JSON") from error
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise ValueError(f"{path} must have results of format {FORMAT}, got {found!r}")
        return cls(document)

    def save(self, path: Path) -> None:
        """Replace the file atomically; one line a run keeps the differences readable."""
        files.replace(path, _written(self.document))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.document["tasks"])

    def label(self, task: str) -> str:
        """The task in words."""
        return str(self._task(task)["label"])

    def made_here(self) -> bool:
        """Whether torch's version and the processor are the ones of the results."""
        return self.document["platform"] == _platform()

    def epochs(self, task: str) -> int:
        """The budget."""
        return int(self._task(task)["epochs"])

    def schedules(self, task: str) -> tuple[str, ...]:
        """Those that were compared."""
        return tuple(self._task(task)["choices"])

    def choice(self, task: str, schedule: str, arm: Arm) -> Choice | None:
        """What was tested for a schedule in an arm; None where the task has no such arm."""
        entry = self._task(task)["choices"][schedule].get(arm)
        if entry is None:
            return None
        v = entry["variant"]
        settings = tuple((str(name), value) for name, value in v["settings"])
        variant = Variant(v["schedule"], settings, v["factor"], v["window"])
        return Choice(variant, entry["rate"], entry["at_end"])

    def runs(self, task: str, variant: Variant, rate: float) -> tuple[Tested, ...]:
        """The runs of a variant at a rate on the test set, by seed. Raises KeyError if none."""
        entry = self._task(task)
        found = [
            Tested(
                name, rate, seed, Curve.from_list(curve, entry["test"], entry["epochs"]), *rest
            )
            for name, α, seed, curve, *rest in entry["runs"]
            if name == variant.name and rate == α
        ]  # fmt: skip
        if not found:
            raise KeyError(f"no runs of {variant.name} at {rate:g} on {task}")
        return tuple(sorted(found, key=lambda run: run.seed))

    def curves(self, task: str, choice: Choice) -> tuple[Curve, ...]:
        """The curves of what was chosen, by seed."""
        return tuple(run.curve for run in self.runs(task, choice.variant, choice.rate))

    def tuning(self, task: str) -> dict[tuple[str, float], tuple[float, ...]]:
        """Final validation errors (%) of each (variant, rate) that was tried."""
        return {(v, rate): tuple(errors) for v, rate, errors in self._task(task)["tuning"]}

    def _task(self, name: str) -> dict[str, Any]:
        return self.document["tasks"][name]


def validation_errors(
    trials: Iterable[Trial], place: Place
) -> dict[tuple[Variant, float], list[float]]:
    """Final validation errors (%) of finished tuning runs, by variant and rate."""
    errors: dict[tuple[Variant, float], list[float]] = {}
    for trial in trials:
        record = store.read(place.file(trial))
        error = final_error(
            record["curves"]["test_accuracy"], record["of"], record["diverged"] is not None
        )
        errors.setdefault((trial.variant, trial.config.learning_rate), []).append(error)
    return errors


def collect(
    tasks: Iterable[Task],
    tuned: Mapping[str, Errors],
    chosen: Mapping[str, Mapping[str, Mapping[Arm, Choice]]],
    tested: Mapping[str, Iterable[Trial]],
    skipped: Mapping[str, str],
    place: Place,
    seconds: float,
) -> Results:
    """The document of finished records.

    For each task: sizes, what tuning saw ("tuning": variant, rate, validation errors), what it
    chose ("choices": schedule, arm) and every run on the test set ("runs": the fields of `Tested`,
    the curve as `Curve.as_list`).
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        "platform": _platform(),
        "device": place.device,
        "cpu_seconds": round(seconds, 1),
        "skipped": dict(skipped),
        "tasks": {},
    }
    for task in tasks:
        runs = []
        first: dict[str, Any] = {}
        for trial in tested[task.name]:
            record = store.read(place.file(trial))
            first = first or record
            curves = record["curves"]
            rates = curves["learning_rate"]
            runs.append(
                [
                    trial.variant.name,
                    trial.config.learning_rate,
                    trial.config.seed,
                    _curve(record).as_list(),
                    len(record["drops"]),
                    float(f"{rates[-1]:.4g}") if rates else 0.0,
                    record["diverged"],
                    round(record["seconds"], 1),
                    record["weights"][:12],
                ]
            )
        config = {**asdict(task.config), "epochs": first["config"]["epochs"]}
        document["tasks"][task.name] = {
            "label": f"{task.label}, {config['epochs']} epoch{'s' * (config['epochs'] != 1)}",
            "config": config,
            "epochs": config["epochs"],
            "epoch_length": first["epoch_length"],
            "train": first["data"]["train"],
            "test": first["of"],
            "fingerprint": first["data"]["fingerprint"][:12],
            "rates": list(task.rates),
            "ladder": list(task.ladder),
            "tuning": [
                [variant.name, rate, [round(error, 3) for error in errors]]
                for (variant, rate), errors in tuned[task.name].items()
            ],
            "choices": {
                name: {arm: asdict(choice) for arm, choice in arms.items()}
                for name, arms in chosen[task.name].items()
            },
            "runs": runs,
        }
    return Results(document)


def _platform() -> str:
    """A digest of all that decides how sums round."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    parts = (model, platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.__version__)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]


def _curve(record: Mapping[str, Any]) -> Curve:
    of = record["of"]
    wrong = counts_of(record["curves"]["test_accuracy"], of)
    return Curve.of_counts(wrong, of, record["config"]["epochs"])


def _written(document: dict[str, Any]) -> str:
    """JSON with a line for each run and each row of the tuning."""
    lines: list[str] = []
    marked = json.loads(json.dumps(document))
    for entry in marked["tasks"].values():
        for name in ("tuning", "runs"):
            rows = []
            for row in entry[name]:
                rows.append(f"@{len(lines)}@")
                lines.append(json.dumps(row, separators=(",", ":"), allow_nan=False))
            entry[name] = rows
    text = json.dumps(marked, indent=1, ensure_ascii=False, allow_nan=False)
    for number, line in enumerate(lines):
        text = text.replace(f'"@{number}@"', line, 1)
    return text + "\n"


def unavailable() -> dict[str, str]:
    """Schedules whose package is not installed, and why."""
    return {
        name: f"the package {entry.package} is not installed"
        for name, entry in SCHEDULES.items()
        if entry.package is not None and find_spec(entry.package) is None
    }


def named(name: str) -> Task:
    """The task of that name. Raises ValueError for an unknown one."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {tuple(TASKS)}, got {name!r}")
    return TASKS[name]
