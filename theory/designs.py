"""Schedules that make a guarantee smallest: the best rates, the best gaps for given rates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from theory import bounds, checks, multipliers
from theory.constants import constants
from theory.methods import UnifiedMomentum
from theory.schedules import StepwiseSchedule

__all__ = ["best_constant_rate", "best_gaps", "switching_times"]


def best_constant_rate(
    iterations: int,
    method: UnifiedMomentum,
    *,
    distance: float,
    subgradient: float,
    noise: float = 0.0,
) -> float:
    """α = (1−β) R / (√T √(G²+δ²)), in R/G: Theorem A is then R√(G²+δ²)/√T, for β(1−σ) ≤ 1 − β.

    Among all rates, constant or not, none gives a Theorem A below min(F_0, R√V/√T): where e = 0,
    (R²/2 + ½VΣη²)/Ση is at least (R²/2 + VS²/(2T))/S with S = Ση, and this at least R√V/√T.
    """
    T = checks.positive_integer("iterations", iterations)
    checks.instance("method", method, UnifiedMomentum)
    c = constants(distance, None, subgradient, noise)
    if c.second_moment == 0:
        raise ValueError("subgradient and noise must not both be 0")
    return float((1 - method.momentum) * c.R) / float(c.second_moment * T) ** 0.5


def switching_times(rates: Sequence[float], targets: Sequence[float]) -> list[int]:
    """Gaps k_i that make the steps α̂_i follow the decreasing `targets`: nearest in ratio.

    Iteration t takes the rate i with the least |log(α̂_i/targets[t])|; every k_i is at least 1,
    and Σk_i = len(targets).

    Raises ValueError unless both decrease (the targets may stay equal), all are > 0, and there are
    no more rates than targets.
    """
    α, wanted = np.asarray(_decreasing(rates)), np.asarray(targets, float)
    if not (len(wanted) and (wanted > 0).all() and (np.diff(wanted) <= 0).all()):
        raise ValueError(f"targets must be > 0 and not increase, got {list(targets)}")
    if len(α) > len(wanted):
        raise ValueError(f"rates must not be more than the targets, {len(wanted)}, got {len(α)}")
    nearest = np.abs(np.log(α[:, None] / wanted[None, :])).argmin(axis=0)
    edges = [int(np.sum(nearest < i)) for i in range(len(α))]
    n, T = len(α), len(wanted)
    for i in range(1, n):
        edges[i] = min(max(edges[i], edges[i - 1] + 1), T - (n - i))
    return np.diff([*edges, T]).tolist()


def best_gaps(
    rates: Sequence[float],
    iterations: int,
    method: UnifiedMomentum,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
    about: str = "last iterate",
) -> StepwiseSchedule:
    """Gaps k_i ≥ 1, Σk_i = T, for the given rates α̂_0 > α̂_1 > …, that make a guarantee smallest.

    about = "best iterate": Theorem A.  Its value (R²/2 + ½VΣk_iη_i²)/Σk_iη_i is a ratio of two
    functions that are affine in k, so it is smallest at a vertex: one stage gets every iteration
    that is free, all others get one.  No schedule of drops beats a constant rate here.  (Exact as
    long as e = 0.)

    about = "last iterate": Theorem C, by descent: iterations are moved between neighbouring stages
    as long as that helps, from the gaps that follow linear decay (`multipliers.last_iterate_rates`)
    and from each vertex.  A local optimum; the best of all in the small cases compared with it.

    Raises ValueError if the rates are not > 0 and decreasing, T < n, or `about` is something else.
    """
    T = checks.positive_integer("iterations", iterations)
    α = _decreasing(rates)
    n = len(α)
    if n > T:
        raise ValueError(f"iterations must be >= the number of rates, {n}, got {T}")
    given: dict[str, Any] = {
        "distance": distance,
        "subgradient": subgradient,
        "gap": gap,
        "noise": noise,
    }
    vertices = [[1 + (T - n) * (i == j) for j in range(n)] for i in range(n)]
    if about == "best iterate":
        return min(
            (StepwiseSchedule(α, lengths) for lengths in vertices),
            key=lambda schedule: bounds.unified(schedule, method, **given),
        )
    if about != "last iterate":
        raise ValueError(f"about must be 'best iterate' or 'last iterate', got {about!r}")
    targets = multipliers.last_iterate_rates(
        T, method, distance=distance, subgradient=subgradient, noise=noise
    )

    def value(lengths: list[int]) -> float:
        return multipliers.last_iterate(StepwiseSchedule(α, lengths), method, **given)

    def descend(lengths: list[int]) -> tuple[float, list[int]]:
        current = value(lengths)
        step = max(1, T // 2)
        while step:
            moves = [
                [k + step * ((j == b) - (j == a)) for j, k in enumerate(lengths)]
                for a in range(n)
                for b in (a - 1, a + 1)
                if 0 <= b < n and lengths[a] > step
            ]
            best = min(((value(move), move) for move in moves), default=(current, lengths))
            if best[0] < current:
                current, lengths = best
            else:
                step //= 2
        return current, lengths

    starts = [switching_times(α, targets.tolist()), *vertices]
    return StepwiseSchedule(α, min(descend(start) for start in starts)[1])


def _decreasing(rates: Sequence[float]) -> list[float]:
    α = [float(rate) for rate in rates]
    if not α or min(α) <= 0 or any(after >= before for before, after in pairwise(α)):
        raise ValueError(f"rates must be > 0 and decrease, at least one, got {α}")
    return α
