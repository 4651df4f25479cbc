"""What exact moments cost: `python -m benchmarks.moments`.

`theory.moments.evolve` on n = 200 modes over 10⁶ iterations in three stages, with Nesterov's
momentum: seconds by window, and the ratio to window 64, paired, median over repetitions.
"""

from __future__ import annotations

import argparse
import statistics
import time

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments

WINDOWS = (64, 1024, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    problem, method = NoisyQuadratic.paper(), UnifiedMomentum.nesterov(0.5)
    schedule = StepwiseSchedule([0.06, 0.03, 0.01], [300_000, 300_000, 400_000])
    seconds: dict[int, list[float]] = {window: [] for window in WINDOWS}
    for _ in range(repetitions):
        for window in WINDOWS:
            start = time.perf_counter()
            moments.evolve(problem, method, schedule, window)
            seconds[window].append(time.perf_counter() - start)
    print("window  seconds  ratio to window 64")
    for window in WINDOWS:
        pairs = zip(seconds[window], seconds[64], strict=True)
        ratio = statistics.median(own / base for own, base in pairs)
        print(f"{window:6d}  {statistics.median(seconds[window]):7.3f}  {ratio:6.2f}")


if __name__ == "__main__":
    main()
