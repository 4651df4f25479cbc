"""A drop rule in the loop with a noisy quadratic: what AutoDrop does where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrop import algorithm
from autodrop.policy import DropEvent
from autodrop.rules import Rule
from theory import checks, linear
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["ClosedLoop", "run"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClosedLoop:
    """B trajectories, each with its own angles and drops, over T iterations with window k.

    Attributes
    ----------
    angles : (B, ⌊T/k⌋ − 2), degrees; entry i from the means of windows i, i+1, i+2.
    learning_rates : (B, T).
    risk : (B, T + 1), f(x_t).
    drops : for each trajectory, its `autodrop.DropEvent`s.
    """

    angles: Array
    learning_rates: Array
    risk: Array
    drops: tuple[tuple[DropEvent, ...], ...]

    def schedule(self, trajectory: int = 0) -> StepwiseSchedule:
        """The step-wise schedule that the rule realised on one trajectory."""
        return StepwiseSchedule.from_rates(self.learning_rates[trajectory].tolist())


def run(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    rule: Rule,
    *,
    learning_rate: float,
    iterations: int,
    trajectories: int,
    seed: int,
) -> ClosedLoop:
    """UAI 2024, eq. (9) on eq. (3), with the rate of each trajectory set by `rule`.

    Parameters
    ----------
    learning_rate : α_0.
    iterations : T ≥ 1;  trajectories : B ≥ 1.
    seed : of the noise c_t ~ N(0, v).

    Returns a `ClosedLoop`: angles in degrees, as the rule reads them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range.

    Source: UAI 2024, Algorithm 1 (or the rule of its Section 3) on Definition 3.1.
    """
    checks.instance("method", method, UnifiedMomentum)
    checks.instance("rule", rule, Rule)
    trajectories = checks.positive_integer("trajectories", trajectories)
    iterations = checks.positive_integer("iterations", iterations)
    linear.steps(problem, learning_rate)  # checks the rate
    rng = np.random.default_rng(seed)
    start = np.tile(np.asarray(problem.start, dtype=np.float64), (trajectories, 1))
    risk = np.empty((iterations + 1, trajectories))
    update = _updates(problem, method, start, rng, risk)
    trajectory = algorithm.run(update, start, learning_rate, iterations, rule)
    risk[-1] = problem.risk(trajectory.end)
    return ClosedLoop(
        angles=trajectory.angles,
        learning_rates=trajectory.learning_rates,
        risk=risk.T,
        drops=trajectory.drops,
    )


def _updates(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    start: Array,
    rng: np.random.Generator,
    risk: Array,
) -> Callable[[int, Any], Array]:
    """update(t, α) → x_{t+1}; writes f(x_t) into risk[t]."""
    β, s = float(method.momentum), float(method.s)
    deviation = np.sqrt(np.asarray(problem.noise_variance, dtype=np.float64))
    x, ys = start.copy(), start.copy()

    def update(t: int, learning_rate: Any) -> Array:
        nonlocal x, ys
        risk[t] = problem.risk(x)
        G = problem.gradient(x, deviation * rng.standard_normal(x.shape))
        y, previous, ys = x - learning_rate * G, ys, x - s * learning_rate * G
        x = y + β * (ys - previous)
        return x

    return update
