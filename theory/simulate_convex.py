"""Batched trajectories of momentum methods on convex Lipschitz problems, in torch, on any device.

The updates are the paper's eq. (9) literally, with x and yˢ, and torch's buffer of gradients; the
bounds use other forms of both, so that agreement is evidence for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from theory import checks, ranks
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.problems.convex import ConvexProblem
from theory.schedules import StepwiseSchedule

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ConvexEnsemble", "run"]

# Numbers of one block of trajectories: small enough for a CPU's cache, large enough for a GPU.
_BLOCK_NUMBERS = {"cpu": 1 << 18, "cuda": 1 << 26}

Step = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def _block_rows(problem: ConvexProblem, device: torch.device) -> int:
    """Trajectories that are advanced together."""
    numbers = _BLOCK_NUMBERS.get(device.type, _BLOCK_NUMBERS["cpu"])
    return max(1, numbers // problem.footprint)


@dataclass(frozen=True, eq=False)
class ConvexEnsemble:
    """Gaps f(x_t) − f(x̂) of B independent trajectories; float64 on the host, in units of f.

    They are relative to `problem.minimum`, so rounding or an inexact x̂ can make them negative, by
    at most `problem.optimality_gap` and the rounding of `value`.

    Attributes
    ----------
    times : (M,), the recorded t: 0, k, 2k, … < T with k = record_every.
    mean : (M,), over the trajectories; estimates F_t = E f(x_t) − f(x̂).
    variance : (M,), over the trajectories, unbiased; NaN for B = 1.
    average : (B,), Σ w_t gap_t/Σ w_t over t = 0 … T−1; None if record_every > 1.
    last : (B,), the gap at x_T, after the last update.
    before_last : (B,), the gap at x_{T−1}, the last one that the bounds average over.
    """

    times: NDArray[np.int64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    average: NDArray[np.float64] | None
    last: NDArray[np.float64]
    before_last: NDArray[np.float64]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Of `mean`, shape (M,)."""
        return np.sqrt(self.variance / len(self.last))


def run(
    problem: ConvexProblem,
    method: UnifiedMomentum | TorchMomentum,
    schedule: StepwiseSchedule,
    *,
    trajectories: int,
    seed: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    weights: ArrayLike | None = None,
    record_every: int = 1,
    group: ProcessGroup | None = None,
) -> ConvexEnsemble:
    """x_{t+1} of UAI 2024, eq. (9), or of torch's SGD, from x_0 for t < T; B trajectories.

    Parameters
    ----------
    trajectories : B ≥ 1.
    seed : blocks of trajectories draw from generators of their own, derived from (seed, block), so
        a run is reproducible for given problem, B and kind of device, on any number of ranks;
        nothing is seeded globally.
    dtype : of the iterates and of f; the statistics are float64.
    weights : w_t of `ConvexEnsemble.average`, shape (T,), of positive sum; None: w_t = α_t.
    record_every : k ≥ 1; f is evaluated at every k-th iterate, at a cost of O(Nn) for finite sums.
    group : the ranks that share the blocks out, each of which gets the whole result; see
        `theory.ranks`.  None: this process computes everything, whatever is initialized.

    Raises
    ------
    TypeError
        If problem, method or schedule is something else.
    ValueError
        If an argument is out of range, or weights are given with record_every > 1; or if the
        ranks were called with different arguments.
    OverflowError
        If a gap or its square is not finite.

    Source: UAI 2024, eq. (9), (11).
    """
    with ranks.agreement(group) as same:
        checks.instance("problem", problem, ConvexProblem)
        if not isinstance(method, UnifiedMomentum | TorchMomentum):
            raise TypeError(f"method must be a UnifiedMomentum or a TorchMomentum, got {method!r}")
        checks.instance("schedule", schedule, StepwiseSchedule)
        trajectories = checks.positive_integer("trajectories", trajectories)
        record_every = checks.positive_integer("record_every", record_every)
        device = torch.device(device)
        rates = np.asarray(schedule, dtype=np.float64)
        w = _shares(rates, weights, record_every)
        size = _block_rows(problem, device)
        same.update(function="simulate_convex.run", problem=problem, method=method)
        same.update(schedule=schedule, trajectories=trajectories, seed=seed, dtype=dtype, weights=w)
        same.update({"kind of device": device.type, "record_every": record_every})

    def block(index: int) -> _Block:
        stream = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        generator = torch.Generator(device).manual_seed(int(stream[0] >> np.uint64(1)))
        rows = min(size, trajectories - index * size)
        x = torch.tensor(problem.start, dtype=dtype, device=device).repeat(rows, 1)
        return _run_block(problem, method, x, rates, w, record_every, generator)

    blocks = ranks.spread(block, -(-trajectories // size), group)
    moments = _RunningMoments()
    for part in blocks:  # in order, whatever rank did which
        moments.add(len(part.rows[0]), part.mean, part.square)
    average, before_last, last = (
        np.concatenate([part.rows[i] for part in blocks]) for i in range(3)
    )
    if not (moments.finite and np.isfinite(last).all()):
        raise OverflowError(f"a gap f(x_t) - minimum, or its square, is not finite in {dtype}")
    return ConvexEnsemble(
        times=np.arange(0, len(rates), record_every),
        mean=moments.mean,
        variance=moments.variance,
        average=average if record_every == 1 else None,
        last=last,
        before_last=before_last,
    )


def _shares(
    rates: NDArray[np.float64], weights: ArrayLike | None, record_every: int
) -> NDArray[np.float64]:
    """w_t/Σ w, after checks."""
    if weights is None:
        return rates / rates.sum()
    if record_every > 1:
        raise ValueError(f"weights need every gap: record_every must be 1, got {record_every}")
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != rates.shape:
        raise ValueError(f"weights must have shape {rates.shape}, got {w.shape}")
    if not 0 < w.sum() < np.inf:
        raise ValueError(f"weights must have a positive, finite sum, got {w.sum()}")
    return w / w.sum()


class _RunningMoments:
    """Mean and variance over blocks of rows (Chan, Golub and LeVeque, 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(1)
        self._square = np.zeros(1)

    def add(self, rows: int, mean: NDArray[np.float64], square: NDArray[np.float64]) -> None:
        """`square` is Σ (gap − mean)² over the rows of the block."""
        total = self.count + rows
        with np.errstate(over="ignore", invalid="ignore"):  # `finite` tells
            δ = mean - self.mean
            self._square = self._square + square + δ**2 * (self.count * rows / total)
            self.mean = self.mean + δ * (rows / total)
        self.count = total

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.mean).all() and np.isfinite(self._square).all())

    @property
    def variance(self) -> NDArray[np.float64]:
        if self.count == 1:
            return np.full_like(self.mean, np.nan)
        return self._square / (self.count - 1)


@dataclass(frozen=True, eq=False)
class _Block:
    """Statistics of a block: (M,) mean and Σ (gap − mean)², and per row (average, x_{T−1}, x_T)."""

    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    rows: tuple[NDArray[np.float64], ...]


def _moments(gaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and Σ (gap − mean)², whatever the number of threads: torch's sums depend on it."""
    if gaps.device.type != "cpu":
        mean = gaps.mean()
        return mean, ((gaps - mean) ** 2).sum()
    values = gaps.numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # the caller tells
        center = values.mean()
        return torch.tensor(center), torch.tensor(((values - center) ** 2).sum())


def _unified(method: UnifiedMomentum, x: torch.Tensor) -> Step:
    """Eq. (9): y' = x − αG, yˢ' = x − sαG, x' = y' + β(yˢ' − yˢ), with yˢ_0 = x_0."""
    β, s = float(method.momentum), float(method.s)
    ys = x

    def step(x: torch.Tensor, G: torch.Tensor, α: float) -> torch.Tensor:
        nonlocal ys
        y, previous = x - α * G, ys
        ys = x - s * α * G
        return y + β * (ys - previous)

    return step


def _torch_momentum(method: TorchMomentum, x: torch.Tensor) -> Step:
    """m' = βm + G, x' = x − αm', or x − α(G + βm') with nesterov, from m = 0."""
    β = float(method.momentum)
    m = torch.zeros_like(x)

    def step(x: torch.Tensor, G: torch.Tensor, α: float) -> torch.Tensor:
        nonlocal m
        m = β * m + G
        return x - α * (G + β * m if method.nesterov else m)

    return step


def _run_block(
    problem: ConvexProblem,
    method: UnifiedMomentum | TorchMomentum,
    x: torch.Tensor,
    rates: NDArray[np.float64],
    w: NDArray[np.float64],
    record_every: int,
    generator: torch.Generator,
) -> _Block:
    here = problem.on(x)
    step = (
        _unified(method, x) if isinstance(method, UnifiedMomentum) else _torch_momentum(method, x)
    )

    def gap(x: torch.Tensor) -> torch.Tensor:
        return here.value(x).double() - problem.minimum

    means, squares = [], []
    average = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    before_last = average
    last_t = len(rates) - 1
    for t, (α, share) in enumerate(zip(rates.tolist(), w.tolist(), strict=True)):
        if t % record_every == 0 or t == last_t:
            gaps = gap(x)
            before_last = gaps
            if t % record_every == 0:
                mean, square = _moments(gaps)
                means.append(mean)
                squares.append(square)
                average = average + share * gaps
        x = step(x, here.stochastic_subgradient(x, generator), α)
    host = (part.cpu().numpy() for part in (average, before_last, gap(x)))
    return _Block(
        mean=torch.stack(means).cpu().numpy(),
        square=torch.stack(squares).cpu().numpy(),
        rows=tuple(host),
    )
