"""Every schedule that can be compared, behind one small interface; one entry each.

    schedule = make(optimizer, config, epoch_length)
    schedule.after_update()          # after every update of the optimizer
    schedule.after_epoch(loss)       # at the end of every epoch, with its mean training loss

To add a schedule, add an entry to `SCHEDULES`: how it is made and how often it steps. The defaults
of the function that makes it are the recommended setting. All but hypergradient descent are library
classes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from autodrop import AutoDrop
from autodrop.detectors import VarianceRatio
from paper_checks.training.hypergradient import Hypergradient

if TYPE_CHECKING:
    from paper_checks.training.config import Config

Every = Literal["update", "epoch", "loss", "never"]
Settings = tuple[tuple[str, float | int], ...]


class Unavailable(ImportError):
    """A schedule whose package is not installed."""


@dataclass(frozen=True)
class Entry:
    """A schedule as the comparison knows it.

    label: for tables.
    make: (optimizer, config, epoch_length, **settings) → an object with step and state_dict.
    every: when it steps: after every "update", every "epoch", with the epoch's "loss", or "never".
    also: settings to try besides the recommended one.
    optimizer: (parameters, config, epoch_length, **settings) → the optimizer that it needs.
    package: without which it is unavailable.
    only: the optimizers it works with.
    scale: by optimizer, the rates it is advised to take in multiples of the customary ones.
    """

    label: str
    make: Callable[..., Any]
    every: Every = "update"
    also: tuple[Settings, ...] = ()
    optimizer: Callable[..., Optimizer] | None = None
    package: str | None = None
    only: tuple[str, ...] = ("sgd", "adamw")
    scale: Mapping[str, float] = field(default_factory=dict)


class Schedule:
    """A library's scheduler that is stepped at the right moments.

    scheduler: what steps; an `AutoDrop` where `autodrop` is not None.
    """

    def __init__(self, scheduler: Any, every: Every) -> None:
        self.scheduler = scheduler
        self.every = every
        self.autodrop: AutoDrop | None = scheduler if isinstance(scheduler, AutoDrop) else None

    def after_update(self) -> None:
        """To be called after every update."""
        if self.every == "update":
            self.scheduler.step()

    def after_epoch(self, loss: float) -> None:
        """To be called at the end of every epoch with the mean loss of its mini-batches."""
        if self.every == "epoch":
            self.scheduler.step()
        elif self.every == "loss":
            self.scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's."""
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state_dict)


def make(optimizer: Optimizer, config: Config, epoch_length: int) -> Schedule:
    """The schedule that `config` names, with its settings, on the optimizer.

    Raises ValueError for an unknown setting and for an optimizer that it does not work with.
    """
    entry = SCHEDULES[config.schedule]
    try:
        scheduler = entry.make(optimizer, config, epoch_length, **dict(config.settings))
    except TypeError as error:
        raise ValueError(
            f"settings must fit schedule {config.schedule!r}, got {dict(config.settings)}: {error}"
        ) from error
    return Schedule(scheduler, entry.every)


def make_optimizer(
    params: Iterable[Parameter], config: Config, epoch_length: int
) -> Optimizer | None:
    """The optimizer that comes with the schedule; None where any will do.

    Raises Unavailable if its package is not installed.
    """
    entry = SCHEDULES[config.schedule]
    if entry.optimizer is None:
        return None
    return entry.optimizer(params, config, epoch_length, **dict(config.settings))


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"the package {package} is needed for this schedule: install it") from (
            error
        )


def _autodrop(optimizer: Optimizer, config: Config, epoch: int, **settings: Any) -> AutoDrop:
    return AutoDrop.from_rule(optimizer, config.rule_for(epoch, **settings))


def _literal_window(optimizer: Optimizer, config: Config, epoch: int) -> AutoDrop:
    return AutoDrop.uai2024(optimizer, window=64)


def _arxiv(optimizer: Optimizer, config: Config, epoch: int) -> AutoDrop:
    return AutoDrop.arxiv2021(optimizer, window=epoch)


def _variance_ratio(optimizer: Optimizer, config: Config, epoch: int) -> AutoDrop:
    return AutoDrop(optimizer, config.window_for(epoch), detector=VarianceRatio())


def _constant(optimizer: Optimizer, config: Config, epoch: int) -> None:
    return None


def _multistep(optimizer: Optimizer, config: Config, epoch: int, recipe: int = 0) -> MultiStepLR:
    # Zagoruyko and Komodakis 2016; He et al. 2016.
    factor, parts = ((0.2, (0.3, 0.6, 0.8)), (0.1, (0.5, 0.75)))[recipe]
    return MultiStepLR(optimizer, [round(part * config.epochs) for part in parts], factor)


def _cosine(optimizer: Optimizer, config: Config, epoch: int) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, config.epochs * epoch)


def _onecycle(optimizer: Optimizer, config: Config, epoch: int) -> OneCycleLR:
    return OneCycleLR(optimizer, config.learning_rate, total_steps=config.epochs * epoch + 1)


def _triangular2(optimizer: Optimizer, config: Config, epoch: int, cycles: int = 0) -> CyclicLR:
    # Smith 2017: half a cycle of 2 to 10 epochs. cycles: in the whole budget, in place of that.
    half = 4 * epoch if cycles == 0 else max(1, config.epochs * epoch // (2 * cycles))
    α = config.learning_rate
    return CyclicLR(optimizer, 0.01 * α, α, step_size_up=half, mode="triangular2")


def _exponential(
    optimizer: Optimizer, config: Config, epoch: int, gamma: float = 0.95
) -> ExponentialLR:
    return ExponentialLR(optimizer, gamma)


def _plateau(
    optimizer: Optimizer, config: Config, epoch: int, factor: float = 0.1, patience: int = 10
) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


def _linear(optimizer: Optimizer, config: Config, epoch: int, warmup: float = 0.05) -> SequentialLR:
    total = config.epochs * epoch
    first = max(1, round(warmup * total))
    up = LinearLR(optimizer, start_factor=1 / first, total_iters=first)
    down = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=max(1, total - first))
    return SequentialLR(optimizer, [up, down], milestones=[first])


def _hypergradient(
    optimizer: Optimizer, config: Config, epoch: int, rate: float = 1e-4
) -> Hypergradient:
    return Hypergradient(optimizer, rate)


def _schedule_free(
    params: Iterable[Parameter], config: Config, epoch: int, warmup: float = 0.05
) -> Optimizer:
    package = _require("schedulefree")
    common: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": round(warmup * config.epochs * epoch),
    }
    if config.optimizer == "adamw":
        return package.AdamWScheduleFree(params, betas=(config.momentum, 0.999), **common)
    return package.SGDScheduleFree(params, momentum=config.momentum, **common)


def _nothing(optimizer: Optimizer, config: Config, epoch: int, warmup: float = 0.05) -> None:
    return None


SCHEDULES: dict[str, Entry] = {
    "autodrop": Entry("AutoDrop", _autodrop),
    "autodrop-64": Entry("AutoDrop, window 64", _literal_window),
    "autodrop-arxiv": Entry("AutoDrop, arXiv rule", _arxiv),
    "variance-ratio": Entry("AutoDrop, variance ratio", _variance_ratio),
    "constant": Entry("constant", _constant, "never"),
    "multistep": Entry("MultiStepLR", _multistep, "epoch", also=((("recipe", 1),),)),
    "cosine": Entry("CosineAnnealingLR", _cosine),
    "onecycle": Entry("OneCycleLR", _onecycle),
    "triangular2": Entry("CyclicLR, triangular2", _triangular2, also=((("cycles", 5),),)),
    "exponential": Entry(
        "ExponentialLR", _exponential, "epoch", also=((("gamma", 0.98),), (("gamma", 0.99),))
    ),
    "plateau": Entry(
        "ReduceLROnPlateau", _plateau, "loss", also=((("factor", 0.5), ("patience", 5)),)
    ),
    "linear": Entry("linear after warm-up", _linear, also=((("warmup", 0.2),),)),
    "hypergradient": Entry(
        "hypergradient descent", _hypergradient, "never",
        also=((("rate", 1e-3),), (("rate", 1e-5),)), only=("sgd",),
    ),
    # The authors advise 10 to 50 times the rate of SGD with a schedule and 1 to 10 times that of
    # AdamW; the package's defaults, 1.0 and 0.0025, are 10 and 2.5 times the customary ones.
    "schedule-free": Entry(
        "schedule-free", _nothing, "never", optimizer=_schedule_free, package="schedulefree",
        scale={"sgd": 10.0, "adamw": 2.5},
    ),
}  # fmt: skip
