"""What is trained in the comparison of schedules: data, network, optimizer, budget, rates, seeds.

The tasks on digits are those of PROTOCOL.md, "Second round".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset, holdout, load_digits
from paper_checks.training.images import load_images
from paper_checks.training.text import load_text

FIRST_TUNING_SEED = 400
FIRST_SEED = 300
SPLIT = 1  # seed of the choice of digits for the test set
VALIDATION = 0.25  # of what is not test, for digits
FEW = 0.1  # the same, where there are many samples


@dataclass(frozen=True)
class Task:
    """A task, and how much of the comparison is made on it.

    label: in words, the budget aside.
    config: all but schedule, rate and seed.
    rates: the base rates that are tried first, some neighbours of the ladder.
    ladder: all that may be tried, ascending; guess: the customary rate, one of `rates`. Of a
        schedule with a scale they are multiplied by it, see `schedules.Entry`.
    seeds: runs of each setting that is tested; tuning: of each that is tried.
    tuned: whether the rivals' other settings are tried.
    factors: of AutoDrop, tried to find what its default costs.
    ablation: whether ρ, m and the window are varied.
    source: "digits", "images" or "text".
    long: whether runs are worth a checkpoint after every epoch.
    """

    name: str
    label: str
    config: Config
    rates: tuple[float, ...]
    ladder: tuple[float, ...]
    guess: float
    seeds: int
    tuning: int = 1
    tuned: bool = False
    factors: tuple[float, ...] = ()
    ablation: bool = False
    source: str = "digits"
    long: bool = False

    def data(
        self, path: str | None = None, samples: int | None = None, held: int = 0
    ) -> tuple[Dataset, Dataset]:
        """(for tuning, for testing), see `data.holdout`.

        path: of images; samples: how many of the training set to keep. held: which part of it is
        held out; the test set is the same for all. Only digits have several parts: of some 270
        samples one would decide too much. Raises ValueError if the task needs a path and has none,
        and for what the loaders refuse.
        """
        if self.source == "digits":
            return _digits(held)
        return _images(path, samples) if self.source == "images" else _text(samples)


@lru_cache(maxsize=16)
def _digits(held: int) -> tuple[Dataset, Dataset]:
    return holdout(load_digits(seed=SPLIT, test_fraction=0.4), VALIDATION, seed=held)


@lru_cache(maxsize=1)
def _images(path: str | None, samples: int | None) -> tuple[Dataset, Dataset]:
    if path is None:
        raise ValueError("this task needs images: give their path with --data")
    return holdout(load_images(path, samples=samples), FEW)


@lru_cache(maxsize=1)
def _text(samples: int | None) -> tuple[Dataset, Dataset]:
    return holdout(load_text(samples=samples), FEW)


_MLP = Config(
    epochs=200, batch_size=64, hidden=(32,), augment="shift", fused=True, watch=False
)  # fmt: skip
_CIFAR = Config(
    epochs=200, batch_size=128, model="resnet18", augment="crop-flip", nesterov=True, watch=False,
    fused=True,
)  # fmt: skip
_FACTORS = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class _Rates:
    """A ladder of base rates, those to try first, and the customary one."""

    ladder: tuple[float, ...]
    rates: tuple[float, ...]
    guess: float


_SGD = _Rates((0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), (0.05, 0.1, 0.2), 0.1)
_ADAMW = _Rates((0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3), (0.001, 0.003, 0.01), 0.001)
_IMAGES = _Rates((0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.03, 0.1, 0.3), 0.1)
_SMALL = _Rates(_IMAGES.ladder, (0.01, 0.03, 0.1), 0.03)
_TEXT = _Rates(_ADAMW.ladder, (0.0003, 0.001, 0.003), 0.001)


def _task(name: str, label: str, config: Config, rates: _Rates, **rest: Any) -> Task:
    return Task(name, label, config, **vars(rates), **rest)


DIGITS = (
    _task(
        "mlp", "MLP, SGD", _MLP, _SGD, seeds=8, tuning=3,
        factors=_FACTORS, ablation=True,
    ),
    _task(
        "mlp-short", "MLP, SGD", replace(_MLP, epochs=50), _SGD, seeds=10, tuning=3,
        tuned=True, factors=_FACTORS,
    ),
    _task(
        "cnn", "CNN, Nesterov", replace(_MLP, epochs=50, model="cnn", nesterov=True),
        _SGD, seeds=6, tuning=3,
    ),
    _task(
        "mlp-adamw", "MLP, AdamW",
        replace(_MLP, epochs=100, optimizer="adamw", weight_decay=0.01), _ADAMW, seeds=6, tuning=3,
    ),
)  # fmt: skip

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *DIGITS,
        _task(
            "cifar-resnet18", "ResNet-18, CIFAR, SGD", _CIFAR, _IMAGES, seeds=3,
            source="images", long=True,
        ),
        _task(
            "cifar-resnet18-short", "ResNet-18, CIFAR, SGD", replace(_CIFAR, epochs=30),
            _IMAGES, seeds=3, source="images", long=True,
        ),
        _task(
            "cifar-wrn16x4", "WRN-16-4, CIFAR, SGD",
            replace(_CIFAR, model="wrn16x4"), _IMAGES, seeds=3, source="images", long=True,
        ),
        _task(
            "cifar-cnn", "CNN, CIFAR, SGD",
            replace(_CIFAR, model="cnn", epochs=30, width=32), _SMALL, seeds=3, source="images",
            long=True,
        ),
        _task(
            "text-transformer", "transformer, Python's source, AdamW",
            Config(
                epochs=20, batch_size=32, optimizer="adamw", weight_decay=0.1,
                model="transformer", fused=True, watch=False,
            ),
            _TEXT, seeds=3, source="text", long=True,
        ),
    )
}  # fmt: skip
