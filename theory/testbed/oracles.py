"""The oracle of an instance: the least exact risk that rates up to α_0 reach at each horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theory import oracle
from theory.methods import UnifiedMomentum
from theory.testbed.open_loop import SHAPES, expected_risks
from theory.testbed.suite import Instance
from theory.testbed.worlds import LeastSquares

__all__ = ["STAGES", "Oracle", "best_open_loop", "oracle_risks", "stage_lengths"]

STAGES = 80
_STAGES_WITH_MOMENTUM = 40  # each costs more there; up to 1 % of risk


def stage_lengths(steps: int, stages: int = STAGES) -> list[int]:
    """Lengths that are short at both ends: edges at T sin²(πi/2S), rounded, doubles left out.

    The best schedules change fast at the start, and in the last iterations.
    """
    edges = steps * np.sin(np.linspace(0, np.pi / 2, stages + 1)) ** 2
    return np.diff(np.unique(np.round(edges).astype(int))).tolist()


@dataclass(frozen=True)
class Oracle:
    """risks : E f(x_T) at each horizon.   lower_bounds : what no schedule can beat, or None.

    kind : "oracle", or "best open-loop" where only schedules by formula were searched.
    """

    risks: tuple[float, ...]
    lower_bounds: tuple[float, ...] | None
    kind: str


def oracle_risks(
    instance: Instance,
    method: UnifiedMomentum,
    horizons: Sequence[int],
    *,
    stages: int | None = None,
) -> Oracle:
    """`oracle.optimal_schedule` for every horizon: rates ≤ α_0, no floor, `stage_lengths`.

    stages : how many, at most; by default 80, and 40 with momentum.

    Its schedules may rise.  With 80 stages it is as good as 30 stages of free lengths, at a tenth
    of the time.  Where the noise is multiplicative, `best_open_loop`.
    """
    problem, cap = instance.quadratic, instance.rate(method)
    if problem is None:
        return best_open_loop(instance, method, horizons)
    if stages is None:
        stages = _STAGES_WITH_MOMENTUM if method.momentum else STAGES
    found = []
    for T in horizons:
        lengths = stage_lengths(T, stages)
        found.append(
            oracle.optimal_schedule(
                problem, method, T, len(lengths), cap, lengths=lengths, restarts=1
            )
        )
    return Oracle(
        tuple(each.risk for each in found), tuple(each.lower_bound for each in found), "oracle"
    )


def best_open_loop(instance: Instance, method: UnifiedMomentum, horizons: Sequence[int]) -> Oracle:
    """The least exact risk over every shape and parameter of `open_loop.SHAPES`."""
    if not isinstance(instance.world, LeastSquares) and instance.quadratic is None:
        raise TypeError(f"the risk of {instance.name} is not known in closed form")
    first, risks = instance.rate(method), []
    for T in horizons:
        rates = np.array(
            [shape.rates(first, T, p) for shape in SHAPES for p in shape.grid], dtype=np.float64
        )
        risks.append(float(expected_risks(instance.world, method, rates, [T]).min()))
    return Oracle(tuple(risks), None, "best open-loop")
