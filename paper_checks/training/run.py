"""A training run that can be stopped after any update and goes on as if it had not been.

record = train(Config(epochs=100, learning_rate=0.1), load_digits())
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import pickle
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import autodrop
from autodrop import AngularVelocity, AutoDrop
from paper_checks.training import augment, schedules
from paper_checks.training.config import Config
from paper_checks.training.data import Dataset
from paper_checks.training.model import build
from paper_checks.training.record import Curves, Record
from paper_checks.training.schedules import SCHEDULES

_EVALUATED = 1024  # samples per forward pass of an evaluation, to bound its memory


class Diverged(ArithmeticError):
    """The loss of a mini-batch was not finite."""


class Run:
    """One training run: its network, optimizer, schedule and where it is.

    run = Run(config, data)
    while not run.finished:
        run.advance()

    Raises ValueError if config and data do not fit each other or the device is not there,
    `schedules.Unavailable` if a package that the schedule needs is not.
    """

    def __init__(self, config: Config, data: Dataset) -> None:
        self.config = config
        self.data = data
        self.iteration = 0
        self.seconds = 0.0
        self._device = _device(config.device)
        # On the CPU, so that weights and order do not depend on the device.
        self._generator = torch.Generator().manual_seed(config.seed)
        self.model = build(config, data, self._generator)
        self.model.to(self._device)
        self._images = config.model not in ("mlp", "transformer")
        if self._images and self._device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.augment != "none" and not data.image:
            raise ValueError(f"augment {config.augment!r} needs images, {data.name!r} has none")
        self.optimizer = _optimizer(self.model, config, self.epoch_length)

        self._mode(training=True)
        self.schedule = schedules.make(self.optimizer, config, self.epoch_length)
        self._scheduler: AutoDrop | None = self.schedule.autodrop
        self.rule = config.rule_for(self.epoch_length)
        if self._scheduler is not None:
            self.rule = self._scheduler.rule
        self._velocity: AngularVelocity | None = None
        if self._scheduler is None and config.watch:
            self._velocity = AngularVelocity(
                self.model.parameters(), self.rule.window, observation=self.rule.observation
            )

        self._train = data.train_x.to(self._device), data.train_y.to(self._device)
        self._test = data.test_x.to(self._device), data.test_y.to(self._device)
        self._black = (
            augment.black(self._train[0], data.image) if config.augment != "none"
            else torch.empty(0)
        )  # fmt: skip
        self._order = torch.empty(0, dtype=torch.int64)
        self._moves = augment.draw("none", 0, self._generator)
        self._epoch: tuple[torch.Tensor, torch.Tensor] | None = None
        self._losses: list[float] = []
        self._angles: list[tuple[int, float]] = []
        self._curves: dict[str, list[float]] = {f.name: [] for f in dataclasses.fields(Curves)}

    @property
    def epoch_length(self) -> int:
        """Updates per epoch."""
        return math.ceil(len(self.data.train_x) / self.config.batch_size)

    @property
    def iterations(self) -> int:
        """Updates of the whole run."""
        return self.config.epochs * self.epoch_length

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.iteration == self.iterations

    def advance(self) -> None:
        """One update; at the end of an epoch also its evaluation, if asked. Raises Diverged."""
        start = time.perf_counter()
        place = self.iteration % self.epoch_length
        if place == 0:
            self._order = self._drawn_order()
            self._moves = augment.draw(self.config.augment, len(self._order), self._generator)
            self._epoch, self._losses = None, []
        x, y = self._of_epoch()
        batch = slice(place * self.config.batch_size, (place + 1) * self.config.batch_size)

        with self._precision():
            loss = _cross_entropy(self.model(x[batch]), y[batch])
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"the loss must stay finite, got {value} in update {self.iteration + 1} "
                f"at learning rate {self._learning_rate():g}: take a smaller one"
            )
        self._losses.append(value)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        angle = self._observe()
        if angle is not None:
            self._angles.append((self.iteration, angle))

        if place == self.epoch_length - 1:
            self.schedule.after_epoch(math.fsum(self._losses) / len(self._losses))
            if self.config.evaluate != "end" or self.finished:
                self._evaluate()
        self.seconds += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, for torch.load(weights_only=True)."""
        return {
            "config": dataclasses.asdict(self.config),
            "data": self.data.fingerprint(),
            "iteration": self.iteration,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {} if self._scheduler is not None else self.schedule.state_dict(),
            "observer": self._observed(),
            "generator": self._generator.get_state(),
            "order": self._order,
            "moves": self._moves,
            "losses": self._losses,
            "angles": self._angles,
            "curves": self._curves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`. ValueError unless config and data are the same."""
        missing = sorted(self.state_dict().keys() - state.keys())
        if missing:
            raise ValueError(f"state must be that of a training run, it lacks {', '.join(missing)}")
        ours, saved = dataclasses.asdict(self.config), state["config"]
        for name in sorted(ours.keys() | saved.keys()):
            if ours.get(name) != saved.get(name):
                raise ValueError(
                    f"the saved run must have the same {name}, it has {saved.get(name)!r} "
                    f"(here {ours.get(name)!r})"
                )
        if state["data"] != self.data.fingerprint():
            raise ValueError(f"the saved run must be of the same data, not of {self.data.name!r}")
        self.iteration = state["iteration"]
        self.seconds = state["seconds"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is None:
            self.schedule.load_state_dict(state["schedule"])
        observer = self._scheduler or self._velocity
        if observer is not None:
            observer.load_state_dict(state["observer"])
        self._generator.set_state(state["generator"])
        self._order, self._moves, self._epoch = state["order"], state["moves"], None
        self._losses = list(state["losses"])
        self._angles = list(state["angles"])
        self._curves = {name: list(values) for name, values in state["curves"].items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file is never half written."""
        temporary = path.with_name(path.name + ".part")
        torch.save(self.state_dict(), temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. ValueError if it is none or of another run."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            raise ValueError(f"{path} must be a checkpoint, it cannot be read as one") from error
        if not isinstance(state, dict):
            raise ValueError(f"{path} must be a checkpoint, it holds a {type(state).__name__}")
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"checkpoint {path}: {error}") from error

    def record(self) -> Record:
        """What the run has been so far."""
        data = self.data
        return Record(
            config=self.config,
            data={
                "name": data.name,
                "train": len(data.train_x),
                "test": len(data.test_x),
                "features": data.features,
                "classes": list(data.classes),
                "fingerprint": data.fingerprint(),
            },
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "autodrop": autodrop.__version__,
            },
            device=_device_name(self._device),
            iterations=self.iteration,
            epoch_length=self.epoch_length,
            window=self.rule.window,
            curves=Curves(**{name: tuple(values) for name, values in self._curves.items()}),
            angle_iterations=tuple(t for t, _ in self._angles),
            angles=tuple(angle for _, angle in self._angles),
            drops=() if self._scheduler is None else tuple(self._scheduler.drops),
            weights=_digest(self.model),
            seconds=self.seconds,
        )

    def _of_epoch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All samples of this epoch in turn, moved: a function of the order and the moves."""
        if self._epoch is None:
            order = self._order.to(self._device)
            x, y = self._train[0][order], self._train[1][order]
            if self.config.augment != "none":
                x = augment.moved(self.config.augment, x, self.data.image, self._moves, self._black)
            self._epoch = x, y
        return self._epoch

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def _drawn_order(self) -> torch.Tensor:
        """Which samples the next epoch takes, in turn."""
        N = len(self._train[0])
        if self.config.sampling == "independent":
            return torch.randint(N, (N,), generator=self._generator)
        return torch.randperm(N, generator=self._generator)

    def _observe(self) -> float | None:
        """Let AutoDrop see the update; the angle in degrees if one is known with it."""
        if self._scheduler is None:
            self.schedule.after_update()
            angle = None if self._velocity is None else self._velocity.update()
            return None if angle is None else math.degrees(angle)
        known = len(self._scheduler.angular_velocities)
        self.schedule.after_update()
        angles = self._scheduler.angular_velocities
        return angles[-1] if len(angles) > known else None

    def _observed(self) -> dict[str, Any]:
        observer = self._scheduler or self._velocity
        return {} if observer is None else observer.state_dict()

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _evaluate(self) -> None:
        self._mode(training=False)
        sets = {"train": self._train, "test": self._test}
        if self.config.evaluate != "all":
            del sets["train"]
        for name, (x, y) in sets.items():
            loss, accuracy = self._mean_loss_and_accuracy(x, y)
            self._curves[f"{name}_loss"].append(loss)
            self._curves[f"{name}_accuracy"].append(accuracy)
        self._mode(training=True)
        self._curves["learning_rate"].append(self._learning_rate())

    def _mode(self, training: bool) -> None:
        """Batch norms, and optimizers that evaluate elsewhere than they train, need to know."""
        self.model.train(training)
        if SCHEDULES[self.config.schedule].optimizer is not None:
            optimizer: Any = self.optimizer
            (optimizer.train if training else optimizer.eval)()

    @torch.no_grad()
    def _mean_loss_and_accuracy(self, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
        loss, correct = 0.0, 0
        for inputs, targets in zip(x.split(_EVALUATED), y.split(_EVALUATED), strict=True):
            with self._precision():
                logits = self.model(inputs)
                loss += float(_cross_entropy(logits, targets, reduction="sum"))
            correct += int((logits.argmax(-1) == targets).sum())
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss must stay finite, got {loss} after update {self.iteration} "
                f"at learning rate {self._learning_rate():g}: take a smaller one"
            )
        return loss / y.numel(), correct / y.numel()


def train(
    config: Config,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Callable[[Run], None] | None = None,
) -> Record:
    """Train from the first update to the last, and return the record.

    checkpoint: where to save the run at the end of every epoch, if given.
    resume: go on from that file if it is there.
    progress: called with the run before the first update and at the end of every epoch.

    Raises Diverged when the loss does, ValueError for a checkpoint of another run.
    """
    run = Run(config, data)
    if resume and checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    if progress is not None:
        progress(run)
    with threads(config.threads):
        while not run.finished:
            run.advance()
            if run.iteration % run.epoch_length == 0:
                if checkpoint is not None:
                    run.save(checkpoint)
                if progress is not None:
                    progress(run)
    return run.record()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads on the CPU inside the ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Of one label a sample, or of one a token."""
    return cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction=reduction)


def _optimizer(model: torch.nn.Module, config: Config, epoch: int) -> torch.optim.Optimizer:
    own = schedules.make_optimizer(model.parameters(), config, epoch)
    if own is not None:
        return own
    α, β, decay = config.learning_rate, config.momentum, config.weight_decay
    fused = config.fused or None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=α, betas=(β, 0.999), weight_decay=decay, fused=fused
        )
    return torch.optim.SGD(
        model.parameters(), lr=α, momentum=β, weight_decay=decay, nesterov=config.nesterov,
        fused=fused,
    )  # fmt: skip


def _device(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {name!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} must exist, torch finds {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
