"""Angles, learning rates and drops as TensorBoard's scalars."""

from __future__ import annotations

import bisect
from typing import Any, Protocol

from autodrop.integrations.records import NewRecords, learning_rates
from autodrop.scheduler import AutoDrop

__all__ = ["ScalarLog", "Writer"]


class Writer(Protocol):
    """What `ScalarLog` asks of a writer."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int) -> Any:
        """Record one number."""


class ScalarLog:
    """Writes what is new of a scheduler, each number under the update to which it belongs.

        from torch.utils.tensorboard import SummaryWriter    # the extra autodrop[tensorboard]

        log = ScalarLog(SummaryWriter("runs/mine"), scheduler)
        for x, y in batches:
            ...
            scheduler.step()
            log.write()

    Tags, t being the number of updates done:
        "angular_velocity"   degrees, at the t with which the window ended
        "learning_rate"      the rate of the t-th update, at each angle's t, and at a drop's t and
                             t + 1, so that the curve has a step there; with several parameter
                             groups "learning_rate/group_0", …
        "drops"              drops so far, at each drop's t

    writer: a `SummaryWriter`, or what has its `add_scalar`: Accelerate's
        `accelerator.get_tracker("tensorboard").writer`, Lightning's `trainer.logger.experiment`.
    scheduler: an `AutoDrop`; one that resumes is to be loaded first.
    prefix: put before each tag.
    history: whether to start with what the scheduler knows already.

    Rates that something else than AutoDrop has changed are right if `write` follows each `step`.

    Raises TypeError if scheduler is no `AutoDrop`.
    """

    def __init__(
        self, writer: Writer, scheduler: AutoDrop, prefix: str = "", history: bool = False
    ) -> None:
        self._writer = writer
        self._records = NewRecords(scheduler, history)
        self._scheduler = scheduler
        self._prefix = prefix

    def write(self) -> None:
        """Write what came since the last call, or since the log was made."""
        angles, drops = self._records.take()
        points: dict[tuple[int, str], float] = {}
        for t, angle in angles:
            points[t, "angular_velocity"] = angle
            points.update({(t, tag): α for tag, α in self._rates(t).items()})
        first = len(self._scheduler.drops) - len(drops) + 1
        for count, event in enumerate(drops, first):
            t = event.step
            points[t, "drops"] = count
            for tag, α in learning_rates(event.old_lr).items():
                points[t, tag] = α
            for tag, α in learning_rates(event.new_lr).items():
                points[t + 1, tag] = α
        for (t, tag), value in sorted(points.items()):
            self._writer.add_scalar(self._prefix + tag, value, t)

    def _rates(self, t: int) -> dict[str, float]:
        """The rates of the t-th update: those before the first drop that came with it or later."""
        drops = self._scheduler.drops
        later = bisect.bisect_left(drops, t, key=lambda event: event.step)
        if later < len(drops):
            return learning_rates(drops[later].old_lr)
        return learning_rates([group["lr"] for group in self._scheduler.optimizer.param_groups])
