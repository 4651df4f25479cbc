"""AutoDrop in Lightning: one more callback of the Trainer, or one more line in the module."""

from __future__ import annotations

from autodrop.integrations.lightning_hooks import LightningHooks

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "autodrop.integrations.lightning needs Lightning: the extra autodrop[lightning]; "
        "for `import pytorch_lightning` there is autodrop.integrations.pytorch_lightning"
    ) from error

__all__ = ["AutoDropCallback"]


class AutoDropCallback(LightningHooks, Callback):
    """AutoDrop for each of a module's optimizers, with no change of the module.

        trainer = Trainer(callbacks=[AutoDropCallback(window=64)])
        trainer.fit(module, loader)     # then callback.schedulers[0].drops, .angular_velocities

    It steps after every update, in manual optimization too, logs to the Trainer's loggers once for
    each window, and is part of the checkpoints: a run that goes on with `ckpt_path` has the angles
    and rates of an uninterrupted one.

    options: arguments of `AutoDrop`, the optimizer excepted.

    A module may return the scheduler itself; then the callback, without options, only logs it.
    "interval" is needed: Lightning steps once an epoch otherwise, so that windows count epochs.

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            scheduler = {"scheduler": AutoDrop(optimizer, window=64), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    Logged are "angular_velocity" (degrees), "learning_rate" and "drops" (their number so far),
    under the step at which Lightning logs that batch, and a lower rate under the next. With several
    parameter groups it is "learning_rate/group_0", …, with several optimizers all names start
    with "optimizer_0/", ….
    """
