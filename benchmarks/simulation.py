"""How much of `theory.simulate.run`'s time is drawing the noise: `python -m benchmarks.simulation`.

Draws the same number of normals, in blocks of the same shape, with `torch.randn` alone, and prints
the ratio of the two rates (paired, median over repetitions).  The target, a ratio of at least ½, is
for the default dtype, float64; in float32 normals are so cheap that at window 1 the statistics of
every step cost more than they do.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, simulate

METHODS = {
    "sgd": UnifiedMomentum.sgd(),
    "heavy ball 0.9": UnifiedMomentum.heavy_ball(0.9),
    "nesterov 0.9": UnifiedMomentum.nesterov(0.9),
}


def draw_alone(trajectories: int, n: int, iterations: int, device: str, dtype: torch.dtype) -> None:
    """The normals of a run, and nothing else."""
    rows = max(1, simulate.block_entries(device) // n)
    for first in range(0, trajectories, rows):
        generator = torch.Generator(device)
        generator.manual_seed(first)
        block = torch.empty((min(rows, trajectories - first), n), device=device, dtype=dtype)
        for _ in range(iterations):
            torch.randn(block.shape, generator=generator, out=block, device=device, dtype=dtype)
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trajectories", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    B, T, device = arguments.trajectories, arguments.iterations, arguments.device
    problem, schedule = NoisyQuadratic.paper(), StepwiseSchedule.constant(0.03, T)
    threads = f"{torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device == "cuda" else threads
    print(f"torch {torch.__version__}, {device} ({where}), n = 200, B = {B}, T = {T}")
    print("method          window  dtype     ns/normal alone  ns/normal run  rate ratio")
    for dtype in (torch.float64, torch.float32):
        for name, method in METHODS.items():
            for window in (64, 1):
                alone, full = [], []
                for _ in range(arguments.repetitions):
                    start = time.perf_counter()
                    draw_alone(B, 200, T, device, dtype)
                    middle = time.perf_counter()
                    simulate.run(
                        problem, method, schedule, trajectories=B, seed=0,
                        window=window, device=device, dtype=dtype,
                    )  # fmt: skip
                    alone.append(middle - start)
                    full.append(time.perf_counter() - middle)
                ratio = statistics.median(a / f for a, f in zip(alone, full, strict=True))
                scale = 1e9 / (B * T * 200)
                print(
                    f"{name:15s} {window:6d}  {str(dtype)[6:]:9s} "
                    f"{statistics.median(alone) * scale:15.2f}  "
                    f"{statistics.median(full) * scale:13.2f}  {ratio:10.2f}"
                )


if __name__ == "__main__":
    main()
