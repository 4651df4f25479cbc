"""What the test bed demands of a rule: it decides by the past alone, and keeps its level.

Causality: two worlds with the same samples up to an iteration and different ones from then on must
see the same drops up to it.  A rule that is built with knowledge of the world, as `build` is
offered it, is caught if it uses it.

Level: on a trajectory that is still moving, a random walk with a deterministic drift, every drop is
a false one; their number has an exact binomial interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from theory import checks
from theory.methods import UnifiedMomentum
from theory.testbed.contenders import Contender
from theory.testbed.engine import BLOCK, Run, simulate
from theory.testbed.worlds import World

__all__ = ["Drift", "FalseDrops", "Spliced", "false_drops", "first_leaks", "proportion_interval"]

Array = NDArray[np.float64]


class Spliced:
    """A world whose samples, from an iteration on, are others: three times as far from their mean.

    world : the one to change.   at : the first iteration that differs.   seed : of the others.

    One object serves one run of one block of trajectories.
    """

    def __init__(self, world: World, at: int, seed: int) -> None:
        self._world, self._at, self._done = world, at, 0
        self._rng = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> Any:
        """The world's samples, replaced from iteration `at` on."""
        samples = self._world.draw(rng, steps, trajectories)
        others = self._world.draw(self._rng, steps, trajectories)
        first = max(0, self._at - self._done)
        self._done += steps
        return [*samples[:first], *(3 * each for each in others[first:])]


def first_leaks(
    build: Callable[[World, int, int], Sequence[Contender]],
    world: World,
    method: UnifiedMomentum,
    *,
    learning_rate: float,
    at: int = 640,
    iterations: int = 1280,
    trajectories: int = 10,
    seed: int = 0,
) -> list[int | None]:
    """The first iteration ≤ `at` whose drops depend on what comes after it; None if there is none.

    build : (world, seed, iterations) ↦ contenders.  An honest rule ignores what it is offered.
    at : the samples of the updates up to this one are the same.  The other world also runs longer.
    trajectories : at most one block.
    """
    if not 1 <= trajectories <= BLOCK:
        raise ValueError(f"trajectories must be in 1 ... {BLOCK}, got {trajectories}")
    seen: list[list[set[tuple[int, int, float]]]] = []
    for length, make in (
        (iterations, lambda: world),
        (2 * iterations, lambda: Spliced(world, at, seed + 1)),
    ):
        runs = simulate(
            make(),
            method,
            build(make(), seed, length),
            learning_rate=learning_rate,
            horizons=[length],
            trajectories=trajectories,
            seed=seed,
        )
        seen.append([_until(run, at) for run in runs])
    different = (one ^ other for one, other in zip(*seen, strict=True))
    return [min((t for t, _, _ in each), default=None) for each in different]


def _until(run: Run, at: int) -> set[tuple[int, int, float]]:
    early = run.drops.iteration <= at
    return set(zip(*(column[early].tolist() for column in run.drops), strict=True))


@dataclass(frozen=True, eq=False)
class Drift:
    """Not a minimisation: G = −drift + noise, whatever x is; the weights move on for ever.

    drift : shape (n,).   deviation : of each coordinate of the noise, > 0.
    """

    drift: Array
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"deviation must be > 0, got {self.deviation}")

    @property
    def start(self) -> Array:
        """0."""
        return np.zeros(len(self.drift))

    @property
    def minimiser(self) -> Array:
        """1 in each coordinate: there is no minimiser, and the weights start there."""
        return np.ones(len(self.drift))

    def draw(self, rng: np.random.Generator, steps: int, trajectories: int) -> Array:
        """The noise, (steps, S, n)."""
        return self.deviation * rng.standard_normal((steps, trajectories, len(self.drift)))

    def gradient(self, x: Array, sample: Array, out: Array) -> Array:
        """noise − drift."""
        out[...] = sample - self.drift
        return out

    def loss(self, x: Array, gradient: Array, sample: Array) -> Array:
        """−⟨drift − noise, x⟩."""
        return np.einsum("...n,...n->...", gradient, x)

    def risk(self, x: Array) -> Array:
        """−⟨drift, x⟩."""
        return -x @ self.drift


def proportion_interval(count: int, of: int, error: float = 0.05) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a probability: it misses with at most `error`."""
    if not 0 <= count <= of or of < 1:
        raise ValueError(f"need 0 <= count <= of and of >= 1, got {count} of {of}")
    low = float(stats.beta.ppf(error / 2, count, of - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - error / 2, count + 1, of - count)) if count < of else 1.0
    return low, high


@dataclass(frozen=True)
class FalseDrops:
    """stages : trajectories, each with its first stage; dropped : how many dropped in it.

    tests : how many tests were made in these stages, or None.
    """

    name: str
    stages: int
    dropped: int
    tests: int | None

    @property
    def per_stage(self) -> tuple[float, float, float]:
        """(estimate, low, high) of the probability of a false drop in the first stage."""
        return self.dropped / self.stages, *proportion_interval(self.dropped, self.stages)

    @property
    def per_test(self) -> tuple[float, float, float] | None:
        """(estimate, low, high) of the probability that a test drops falsely.

        The tests of one stage share data.  While false drops are rare the interval is right all
        the same: at most one drop is counted for a stage.
        """
        if not self.tests:
            return None
        return self.dropped / self.tests, *proportion_interval(self.dropped, self.tests)

    def exceeds(self, level: float, *, per: str = "stage") -> bool:
        """Whether the interval lies above the nominal level, per "stage" or per "test"."""
        found = {"stage": self.per_stage, "test": self.per_test}[per]
        if found is None:
            raise ValueError(f"{self.name}: the number of tests is not known")
        return found[1] > level


def false_drops(
    contenders: Sequence[Contender],
    *,
    dimension: int = 10,
    drift: float = 0.1,
    iterations: int = 2000,
    trajectories: int = 500,
    learning_rate: float = 0.1,
    method: UnifiedMomentum | None = None,
    tests: Callable[[int], int] | None = None,
    seed: int = 0,
) -> tuple[FalseDrops, ...]:
    """First drops within `iterations` on a random walk with drift, where none is right.

    dimension : n, the effective dimension of the noise, as its coordinates are alike.
    drift : ‖drift‖ of a step in units of the root of E‖noise‖².
    tests : t ↦ how many tests a stage makes in its first t updates, if that is known.
    """
    checks.positive_integer("dimension", dimension)
    world = Drift(np.full(dimension, float(drift)))
    runs = simulate(
        world,
        method or UnifiedMomentum.sgd(),
        contenders,
        learning_rate=learning_rate,
        horizons=[iterations],
        trajectories=trajectories,
        seed=seed,
    )
    found = []
    for contender, run in zip(contenders, runs, strict=True):
        which, at = np.unique(run.drops.trajectory, return_index=True)
        ends = np.full(trajectories, iterations)
        ends[which] = run.drops.iteration[at]  # drops are in the order of time
        made = None if tests is None else int(sum(tests(int(t)) for t in ends))
        found.append(FalseDrops(contender.name, trajectories, len(which), made))
    return tuple(found)
