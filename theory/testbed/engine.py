"""Many contenders on the same noise: batched runs of Unified Momentum with a rule in the loop.

All contenders of a trajectory meet the same samples, so that their differences have little noise.
Trajectories are advanced in blocks with generators of their own: a result depends on (seed, number
of trajectories), not on the contenders beside it, nor on processes.

Float64: a slow mode with α a x below eps·x would not move at all in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import checks
from theory.methods import UnifiedMomentum
from theory.schedules import StepwiseSchedule
from theory.testbed.contenders import Contender, Observation
from theory.testbed.worlds import World

__all__ = ["BLOCK", "Drops", "Run", "simulate"]

Array = NDArray[np.float64]

BLOCK = 50  # trajectories advanced together: large enough for numpy, small enough for a cache
_CHUNK = 64  # iterations whose samples are drawn at once
# Of the first rate: with less nothing moves any more, and after enough drops it would underflow.
_LEAST = 1e-30


class Drops(NamedTuple):
    """Drops of all trajectories, in the order of time; each (D,).

    iteration : updates done.   trajectory : which.   rate : after it.
    """

    iteration: NDArray[np.int64]
    trajectory: NDArray[np.int64]
    rate: Array

    def of(self, trajectory: int) -> tuple[NDArray[np.int64], Array]:
        """(iteration, rate) of one trajectory."""
        mine = self.trajectory == trajectory
        return self.iteration[mine], self.rate[mine]


@dataclass(frozen=True, eq=False)
class Run:
    """One contender on S trajectories.

    Attributes
    ----------
    horizons : T_1 < … < T_H.
    risk : (S, H), f(x_T) − f*.
    rate : (S, H), the rate after T updates.
    drops : until the last horizon.
    first_rate : α_0.
    """

    horizons: tuple[int, ...]
    risk: Array
    rate: Array
    drops: Drops
    first_rate: float

    def schedule(self, trajectory: int) -> StepwiseSchedule:
        """The schedule that was realised on one trajectory, up to the last horizon."""
        at, rates = self.drops.of(trajectory)
        T = self.horizons[-1]
        inside = at < T
        edges = np.concatenate([[0], at[inside], [T]])
        return StepwiseSchedule([self.first_rate, *rates[inside].tolist()], np.diff(edges).tolist())


def simulate(
    world: World,
    method: UnifiedMomentum,
    contenders: Sequence[Contender],
    *,
    learning_rate: float | Sequence[float],
    horizons: Sequence[int],
    trajectories: int,
    seed: int,
) -> tuple[Run, ...]:
    """UAI 2024, eq. (9), with the rate of every trajectory set by its contender.

    Parameters
    ----------
    learning_rate : α_0, one for all or one for each contender.
    horizons : iterations at which the risk is read, ascending; the last one ends the run.
    trajectories : S ≥ 1, for each contender.
    seed : of the samples.

    Returns one `Run` for each contender.  A rate never falls below 1e-30 of the first one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range, or a contender returns factors that are
        not of shape (S,) or do not lie in (0, 1].
    OverflowError
        If a risk is not finite.
    """
    checks.instance("method", method, UnifiedMomentum)
    S = checks.positive_integer("trajectories", trajectories)
    at = [checks.positive_integer("every horizon", T) for T in horizons]
    if not at or at != sorted(set(at)):
        raise ValueError(f"horizons must ascend and be at least one, got {list(horizons)}")
    if not contenders:
        raise ValueError("contenders must be at least one, got none")
    first = np.asarray(learning_rate, dtype=np.float64)
    if first.shape not in ((), (len(contenders),)) or not ((first > 0) & np.isfinite(first)).all():
        raise ValueError(
            f"learning_rate must be one or {len(contenders)} numbers, finite and > 0, "
            f"got {learning_rate}"
        )
    first = np.broadcast_to(first, (len(contenders),))
    blocks = [
        _block(world, method, contenders, first, at, range(s, min(s + BLOCK, S)), seed)
        for s in range(0, S, BLOCK)
    ]
    runs = []
    for α, *parts in zip(first.tolist(), *blocks, strict=True):
        risk, rate = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("risk", "rate")
        )
        joined = [np.concatenate(column) for column in zip(*(p.drops for p in parts), strict=True)]
        order = np.argsort(joined[0], kind="stable")
        drops = Drops(*(column[order] for column in joined))
        runs.append(Run(tuple(at), risk, rate, drops, α))
        if not np.isfinite(risk).all():
            raise OverflowError(f"a risk is not finite, from the first rate {α} on")
    return tuple(runs)


class _Log:
    """The drops of one contender, as they come."""

    def __init__(self) -> None:
        self.parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Array]] = []

    def add(self, t: int, dropped: NDArray[np.bool_], rates: Array, first: int) -> None:
        which = np.flatnonzero(dropped)
        self.parts.append((np.full(len(which), t), which + first, rates[which]))

    def drops(self) -> Drops:
        if not self.parts:
            return Drops(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        return Drops(*(np.concatenate(column) for column in zip(*self.parts, strict=True)))


def _checked(contender: Contender, factors: Array, S: int) -> Array:
    factors = np.asarray(factors, dtype=np.float64)
    if factors.shape != (S,) or not ((factors > 0) & (factors <= 1)).all():
        raise ValueError(
            f"{contender.name} must return None or {S} factors in (0, 1], got {factors!r}"
        )
    return factors


class _State:
    """The iterates of R contenders on S trajectories, and the update that they share.

    x' = x + βd − PαG, d' = βd − QαG, as in `theory.methods.UnifiedMomentum`.
    """

    def __init__(self, world: World, method: UnifiedMomentum, R: int, S: int) -> None:
        self.world = world
        self.β, (self.P, self.Q) = float(method.momentum), map(float, method.gains)
        self.x = np.tile(world.start, (R, S, 1))
        self.previous, self.G, self.scratch = (np.empty_like(self.x) for _ in "pGs")
        self.d = np.zeros_like(self.x) if self.β else None

    def advance(self, sample: Any, rates: Array) -> None:
        """One update; what was x is then `previous`, and G is the gradient there."""
        x, new, step, d = self.x, self.previous, self.scratch, self.d
        self.G = self.world.gradient(x, sample, self.G)
        np.multiply(self.G, rates[:, :, None], out=step)
        if d is None:
            np.subtract(x, step, out=new)
        else:
            d *= self.β
            np.add(x, d, out=new)
            new -= self.P * step
            d -= self.Q * step
        self.x, self.previous = new, x


def _block(
    world: World,
    method: UnifiedMomentum,
    contenders: Sequence[Contender],
    first_rates: Array,
    horizons: list[int],
    which: range,
    seed: int,
) -> list[Run]:
    R, S, T = len(contenders), len(which), horizons[-1]
    rng, origin = np.random.default_rng([seed, which.start]), world.minimiser
    state = _State(world, method, R, S)
    rates = np.tile(first_rates[:, None], S)
    least = _LEAST * first_rates
    weights = state.x + origin
    observers = [each.start(weights[r], rates[r].copy()) for r, each in enumerate(contenders)]
    logs = [_Log() for _ in contenders]
    risk, rate = np.empty((2, R, S, len(horizons)))
    samples: Any = ()
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(1, T + 1):
            place = (t - 1) % _CHUNK
            if place == 0:
                samples = world.draw(rng, min(_CHUNK, T - t + 1), S)
            state.advance(samples[place], rates)
            for r, observe in enumerate(observers):
                seen = Observation(
                    t,
                    rates[r],
                    state.G[r],
                    state.x[r],
                    state.previous[r],
                    samples[place],
                    world,
                    origin,
                )
                if (factors := observe(seen)) is not None:
                    lower = np.maximum(rates[r] * _checked(contenders[r], factors, S), least[r])
                    if (dropped := lower < rates[r]).any():
                        rates[r] = lower
                        logs[r].add(t, dropped, lower, which.start)
            if t in horizons:
                h = horizons.index(t)
                risk[:, :, h], rate[:, :, h] = world.risk(state.x), rates
    return [
        Run(tuple(horizons), risk[r], rate[r], logs[r].drops(), first_rates[r]) for r in range(R)
    ]
