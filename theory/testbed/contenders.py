"""The interface of a rule on the test bed: what it sees, and what it may do.

    observe = contender.start(weights, rates)      # S trajectories, before the first update
    factors = observe(seen)                        # after each update: None, or (S,) factors ≤ 1

A factor multiplies the rate of its trajectory from the next update on; 1 keeps it.  A contender is
a frozen description, and what it remembers lives in the function that `start` returns.  It sees
what an optimizer sees: weights, steps, stochastic gradients, observed losses and rates; no
curvature, no noise level, no minimum and no horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from theory.testbed.worlds import World

__all__ = ["Contender", "Observation", "Observe", "lowered", "row_dot"]

Array = NDArray[np.float64]


class Observation:
    """Update t, x_{t−1} → x_t, of S trajectories.

    Attributes
    ----------
    updates : t ≥ 1, how many are done.
    rates : (S,), α_{t−1}, with which it was made.
    gradient : (S, n), G_{t−1}, at x_{t−1}.

    `weights`, `step` and `loss` are computed when they are read; the arrays are valid during the
    call only and must not be written to.
    """

    __slots__ = (
        "_now",
        "_origin",
        "_previous",
        "_sample",
        "_world",
        "gradient",
        "rates",
        "updates",
    )

    def __init__(
        self,
        updates: int,
        rates: Array,
        gradient: Array,
        now: Array,
        previous: Array,
        sample: Any,
        world: World,
        origin: Array,
    ) -> None:
        self.updates, self.rates, self.gradient = updates, rates, gradient
        self._now, self._previous, self._sample = now, previous, sample
        self._world, self._origin = world, origin

    @property
    def weights(self) -> Array:
        """(S, n): the weights after the update, not centred at the minimiser."""
        return self._now + self._origin

    @property
    def step(self) -> Array:
        """(S, n): x_t − x_{t−1}."""
        return self._now - self._previous

    @property
    def loss(self) -> Array:
        """(S,): the loss observed at x_{t−1}, on the sample of the gradient."""
        return self._world.loss(self._previous, self.gradient, self._sample)


Observe = Callable[[Observation], Array | None]


class Contender(Protocol):
    """A rule that drops learning rates; anything with these two will do."""

    @property
    def name(self) -> str:
        """For tables; with the settings that differ from the recommended ones."""

    def start(self, weights: Array, rates: Array) -> Observe:
        """For S trajectories that start at `weights`, (S, n), with `rates`, (S,)."""


@dataclass(frozen=True)
class Constant:
    """α_t = α_0."""

    name: str = "constant"

    def start(self, weights: Array, rates: Array) -> Observe:
        """Never drops."""
        return lambda seen: None


def row_dot(u: Array, v: Array) -> Array:
    """⟨u, v⟩ of the rows, (S, n) to (S,)."""
    return np.einsum("sn,sn->s", u, v)


def lowered(drop: Any, factor: float, rates: Array, floor: float = 0.0) -> Array | None:
    """The factors of α ← max(floor, factor·α) where `drop`, (S,), is true and α > floor."""
    if not drop.any():
        return None
    if floor:
        factors = np.where(rates > floor, np.maximum(floor / rates, factor), 1.0)
        return np.where(drop, factors, 1.0)
    return np.where(drop, factor, 1.0)
