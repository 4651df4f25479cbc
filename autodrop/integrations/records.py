"""What a scheduler has recorded since one last looked, for everything that logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autodrop.policy import DropEvent
from autodrop.scheduler import AutoDrop

__all__ = ["NewRecords", "learning_rates"]


class NewRecords:
    """The angles and drops of a scheduler, each handed out once.

    scheduler: an `AutoDrop`.
    history: whether the first `take` starts with what the scheduler knows already, as one does that
        was loaded from a checkpoint.

    A scheduler that is set back by `load_state_dict` is followed from there.

    Raises TypeError for any other scheduler.
    """

    def __init__(self, scheduler: AutoDrop, history: bool = False) -> None:
        if not isinstance(scheduler, AutoDrop):
            inner = ": pass the AutoDrop that it holds" if hasattr(scheduler, "step") else ""
            raise TypeError(f"scheduler must be an AutoDrop, got {type(scheduler).__name__}{inner}")
        self._scheduler = scheduler
        self._angles = 0 if history else len(scheduler.angular_velocities)
        self._drops = 0 if history else len(scheduler.drops)

    def take(self) -> tuple[list[tuple[int, float]], list[DropEvent]]:
        """(updates, degrees) for each new angle, updates those at its window's end; new drops."""
        steps, angles = self._scheduler.angle_steps, self._scheduler.angular_velocities
        drops = self._scheduler.drops
        first, self._angles = min(self._angles, len(angles)), len(angles)
        first_drop, self._drops = min(self._drops, len(drops)), len(drops)
        new = list(zip(steps[first:], angles[first:], strict=True))
        return new, drops[first_drop:]


def learning_rates(rates: Sequence[Any]) -> dict[str, float]:
    """One rate under "learning_rate", those of several groups under "learning_rate/group_0", …."""
    if len(rates) == 1:
        return {"learning_rate": float(rates[0])}
    return {f"learning_rate/group_{i}": float(α) for i, α in enumerate(rates)}
