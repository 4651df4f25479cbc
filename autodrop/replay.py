"""A rule tried out on a recorded trace of angles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autodrop.checks import check_number
from autodrop.policy import DropEvent
from autodrop.rules import Rule

__all__ = ["replay"]


def replay(
    angles: Sequence[float],
    rule: Rule,
    learning_rate: float = 1.0,
    steps: Sequence[int] | None = None,
) -> tuple[DropEvent, ...]:
    """The drops that `rule` makes on these angles.

    The angles are those of the run that recorded them: a drop that this run did not make would
    have changed what came after it. Up to the first difference the answer is exact.

    angles: degrees, in order, such as `AutoDrop.angular_velocities`.
    rule: its window must be that of the recording, and its detector one of angles.
    learning_rate: the first rate, > 0.
    steps: the number of updates with which the window of each angle ended, such as
        `AutoDrop.angle_steps`, increasing. Default: that of the third window and of each after it,
        which is right where no window was without an angle.

    The record ends with the last angle: a drop that the run made later, in a window without one,
    is not in the answer. step is observed: replay knows no lag. Parameters that were added in the
    run made its detector forget: replay what came after them by itself.

    Raises TypeError for a learning_rate that is no number and for a detector of motion; ValueError
    for a rate that is not finite and > 0, for angles outside [0, 180], for a rule with several
    floors, and for steps that do not end windows of the rule from the third on, do not increase or
    are not as many as the angles.
    """
    check_number("learning_rate", learning_rate, "finite and > 0", lambda α: 0.0 < α < math.inf)
    if rule.sees_motion:
        raise TypeError(f"detector must be one that sees angles, got {rule.detector!r}")
    rule.policy.floors(1)  # an error now rather than at the first drop
    k = rule.window
    first = 3 * k if rule.observation == "mean" else 2 * k + 1
    if steps is None:
        steps = [first + i * k for i in range(len(angles))]
    if len(steps) != len(angles):
        raise ValueError(f"steps must be as many as angles = {len(angles)}, got {len(steps)}")
    previous = first - k
    for t in steps:
        if t <= previous or not rule.observes(t):
            raise ValueError(
                f"steps must increase from {first} on and end windows of {k} updates "
                f"({rule.observation}), got {t}"
                + (f" after {previous}" if previous >= first else "")
                + "; is the rule's window that of the recording?"
            )
        previous = t
    seen = dict(zip(steps, angles, strict=True))
    state = rule.init()
    rates: tuple[float, ...] = (float(learning_rate),)
    drops: list[DropEvent] = []
    acting = 0 if rule.observation == "mean" else 1  # updates between a window's end and a drop
    for t in range(first - 2 * k, previous + 1, k):
        ω = seen.get(t)
        if ω is not None and not 0.0 <= ω <= 180.0:
            raise ValueError(f"angles must be in degrees, in [0, 180], got {ω!r} at update {t}")
        state, decision = rule.advance(state, None if ω is None else math.radians(ω))
        new = rule.policy.lowered(rates) if decision.drop else rates
        if new != rates:
            at = t + acting
            drops.append(DropEvent(at, rule.windows(at) - 1, rates, new, ω, at))
            rates = new
    return tuple(drops)
