"""Which windows are remembered, and the angle that one more of them makes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autodrop.angle import LEAST_SQUARE, angle_from_products
from autodrop.products import standard_error

__all__ = ["AngleMemory"]


class AngleMemory:
    """What one vector's windows have shown so far.

    known: how many windows are remembered: 1 the last mean, 2 also the step that led to it.
    angle: of the last window that was read, in radians; None if it had none.
    error: the angle's standard error, in radians; 0 where nothing was sampled.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is remembered."""
        self.known = 0
        self.angle: float | None = None
        self.error = 0.0
        self._lost = False

    def read(self, row: Sequence[float]) -> str | None:
        """Take in one more window: the products of its step and of the step before.

        Returns what the parameters did if there will be no angle until three more windows have
        ended: for the first of a streak of lost windows.
        """
        new, old, product = row[:3]
        self.angle, self.error = None, 0.0
        if not math.isfinite(new):
            return self._lose("are not finite, or moved beyond the float64 range,")
        if self.known and not new > LEAST_SQUARE:
            return self._lose("did not move")
        if self.known == 2:
            self.angle = angle_from_products(new, old, product)
            self.error = standard_error(row)
            self._lost = False
        self.known = min(self.known + 1, 2)
        return None

    def _lose(self, what: str) -> str | None:
        said, self._lost = self._lost, True
        self.known = 0
        return None if said else what
