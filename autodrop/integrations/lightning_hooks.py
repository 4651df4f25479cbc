"""What the callback for Lightning does, for both names under which Lightning is installed."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from autodrop.integrations.records import NewRecords, learning_rates
from autodrop.scheduler import AutoDrop
from autodrop.warning import warn

__all__ = ["LightningHooks"]


class LightningHooks:
    """The hooks of `AutoDropCallback`, without Lightning's base class.

    Schedulers are made when training starts: then parameters are on their device and, as the
    optimizers, restored from the checkpoint. Each is stepped by its optimizer's own hook, after
    every update, whoever asked for it: accumulation, skipped updates and manual optimization need
    no case of their own.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        """The arguments of `AutoDrop`."""
        self.schedulers: list[AutoDrop] = []
        """One for each optimizer, from the start of training on."""
        self._own = False
        self._records: list[NewRecords] = []
        self._handles: list[RemovableHandle] = []
        self._restored: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the schedulers, or take those that the module has configured.

        Raises ValueError if there are both options and a scheduler of the module's own; warns
        (RuntimeWarning) of other schedulers beside them, and of one that is stepped once an epoch.
        """
        configs = trainer.lr_scheduler_configs
        own = [config for config in configs if isinstance(config.scheduler, AutoDrop)]
        self._own = not own
        if own:
            if self.options:
                raise ValueError(
                    "options must go to the AutoDrop that configure_optimizers returns, "
                    f"got {sorted(self.options)}"
                )
            if pl_module.automatic_optimization and any(c.interval != "step" for c in own):
                warn(
                    "Lightning steps the AutoDrop that configure_optimizers returns once an epoch, "
                    'so that windows count epochs; for updates return {"optimizer": optimizer, '
                    '"lr_scheduler": {"scheduler": AutoDrop(optimizer), "interval": "step"}}'
                )
            self.schedulers = [config.scheduler for config in own]
        else:
            if configs:
                names = ", ".join(type(config.scheduler).__name__ for config in configs)
                warn(
                    f"configure_optimizers returns {names}, which acts beside AutoDrop: drops last "
                    "only if it multiplies the current rate"
                )
            self.schedulers = [AutoDrop(opt, **self.options) for opt in trainer.optimizers]
            if self._restored is not None:
                for scheduler, state in zip(self.schedulers, self._restored, strict=True):
                    scheduler.load_state_dict(state)
            self._handles = [_follow(scheduler) for scheduler in self.schedulers]
        self._restored = None
        self._records = [NewRecords(scheduler) for scheduler in self.schedulers]

    def on_train_batch_end(self, trainer: Any, *batch: Any) -> None:
        """Log what is new."""
        # The axis of all that Lightning logs by itself: updates done before this batch's.
        now = trainer.fit_loop.epoch_loop._batches_that_stepped
        for i, (scheduler, records) in enumerate(zip(self.schedulers, self._records, strict=True)):
            angles, drops = records.take()
            if not angles and not drops:
                continue
            rates = [group["lr"] for group in scheduler.optimizer.param_groups]
            here = learning_rates(drops[0].old_lr if drops else rates)
            if angles:
                here["angular_velocity"] = angles[-1][1]
            if drops:
                here["drops"] = len(scheduler.drops)
            prefix = f"optimizer_{i}/" if len(self.schedulers) > 1 else ""
            for logger in trainer.loggers:
                logger.log_metrics({prefix + tag: x for tag, x in here.items()}, now)
                if drops:
                    after = learning_rates(rates)
                    logger.log_metrics({prefix + tag: x for tag, x in after.items()}, now + 1)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedulers that the callback has made."""
        if not self._own:
            return {}
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the start of training: there are no optimizers yet."""
        self._restored = state_dict["schedulers"]


def _follow(scheduler: AutoDrop) -> RemovableHandle:
    """Step the scheduler after each step of its optimizer."""

    def step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> None:
        scheduler.step()

    return scheduler.optimizer.register_step_post_hook(step)
