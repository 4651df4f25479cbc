"""What the best schedules reach, and what finding them costs: `python -m benchmarks.oracle`.

On the paper's noisy quadratic (n = 200, a_i = i/10, v = 0.02, x_0 = 2), after T iterations of SGD:
the final risk of the oracle under several limits of the rates, of the best of each family of
`theory.reference_schedules`, and of two fixed schedules, with the seconds of the search.  Then one
schedule for several horizons, by horizon, over the oracle that knows it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    UnifiedMomentum,
    final_risk,
    oracle,
    reference_schedules,
)

CAP = 0.0999  # just below 2/a_max = 0.1
FAMILIES = (
    "polynomial",
    "constant_then_harmonic",
    "geometric",
    "halving",
    "cosine",
    "constant",
    "greedy",
)
PROBLEM, SGD = NoisyQuadratic.paper(), UnifiedMomentum.sgd()


class Row(NamedTuple):
    """A schedule by name, its exact final risk, and the seconds that finding it took."""

    name: str
    risk: float
    seconds: float


def timed(name: str, risk: Callable[[], float]) -> Row:
    """The risk, and how long it took."""
    start = time.perf_counter()
    value = risk()
    return Row(name, value, time.perf_counter() - start)


def table(steps: int, stages: int) -> Iterator[Row]:
    """A row for each schedule, as it is found; rates ≤ CAP and no floor unless it says so.

    steps : T.  stages : S of the oracles.
    """

    def best(stages: int, cap: float = CAP, floor: float = 0.0, **options: Any) -> float:
        return oracle.optimal_schedule(PROBLEM, SGD, steps, stages, cap, floor, **options).risk

    def final(rates: Sequence[float]) -> float:
        schedule = StepwiseSchedule(rates, [1] * len(rates))
        return final_risk.final_risk(PROBLEM, SGD, schedule)

    yield timed("no schedule is below", lambda: oracle.lower_bound(PROBLEM, SGD, steps, CAP))
    yield timed(f"oracle, {steps} rates", lambda: best(steps, restarts=1))
    yield timed(f"oracle, {stages} free stages", lambda: best(stages, lengths="free"))
    yield timed(f"oracle, {stages} equal stages", lambda: best(stages))
    yield timed(f"oracle, {stages} equal, rates ≤ 0.06", lambda: best(stages, 0.06))
    yield timed(f"oracle, {stages} equal, floor 0.001", lambda: best(stages, floor=0.001))
    for name in FAMILIES:
        family = getattr(reference_schedules, name)
        yield timed(f"best {name}" if name != "greedy" else name,
                    lambda family=family: family(PROBLEM, SGD, steps, CAP).risk)  # fmt: skip
    falling = np.geomspace(0.06, 0.001, steps).tolist()
    yield timed("geometric, 0.06 → 0.001", lambda: final(falling))
    yield timed("constant, 0.003", lambda: final([0.003] * steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--stages", type=int, default=25)
    parser.add_argument("--horizons", type=int, nargs="+", default=[2000, 4000, 8000, 20_000])
    arguments = parser.parse_args()
    print(f"T = {arguments.steps}, rates ≤ {CAP}\n{'schedule':34s}  final risk  seconds")
    for row in table(arguments.steps, arguments.stages):
        print(f"{row.name:34s}  {row.risk:10.6f}  {row.seconds:7.2f}", flush=True)
    start = time.perf_counter()
    one = oracle.horizon_free_schedule(PROBLEM, SGD, arguments.horizons, arguments.stages, CAP)
    seconds = time.perf_counter() - start
    print("\none schedule for all horizons\n     T  final risk      oracle  ratio")
    for T, risk, each, ratio in zip(one.horizons, one.risks, one.oracles, one.ratios, strict=True):
        print(f"{T:6d}  {risk:10.6f}  {each.risk:10.6f}  {ratio:5.3f}")
    print(f"geometric mean of the ratios {one.mean_ratio:.3f}, in {seconds:.1f} s")


if __name__ == "__main__":
    main()
