"""The protocol's decisions: from results to holds, refuted or undecided, with what they rest on.

See PROTOCOL.md, "Decision"; the names here are those there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from paper_checks.training.measures import Curve
from paper_checks.training.paired import Interval, difference
from paper_checks.training.plan import Arm, Choice
from paper_checks.training.results import Results

MARGIN = 0.5  # percentage points of the test error
OURS, BASELINE, CONSTANT = "autodrop", "multistep", "constant"
# Other forms of AutoDrop are shown beside it and are no rivals.
OWN = ("autodrop", "autodrop-64", "autodrop-arxiv", "variance-ratio")

Measure = Callable[[Curve], float]


class Decision(StrEnum):
    """Of a statement about a task, or about all of them."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """AutoDrop against one rival on a task: means over the seeds, and the interval of Δ."""

    task: str
    rival: str
    ours: float
    theirs: float
    interval: Interval


def final(curve: Curve) -> float:
    """Test error at the end, %."""
    return curve.final


def area(curve: Curve) -> float:
    """Mean test error over the epochs, %."""
    return curve.area


def rivals(results: Results, task: str) -> tuple[str, ...]:
    """The schedules that AutoDrop is compared with."""
    return tuple(name for name in results.schedules(task) if name not in OWN)


def comparisons(
    results: Results,
    task: str,
    arm: Arm = "rate",
    measure: Measure = final,
    own: Arm | None = None,
) -> tuple[Comparison, ...]:
    """Against every rival, with intervals that hold together.

    own: AutoDrop's arm, if another one. It has no arm "tuned" of its own: its defaults are at the
    best rate then, too.
    """
    names = rivals(results, task)
    ours = _values(results, task, OURS, own or arm, measure)
    found = []
    for name in names:
        theirs = _values(results, task, name, arm, measure)
        interval = difference(ours, theirs, len(names))
        found.append(Comparison(task, name, float(np.mean(ours)), float(np.mean(theirs)), interval))
    return tuple(found)


def generalization(
    results: Results, task: str, arm: Arm = "rate", own: Arm | None = None
) -> Decision:
    """Decision 1 on a task; other arms than the protocol's decide nothing."""
    found = comparisons(results, task, arm, final, own)
    bounds = {c.rival: MARGIN if c.rival == BASELINE else 0.0 for c in found}
    return _decided(found, bounds)


def acceleration(
    results: Results, task: str, arm: Arm = "rate", own: Arm | None = None
) -> Decision:
    """Decision 2 on a task. Its two intervals hold together with those of the other rivals."""
    found = comparisons(results, task, arm, area, own)
    found = tuple(c for c in found if c.rival in (BASELINE, CONSTANT))
    return _decided(found, {c.rival: 0.0 for c in found})


def regret(results: Results, task: str) -> Interval:
    """Test error of AutoDrop at the first guess minus that with rate and ρ tuned, in points."""
    return difference(
        _values(results, task, OURS, "guess", final), _values(results, task, OURS, "factor", final)
    )


def regrets(results: Results, task: str) -> dict[str, Interval]:
    """For every schedule: the error at the first guess minus that in the best arm of its tuning."""
    found = {}
    for name in results.schedules(task):
        arm: Arm = "factor" if name == OURS else "tuned"
        if results.choice(task, name, arm) is None:
            arm = "rate"
        found[name] = difference(
            _values(results, task, name, "guess", final), _values(results, task, name, arm, final)
        )
    return found


def no_tuning(results: Results, task: str) -> Decision:
    """Decision 3 on a task."""
    interval = regret(results, task)
    if interval.below(MARGIN):
        return Decision.HOLDS
    return Decision.REFUTED if interval.above(MARGIN) else Decision.UNDECIDED


def overall(decisions: Sequence[Decision]) -> Decision:
    """Holds if it does on each task, refuted if it is on one. Raises ValueError for no task."""
    if not decisions:
        raise ValueError("a decision needs >= 1 task, got 0")
    if Decision.REFUTED in decisions:
        return Decision.REFUTED
    return Decision.HOLDS if set(decisions) == {Decision.HOLDS} else Decision.UNDECIDED


def crippled(results: Results, task: str, arm: Arm = "rate") -> tuple[str, ...]:
    """Rivals whose mean final error in an arm exceeds the constant rate's by the margin."""
    found = {c.rival: c.theirs for c in comparisons(results, task, arm)}
    return tuple(name for name, error in found.items() if error > found[CONSTANT] + MARGIN)


def target(results: Results, task: str) -> float:
    """The error to reach, %: the mean final one of the constant rate at its best rate."""
    return float(np.mean(_values(results, task, CONSTANT, "rate", final)))


def choice(results: Results, task: str, name: str, arm: Arm) -> Choice:
    """What stands for a schedule in an arm: with no arm "tuned" or "factor", the arm "rate"."""
    found = results.choice(task, name, arm) or results.choice(task, name, "rate")
    assert found is not None  # every schedule has the arm "rate"
    if arm == "tuned" and name in OWN:
        found = results.choice(task, name, "rate") or found
    return found


def _values(results: Results, task: str, name: str, arm: Arm, measure: Measure) -> list[float]:
    """By seed, the seeds of AutoDrop's runs: otherwise there are no pairs. Raises ValueError."""
    found, ours = (choice(results, task, n, arm) for n in (name, OURS))
    runs = results.runs(task, found.variant, found.rate)
    seeds = [run.seed for run in runs]
    wanted = [run.seed for run in results.runs(task, ours.variant, ours.rate)]
    if seeds != wanted:
        raise ValueError(f"runs of {name} on {task} must have seeds {wanted}, got {seeds}")
    return [measure(run.curve) for run in runs]


def _decided(found: Sequence[Comparison], bounds: dict[str, float]) -> Decision:
    if any(c.interval.above(bounds[c.rival]) for c in found):
        return Decision.REFUTED
    if all(c.interval.below(bounds[c.rival]) for c in found):
        return Decision.HOLDS
    return Decision.UNDECIDED
