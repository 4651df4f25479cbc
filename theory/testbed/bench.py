"""One instance of the test bed: all contenders and open-loop schedules beside the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.testbed.contenders import Contender
from theory.testbed.engine import Run, simulate
from theory.testbed.open_loop import SHAPES, Clock, expected_risks
from theory.testbed.oracles import Oracle, oracle_risks
from theory.testbed.stages import stage_times
from theory.testbed.suite import METHODS, Instance
from theory.testbed.worlds import Convex

__all__ = ["Outcome", "Timing", "open_loop_names", "run_instance"]

Array = NDArray[np.float64]

_TIMED = 8  # trajectories whose stages are held against the truth


@dataclass(frozen=True)
class Timing:
    """Drops of a contender against the truth, over some trajectories; plain SGD only.

    Of each trajectory the first stages, at most `stages.LIMIT`, count.

    drops : per trajectory.   premature : share of drops before the risk was within 10 % of its
    floor, nan without drops.   late : median of stage length/due time, where that is > 0; else nan.
    """

    drops: float
    premature: float
    late: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `run_instance` returns.

    risk : (R, S, H), of the contenders, f(x_T) − f*.
    open_loop : (K, H), E f(x_T) of `open_loop_names`; a mean over trajectories for real data.
    timings : one for each contender, or none.
    """

    instance: str
    spectrum: str
    held_out: bool
    method: str
    horizons: tuple[int, ...]
    oracle: Oracle
    contenders: tuple[str, ...]
    risk: Array
    open_loop: Array
    timings: tuple[Timing, ...]


def open_loop_names() -> tuple[str, ...]:
    """All shapes at all parameters of their grids."""
    return tuple(shape.label(p) for shape in SHAPES for p in shape.grid)


def run_instance(
    instance: Instance,
    method: str,
    contenders: Sequence[Contender],
    *,
    horizons: Sequence[int],
    trajectories: int,
    seed: int,
) -> Outcome:
    """Simulate the contenders, evaluate the schedules, find the oracle.

    method : a name of `suite.METHODS`.   Others as for `engine.simulate`.
    """
    momentum, rate = METHODS[method], instance.rate(METHODS[method])
    runs = simulate(
        instance.world,
        momentum,
        contenders,
        learning_rate=rate,
        horizons=horizons,
        trajectories=trajectories,
        seed=seed,
    )
    risks = [
        (_sampled if isinstance(instance.world, Convex) else _exact)(
            instance, method, T, trajectories, seed
        )
        for T in horizons
    ]
    open_loop = np.stack(risks, axis=1)
    if isinstance(instance.world, Convex):
        oracle = Oracle(tuple(open_loop.min(axis=0).tolist()), None, "best open-loop")
    else:
        oracle = oracle_risks(instance, momentum, horizons)
    timed = instance.quadratic is not None and not momentum.momentum
    return Outcome(
        instance.name,
        instance.spectrum,
        instance.held_out,
        method,
        tuple(horizons),
        oracle,
        tuple(each.name for each in contenders),
        np.stack([run.risk for run in runs]),
        open_loop,
        tuple(_timing(instance, run) for run in runs) if timed else (),
    )


def _rates(first: float, T: int) -> list[Array]:
    return [shape.rates(first, T, p) for shape in SHAPES for p in shape.grid]


def _exact(instance: Instance, method: str, T: int, trajectories: int, seed: int) -> Array:
    momentum = METHODS[method]
    rates = np.array(_rates(instance.rate(momentum), T))
    return expected_risks(instance.world, momentum, rates, [T])[:, 0]


def _sampled(instance: Instance, method: str, T: int, trajectories: int, seed: int) -> Array:
    """The mean over trajectories with the samples of the contenders."""
    momentum = METHODS[method]
    rates = _rates(instance.rate(momentum), T)
    runs = simulate(
        instance.world,
        momentum,
        [Clock(α, name) for α, name in zip(rates, open_loop_names(), strict=True)],
        learning_rate=[float(α[0]) for α in rates],
        horizons=[T],
        trajectories=trajectories,
        seed=seed,
    )
    return np.array([run.risk.mean() for run in runs])


def _timing(instance: Instance, run: Run) -> Timing:
    problem = instance.quadratic
    assert problem is not None
    count = min(_TIMED, len(run.risk))
    found = [stage_times(problem, run.schedule(s)) for s in range(count)]
    premature = np.concatenate([each.premature for each in found])
    length = np.concatenate([each.length for each in found])
    due = np.concatenate([each.due for each in found])
    waited = due > 0
    return Timing(
        float((run.drops.trajectory < count).sum()) / count,
        float(premature.mean()) if len(premature) else float("nan"),
        float(np.median(length[waited] / due[waited])) if waited.any() else float("nan"),
    )
