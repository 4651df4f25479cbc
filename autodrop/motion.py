"""What a window showed of how far the iterates get: for detectors that see more than angles.

Two things are measured beside the angle, both of the iterates x_t themselves:

probe      one copy a of the iterate, taken anew every `LAGS[-1]` updates; ‖x − a‖² is added up for
           each lag in `LAGS`, the number of updates since a was taken.
snapshots  `COPIES` of them, taken when the detector says; ‖x − x_u‖² where it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

__all__ = ["COPIES", "LAGS", "Motion", "MotionDetector", "Observes", "Plan"]

LAGS = (1, 2, 4, 8, 16, 32, 64)
COPIES = 3

Observes = Literal["angle", "motion"]
"""What a detector's `update` takes: an angle in radians, or a `Motion`."""


class Plan(NamedTuple):
    """What to do with the iterate at the end of the next window, in this order.

    compare: measure the displacement from this snapshot. store: make it this snapshot. restart:
    take the probe's copy anew, and start the sums over lags at 0.
    """

    compare: int | None = None
    store: int | None = None
    restart: bool = False


@dataclass(frozen=True)
class Motion:
    """One window that moved, in squared units of the parameters.

    updates: in this window. step: ‖y_i − y_{i−1}‖², y_i its mean. displacement: ‖x_t − x_u‖² from
    the snapshot that the plan said, or None. sums, counts: for each of `LAGS` the sum of ‖x − a‖²
    over the window, and of how many terms.
    """

    updates: int
    step: float
    displacement: float | None
    sums: tuple[float, ...]
    counts: tuple[int, ...]


class MotionDetector(Protocol):
    """What a rule asks of a detector with the attribute `observes = "motion"`."""

    def init(self) -> Any:
        """The state before the first window."""
        ...

    def plan(self, state: Any, window: int) -> Plan:
        """What to measure and to keep at the end of the next window, of so many updates."""
        ...

    def update(self, state: Any, motion: Motion | None) -> tuple[Any, bool]:
        """The state after one more window, None for a lost one, and whether to drop."""
        ...

    def restart(self, state: Any) -> Any:
        """The state from which to measure anew: nothing of what was kept is there any more."""
        ...
