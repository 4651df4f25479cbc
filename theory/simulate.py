"""Batched trajectories of Unified Momentum on the noisy quadratic, in torch, on any device.

The update is the paper's eq. (9) literally, with x and yˢ (the exact moments use another form of
the recursion), so that agreement of the two is evidence for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from theory import checks, linear, ranks
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Ensemble", "block_entries", "run"]

# Entries of one block of trajectories: small enough for a CPU's cache, large enough for a GPU.
_BLOCK_ENTRIES = {"cpu": 1 << 14, "cuda": 1 << 23}


def block_entries(device: str | torch.device) -> int:
    """Rows × n of a block of trajectories that are advanced together."""
    return _BLOCK_ENTRIES.get(torch.device(device).type, _BLOCK_ENTRIES["cpu"])


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Independent trajectories, B of them; all arrays are float64 on the host, angles in radians.

    With k the window, T the iterations and W = ⌊T/k⌋ − 2; u and v as in `theory.moments.Evolution`.

    Attributes
    ----------
    risk : (⌊T/k⌋ + 1, B), f(x_t) at t = 0, k, 2k, …
    inner : (W, B), ⟨u, v⟩.
    squared_norm : (W + 1, B), ‖y_{i+1} − y_i‖² for i = 0 … W.
    final : (B, n), x_T.
    """

    risk: NDArray[np.float64]
    inner: NDArray[np.float64]
    squared_norm: NDArray[np.float64]
    final: NDArray[np.float64]

    @property
    def cosine(self) -> NDArray[np.float64]:
        """⟨u, v⟩/(‖u‖‖v‖), shape (W, B)."""
        return self.inner / np.sqrt(self.squared_norm[:-1] * self.squared_norm[1:])

    @property
    def angle(self) -> NDArray[np.float64]:
        """∠(u, v) in radians, shape (W, B)."""
        return np.arccos(np.clip(self.cosine, -1.0, 1.0))


def run(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    schedule: StepwiseSchedule,
    *,
    trajectories: int,
    seed: int,
    window: int = 1,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    from_stationary: bool = False,
    group: ProcessGroup | None = None,
) -> Ensemble:
    """x_{t+1} of UAI 2024, eq. (9) with G_t = a(x_t − c_t), c_t ~ N(0, v), for B trajectories.

    Parameters
    ----------
    trajectories : B ≥ 1.
    seed : blocks of trajectories draw from generators of their own, derived from (seed, block), so
        a run is reproducible for given problem, B and kind of device, on any number of ranks;
        nothing is seeded globally.
    window : k ≥ 1; the run must have T ≥ 3k iterations.
    dtype : of the iterates and of all sums over modes and windows.  In float32 the difference of
        two window means keeps only what the iterates' rounding leaves of it.
    from_stationary : draw (x_0, d_0) from the stationary law at the first rate.
    group : the ranks that share the blocks out, each of which gets the whole result; see
        `theory.ranks`.  None: this process computes everything, whatever is initialized.

    Raises
    ------
    TypeError
        If problem, method or schedule is something else.
    ValueError
        If an argument is out of range, or `from_stationary` and the rate is unstable; or if the
        ranks were called with different arguments.
    OverflowError
        If an iterate is not finite.

    Source: UAI 2024, eq. (3), (9), (11) and Definition 3.3.
    """
    with ranks.agreement(group) as same:
        checks.instance("problem", problem, NoisyQuadratic)
        checks.instance("method", method, UnifiedMomentum)
        checks.instance("schedule", schedule, StepwiseSchedule)
        trajectories = checks.positive_integer("trajectories", trajectories)
        window = checks.positive_integer("window", window)
        if len(schedule) < 3 * window:
            raise ValueError(
                "an angle needs three windows: len(schedule) must be >= 3 * window = "
                f"{3 * window}, got {len(schedule)}"
            )
        device = torch.device(device)
        size = max(1, block_entries(device) // problem.dimension)
        same.update(function="simulate.run", problem=problem, method=method, schedule=schedule)
        same.update(trajectories=trajectories, seed=seed, window=window, dtype=dtype)
        same.update({"kind of device": device.type, "from_stationary": from_stationary})

    def block(index: int) -> tuple[NDArray[np.float64], ...]:
        generator = torch.Generator(device)
        stream = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        generator.manual_seed(int(stream[0] >> np.uint64(1)))
        rows = min(size, trajectories - index * size)
        start = _Block(problem, method, rows, generator, dtype)
        return start.run(schedule, window, from_stationary)

    blocks = ranks.spread(block, -(-trajectories // size), group)
    risk, inner, squared_norm, final = zip(*blocks, strict=True)
    ensemble = Ensemble(
        risk=np.concatenate(risk, axis=1),
        inner=np.concatenate(inner, axis=1),
        squared_norm=np.concatenate(squared_norm, axis=1),
        final=np.concatenate(final, axis=0),
    )
    if not np.isfinite(ensemble.risk).all():
        raise OverflowError(
            "an iterate is not finite: max learning_rate * max curvature is "
            f"{max(schedule.rates) * problem.curvature.max()}, stable is < {method.max_stable_step}"
        )
    return ensemble


class _Block:
    """The state of a block of trajectories that are advanced together."""

    def __init__(
        self,
        problem: NoisyQuadratic,
        method: UnifiedMomentum,
        rows: int,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        self.problem, self.method, self.generator = problem, method, generator
        self.like: dict[str, Any] = {"dtype": dtype, "device": generator.device}
        self.a = self._tensor(problem.curvature)
        self.noise = self._tensor(-problem.curvature * np.sqrt(problem.noise_variance))
        self.β, self.s = float(method.momentum), float(method.s)
        self.x = self._tensor(problem.start).repeat(rows, 1)
        self.ys = self.x.clone()
        self.G = torch.empty_like(self.x)
        self.scratch = torch.empty_like(self.x)

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(array, dtype=np.float64), **self.like)

    def _start_stationary(self, learning_rate: float) -> None:
        h = linear.require_stable(self.problem, learning_rate, self.method)
        S = linear.stationary_covariance(h, self.problem.noise_variance, self.method)
        S = np.asarray(S, dtype=np.float64)
        # (x, d) = (l_xx g, l_dx g + l_dd g'), the Cholesky factor of S; S_xx = 0 without noise.
        l_xx = np.sqrt(S[:, 0, 0])
        l_dx = np.divide(S[:, 1, 0], l_xx, out=np.zeros_like(l_xx), where=l_xx > 0)
        l_dd = np.sqrt(np.maximum(S[:, 1, 1] - l_dx**2, 0))
        g, g2 = (torch.randn(self.x.shape, generator=self.generator, **self.like) for _ in "xd")
        self.x = g * self._tensor(l_xx)
        self.ys = self.x - g * self._tensor(l_dx) - g2 * self._tensor(l_dd)

    def _update(self, α: float) -> None:
        """Eq. (9), in place: y = x − αG, yˢ' = x − sαG, x' = y + β(yˢ' − yˢ)."""
        x, G, β = self.x, self.G, self.β
        torch.randn(x.shape, generator=self.generator, out=G, **self.like)
        G.mul_(self.noise).addcmul_(x, self.a)  # a x − a c
        if β == 0:
            x.add_(G, alpha=-α)
            return
        torch.add(x, G, alpha=-self.s * α, out=self.scratch)
        x.add_(G, alpha=-α).add_(self.scratch, alpha=β).sub_(self.ys, alpha=β)
        self.ys, self.scratch = self.scratch, self.ys

    def _risk(self) -> torch.Tensor:
        # A matrix product would round otherwise with another number of threads.
        return torch.linalg.vecdot(self.x * self.a, self.x).double() / 2

    def run(
        self, schedule: StepwiseSchedule, window: int, from_stationary: bool
    ) -> tuple[NDArray[np.float64], ...]:
        rates = np.asarray(schedule, dtype=np.float64)
        if from_stationary:
            self._start_stationary(float(rates[0]))
        total = torch.zeros_like(self.x)
        mean = total
        previous: torch.Tensor | None = None
        step: torch.Tensor | None = None
        risk, inner, squared_norm = [], [], []
        for t, α in enumerate(rates.tolist()):
            if t % window == 0:
                risk.append(self._risk())
            if window == 1:
                mean = self.x.clone()
            else:
                total += self.x
                if (t + 1) % window == 0:
                    mean = total / window
                    total.zero_()
            if (t + 1) % window == 0:
                if previous is not None:
                    last, step = step, mean - previous
                    squared_norm.append(torch.linalg.vecdot(step, step).double())
                    if last is not None:
                        inner.append(torch.linalg.vecdot(last, step).double())
                previous = mean
            self._update(α)
        if len(rates) % window == 0:
            risk.append(self._risk())
        stacked = (torch.stack(part).cpu().numpy() for part in (risk, inner, squared_norm))
        return (*stacked, self.x.double().cpu().numpy())
