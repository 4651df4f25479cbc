"""What is trained in the comparison of schedules: data, network, optimizer, budget, rates, seeds.

The tasks on digits are those of PROTOCOL.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset, holdout, load_digits
from paper_checks.training.images import load_images
from paper_checks.training.text import load_text

TUNING_SEEDS = (200, 201)
FIRST_SEED = 100
VALIDATION = 0.25  # of what is not test, for digits
FEW = 0.1  # the same, where there are many samples


@dataclass(frozen=True)
class Task:
    """A task, and how much of the comparison is made on it.

    config: all but schedule, rate and seed.
    rates: the grid of base rates; guess: the customary one.
    seeds: runs of each setting that is tested.
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
    guess: float
    seeds: int
    tuned: bool = False
    factors: tuple[float, ...] = ()
    ablation: bool = False
    source: str = "digits"
    long: bool = False

    def data(self, path: str | None = None, samples: int | None = None) -> tuple[Dataset, Dataset]:
        """(for tuning, for testing), see `data.holdout`.

        path: of images; samples: how many of the training set to keep. Raises ValueError if the
        task needs a path and has none, and for what the loaders refuse.
        """
        return _SOURCES[self.source](path, samples)


@lru_cache(maxsize=1)
def _digits(path: str | None, samples: int | None) -> tuple[Dataset, Dataset]:
    return holdout(load_digits(test_fraction=0.4), VALIDATION)


@lru_cache(maxsize=1)
def _images(path: str | None, samples: int | None) -> tuple[Dataset, Dataset]:
    if path is None:
        raise ValueError("this task needs images: give their path with --data")
    return holdout(load_images(path, samples=samples), FEW)


@lru_cache(maxsize=1)
def _text(path: str | None, samples: int | None) -> tuple[Dataset, Dataset]:
    return holdout(load_text(samples=samples), FEW)


_SOURCES: dict[str, Callable[[str | None, int | None], tuple[Dataset, Dataset]]] = {
    "digits": _digits,
    "images": _images,
    "text": _text,
}

_MLP = Config(
    epochs=200, batch_size=64, hidden=(32,), augment="shift", fused=True, watch=False
)  # fmt: skip
_CIFAR = Config(
    epochs=200, batch_size=128, model="resnet18", augment="crop-flip", nesterov=True, watch=False,
    fused=True,
)  # fmt: skip
_SGD_RATES = (0.03, 0.1, 0.2, 0.4)
_FACTORS = (0.5, 0.8, 0.9, 0.95, 0.99)

DIGITS = (
    Task(
        "mlp", "MLP, SGD, 200 epochs", _MLP, _SGD_RATES, 0.1, seeds=8, tuned=True,
        factors=_FACTORS, ablation=True,
    ),
    Task(
        "mlp-short", "MLP, SGD, 50 epochs", replace(_MLP, epochs=50), _SGD_RATES, 0.1, seeds=10,
        factors=_FACTORS,
    ),
    Task(
        "cnn", "CNN, Nesterov, 50 epochs", replace(_MLP, epochs=50, model="cnn", nesterov=True),
        _SGD_RATES, 0.1, seeds=6,
    ),
    Task(
        "mlp-adamw", "MLP, AdamW, 100 epochs",
        replace(_MLP, epochs=100, optimizer="adamw", weight_decay=0.01),
        (0.001, 0.003, 0.01, 0.03), 0.001, seeds=6,
    ),
)  # fmt: skip

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *DIGITS,
        Task(
            "cifar-resnet18", "ResNet-18, CIFAR, SGD, 200 epochs", _CIFAR, (0.03, 0.1, 0.3), 0.1,
            seeds=3, source="images", long=True,
        ),
        Task(
            "cifar-resnet18-short", "ResNet-18, CIFAR, SGD, 30 epochs", replace(_CIFAR, epochs=30),
            (0.03, 0.1, 0.3), 0.1, seeds=3, source="images", long=True,
        ),
        Task(
            "cifar-wrn16x4", "WRN-16-4, CIFAR, SGD, 200 epochs",
            replace(_CIFAR, model="wrn16x4"), (0.03, 0.1, 0.3), 0.1, seeds=3, source="images",
            long=True,
        ),
        Task(
            "cifar-cnn", "CNN, CIFAR, SGD, 30 epochs",
            replace(_CIFAR, model="cnn", epochs=30, width=32), (0.01, 0.03, 0.1), 0.03, seeds=3,
            source="images", long=True,
        ),
        Task(
            "text-transformer", "transformer, Python's source, AdamW, 20 epochs",
            Config(
                epochs=20, batch_size=32, optimizer="adamw", weight_decay=0.1,
                model="transformer", fused=True, watch=False,
            ),
            (0.0003, 0.001, 0.003), 0.001, seeds=3, source="text", long=True,
        ),
    )
}  # fmt: skip
