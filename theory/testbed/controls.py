"""Rules that cheat, for the test bed to expose: a clock, a look into the future, a wrong level."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.testbed.contenders import Observation, Observe, lowered, row_dot
from theory.testbed.worlds import World

__all__ = ["Lookahead", "Pacemaker", "RandomDrops"]

Array = NDArray[np.float64]


def _uniform(row: Array) -> float:
    """A number in [0, 1) from the bytes of the row."""
    return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=6).digest(), "big") / 2**48


@dataclass(frozen=True)
class Pacemaker:
    """Computes a statistic of the steps and drops every `period` updates, whatever it is."""

    period: int = 500
    factor: float = 0.5
    name: str = ""

    def __post_init__(self) -> None:
        checks.positive_integer("period", self.period)
        if not self.name:
            object.__setattr__(self, "name", f"clock period={self.period} ρ={self.factor:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        sizes = np.zeros(len(weights))

        def observe(seen: Observation) -> Array | None:
            if seen.updates % self.period:
                return None
            step = seen.step
            np.copyto(sizes, row_dot(step, step))
            return lowered(sizes >= 0, self.factor, seen.rates)

        return observe


@dataclass(frozen=True, eq=False)
class Lookahead:
    """Knows the world and the samples to come: drops if that leads to less risk `ahead` steps on.

    Plain SGD; at most one block of trajectories.

    world, seed : those of the run.   steps : of the run.
    """

    world: World
    seed: int
    steps: int
    ahead: int = 32
    factor: float = 0.5
    name: str = "peeks at the future"

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        rng = np.random.default_rng([self.seed, 0])
        S = len(weights)
        samples: list[Any] = []
        while len(samples) < self.steps:
            samples += list(self.world.draw(rng, min(64, self.steps - len(samples)), S))

        def later(x: Array, rates: Array, t: int) -> Array:
            G: Any = np.empty_like(x)
            for sample in samples[t : t + self.ahead]:
                x = x - rates[:, None] * self.world.gradient(x, sample, G)
            return self.world.risk(x)

        def observe(seen: Observation) -> Array | None:
            t = seen.updates
            if t % self.ahead:
                return None
            x = seen.weights - self.world.minimiser
            drop = later(x, self.factor * seen.rates, t) < later(x, seen.rates, t)
            return lowered(drop, self.factor, seen.rates)

        return observe


@dataclass(frozen=True)
class RandomDrops:
    """A test every `period` updates that drops with probability `level`, whatever it sees.

    The noise of the gradient is its source of randomness: a hash of it is uniform.
    """

    level: float
    period: int = 10
    factor: float = 0.5
    name: str = "random drops"

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""

        def observe(seen: Observation) -> Array | None:
            if seen.updates % self.period:
                return None
            draws = np.array([_uniform(row) for row in seen.gradient])
            return lowered(draws < self.level, self.factor, seen.rates)

        return observe
