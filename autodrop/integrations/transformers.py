"""AutoDrop in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autodrop.scheduler import AutoDrop

try:
    from transformers import Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "autodrop.integrations.transformers needs transformers and accelerate: "
        "the extra autodrop[transformers]"
    ) from error

__all__ = ["AutoDropTrainer"]


class AutoDropTrainer(Trainer):
    """A Trainer whose learning rate scheduler is an AutoDrop, on the Trainer's own optimizer.

        trainer = AutoDropTrainer(
            model=model, args=args, train_dataset=data, autodrop={"window": 64}
        )
        trainer.train()     # then trainer.lr_scheduler.drops, .angular_velocities

    autodrop: arguments of `AutoDrop`, the optimizer excepted.

    All else as for `Trainer`, and for a subclass of it after `class Mine(AutoDropTrainer, Other)`.
    The scheduler is made where the Trainer makes its own: after the parameters have got their
    device and their shards. Accumulation and skipped updates do not count, and a run that goes on
    with `resume_from_checkpoint` has the angles and rates of an uninterrupted one. The training
    loss is logged with "angular_velocity", the last one, in degrees, and "drops", their number.

    `lr_scheduler_type` is not used: a schedule of time would overwrite the drops, "constant" too.
    For warmup, or any composition, pass `optimizers=(optimizer, scheduler)`; there a plain
    `Trainer` will do, but the model must be on its device before.

    Raises ValueError if the arguments ask for a warmup, and if both `autodrop` and a scheduler in
    `optimizers` are given.
    """

    lr_scheduler: LRScheduler | None

    def __init__(self, *args: Any, autodrop: Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if autodrop is not None and self.lr_scheduler is not None:
            raise ValueError(
                "autodrop must be left out where optimizers has a scheduler, got "
                f"{dict(autodrop)} and {type(self.lr_scheduler).__name__}"
            )
        self.autodrop = dict(autodrop or {})

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        """The scheduler that `optimizers` had, else an AutoDrop."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            if warmup:
                raise ValueError(
                    f"warmup must be 0 steps for AutoDropTrainer, got {warmup}: pass "
                    "optimizers=(optimizer, SequentialLR(...)) to have both"
                )
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = AutoDrop(optimizer, **self.autodrop)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the last angle and the number of drops to what the Trainer logs of its training."""
        scheduler = self.lr_scheduler
        if "learning_rate" in logs and isinstance(scheduler, AutoDrop):
            if scheduler.angular_velocities:
                logs["angular_velocity"] = scheduler.angular_velocities[-1]
            logs["drops"] = len(scheduler.drops)
        super().log(logs, start_time)
