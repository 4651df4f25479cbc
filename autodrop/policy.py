"""What a drop does to the learning rates, and the record that it leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autodrop.checks import check_integer, check_number

__all__ = ["DropEvent", "DropPolicy"]


@dataclass(frozen=True)
class DropPolicy:
    """α ← max(min_lr, factor·α) for every rate that is above its floor.

    factor: ρ, in (0, 1).
    min_lr: the floor α̲ ≥ 0, one for all parameter groups or a sequence with one for each (kept as
        a tuple).
    wait: windows from saturation to the drop, the saturated one counted as the first: at the
        `wait`-th the rate drops; 0 and 1 both mean at once. Saturation while waiting is ignored.
    max_threshold: if given, θ ← min(max_threshold, θ/factor) for the detector's threshold θ at
        every drop, in degrees.
    average: at the drop, replace the parameters by the average of the iterates seen at each of
        the waiting windows, with weights 1, 2, …, wait.

    UAI 2024, Algorithm 1 (p. 3607) uses factor and min_lr only; the others belong to arXiv
    2111.15317.

    Raises TypeError for what is no number, ValueError for a number out of its range or `average`
    without a wait ≥ 2.
    """

    factor: float = 0.95
    min_lr: float | Sequence[float] = 0.0
    wait: int = 0
    max_threshold: float | None = None
    average: bool = False

    def __post_init__(self) -> None:
        check_number("factor", self.factor, "in (0, 1)", lambda ρ: 0.0 < ρ < 1.0)
        if isinstance(self.min_lr, Sequence) and not isinstance(self.min_lr, str):
            object.__setattr__(self, "min_lr", tuple(self.min_lr))
        for floor in self.min_lr if isinstance(self.min_lr, tuple) else (self.min_lr,):
            check_number("min_lr", floor, "finite and >= 0", lambda α: 0.0 <= α < math.inf)
        check_integer("wait", self.wait, 0)
        if self.max_threshold is not None:
            check_number(
                "max_threshold",
                self.max_threshold,
                "finite and > 0 degrees",
                lambda θ: 0.0 < θ < math.inf,
            )
        if self.average and self.wait < 2:
            raise ValueError(
                f"average needs wait >= 2 windows to average over, got wait = {self.wait!r}"
            )

    def floors(self, groups: int) -> tuple[float, ...]:
        """The floor of each of `groups` rates; ValueError if min_lr has another length."""
        if not isinstance(self.min_lr, Sequence):
            return (self.min_lr,) * groups
        if len(self.min_lr) != groups:
            raise ValueError(
                f"min_lr must be a number or have one floor per parameter group, got "
                f"{len(self.min_lr)} floors for {groups} groups"
            )
        return tuple(self.min_lr)

    def lowered(self, rates: Sequence[float]) -> tuple[float, ...]:
        """max(min_lr, factor·α) for each rate α; a rate at or below its floor stays as it is."""
        return tuple(
            max(floor, self.factor * α) if α > floor else α
            for α, floor in zip(rates, self.floors(len(rates)), strict=True)
        )

    def grown(self, threshold: float) -> float:
        """min(max_threshold, threshold/factor); unchanged without a max_threshold. Degrees."""
        if self.max_threshold is None:
            return threshold
        return min(self.max_threshold, threshold / self.factor)


@dataclass(frozen=True)
class DropEvent:
    """One drop of the learning rate.

    step: updates done when the drop was applied; it acts from the next update on.
    observed: updates done when the rule's moment came; step − observed is the lag.
    window: index of the window that triggered it, from 0.
    old_lr, new_lr: the rate of each parameter group before and after.
    angle: the angular velocity of that window, in degrees; None if that window had none (the
        parameters did not move in it), which can happen while a rule waits.
    group: the parameter group whose angle it was, and whose rate fell; None for the angle of all.
    """

    step: int
    window: int
    old_lr: tuple[float, ...]
    new_lr: tuple[float, ...]
    angle: float | None
    observed: int
    group: int | None = None
