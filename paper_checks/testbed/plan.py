"""What is run: levels, and the tasks that make them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from theory import NoisyQuadratic
from theory.testbed import suite
from theory.testbed.contenders import Contender
from theory.testbed.roster import ROSTER, Family
from theory.testbed.suite import Instance

__all__ = ["LEVELS", "Level", "LevelName", "Task", "equivariance_problem", "tasks"]

LevelName = Literal["quick", "full"]


@dataclass(frozen=True)
class Level:
    """trajectories: of each contender on each instance. horizons: where the risk is read.

    stretches, times: of the equivariance experiment, and its iterations at stretch 1.
    walks: trajectories of the random walk on which every drop is false.
    """

    name: LevelName
    trajectories: int
    horizons: tuple[int, ...]
    stretches: tuple[float, ...]
    times: int
    walks: int


LEVELS: dict[str, Level] = {
    "quick": Level("quick", 25, (2000, 4000), (1.0, 4.0), 1500, 50),
    "full": Level("full", 100, suite.HORIZONS, (1.0, 4.0, 16.0), 2000, 500),
}

_CONVEX_HORIZONS = (2000, 8000)


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work, of a kind: "instance", "equivariance" or "audit".

    cost: roughly, to begin with the longest.
    """

    name: str
    kind: str
    cost: float
    instance: Instance | None = None
    method: str = "sgd"
    horizons: tuple[int, ...] = ()


def tasks(level: Level) -> tuple[Task, ...]:
    """The longest first, so that no process is left with one at the end."""
    quick = level.name == "quick"
    found = [
        Task("equivariance", "equivariance", level.times * sum(level.stretches) * 20),
        Task("audit", "audit", 2000 * 20),
    ]
    for instance in suite.quadratic_instances(quick=quick):
        for method in suite.METHODS:
            if method == "sgd" or (instance.quick and not quick):
                found.append(_instance_task(instance, method, level.horizons))
    if not quick:
        found += [
            _instance_task(each, "sgd", level.horizons) for each in suite.multiplicative_instances()
        ]
        found += [
            _instance_task(each, "sgd", _CONVEX_HORIZONS) for each in suite.convex_instances()
        ]
    return tuple(sorted(found, key=lambda task: (-task.cost, task.name)))


def _instance_task(instance: Instance, method: str, horizons: tuple[int, ...]) -> Task:
    size = len(instance.world.start) + 30
    cost = size * horizons[-1] * (1.0 if method == "sgd" else 1.5)
    if instance.spectrum == "real data":
        cost *= 20  # mini-batches, and its open-loop schedules are simulated
    return Task(f"{instance.name}; {method}", "instance", cost, instance, method, horizons)


def equivariance_problem() -> tuple[NoisyQuadratic, float]:
    """A problem and its first rate: αa_max = ¼, so that windows up to 16 have kαa_max ≤ 4."""
    return NoisyQuadratic(np.linspace(0.1, 1, 20), 0.5, 2.0), 0.25


def settings(families: tuple[Family, ...] = ROSTER) -> tuple[Contender, ...]:
    """Every setting of every family, in order."""
    return tuple(each for family in families for each in family.settings)
