"""AutoDrop's published rules on the test bed: vectorised, and as they are.

`Gaussian`, `MovingAverage` and `Snapshots` are `autodrop.rules.uai2024`, `nqm2024` and `arxiv2021`
for many trajectories at once; `Scalar` runs any `autodrop.rules.Rule`, trajectory by trajectory.
They agree, drop for drop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrop import rules
from autodrop.angle import angle_between
from autodrop.array_motion import ArrayMotion
from autodrop.motion import Motion
from autodrop.rules import Rule
from theory import checks
from theory.testbed.contenders import Observation, Observe, lowered, row_dot

__all__ = ["Gaussian", "MovingAverage", "Scalar", "Snapshots", "window_angles"]

Array = NDArray[np.float64]

_SQUARE_DEGREES = (180 / np.pi) ** 2


class _Tracking:
    """Which trajectories have an angle: three windows since the start, or since one stood still."""

    def __init__(self, trajectories: int) -> None:
        self.known = np.zeros(trajectories, dtype=np.int64)

    def close(self, moved: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """One more window, which moved or did not."""
        ready = (self.known == 2) & moved
        still = ~moved & (self.known > 0)
        self.known = np.where(still, 0, np.minimum(self.known + 1, 2))
        return ready


def window_angles(weights: Array, window: int) -> Callable[[Observation], Array | None]:
    """ω_i of windows of k iterates, Definition 3.3, in radians: after each update None or (S,).

    nan where three windows are not known, or one of them did not move.  From inner products: right
    to 1e-8.
    """
    tracking = _Tracking(len(weights))
    total, previous = weights.copy(), weights
    last = pending = np.zeros_like(weights)
    last_square = np.zeros(len(weights))

    def see(seen: Observation) -> Array | None:
        nonlocal total, previous, pending, last, last_square
        if window == 1:
            # Window i is x_i, closed by update i + 1: the step to it is that of the update before.
            step, pending = pending, seen.step
        elif seen.updates % window:
            np.add(total, seen.weights, out=total)
            return None
        else:
            step = total - previous
            previous, total = total, seen.weights
        square = row_dot(step, step)
        ready = tracking.close(square > 0)
        ω = np.full(len(square), np.nan)
        if ready.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                c = row_dot(step, last) / (np.sqrt(square) * np.sqrt(last_square))
            c = np.clip(c, -1.0, 1.0)
            ω[ready] = (2 * np.arctan2(np.sqrt(1 - c), np.sqrt(1 + c)))[ready]
        last, last_square = step, square
        return ω

    return see


class _Tail:
    """The last m values of each trajectory, oldest first; how many since it was emptied."""

    def __init__(self, trajectories: int, length: int) -> None:
        self.values = np.zeros((trajectories, length))
        self.count = np.zeros(trajectories, dtype=np.int64)

    def append(self, value: Array) -> None:
        known = ~np.isnan(value)
        if not known.any():
            return
        if known.all():
            self.values[:, :-1] = self.values[:, 1:]
            self.values[:, -1] = value
        else:
            self.values[known, :-1] = self.values[known, 1:]
            self.values[known, -1] = value[known]
        self.count += known


def _angles(tracking: _Tracking, step: Array, last: Array) -> Array:
    """Radians, nan where there is none."""
    ω = np.full(len(step), np.nan)
    ready = tracking.close((step != 0).any(axis=1))
    if ready.any():
        ω[ready] = angle_between(step[ready], last[ready])
    return ω


@dataclass(frozen=True)
class Gaussian:
    """Algorithm 1 of UAI 2024, `autodrop.rules.uai2024` with smoothing over time.

    window : k.  factor, min_lr : ρ and α̲.  threshold : degrees.  buffer : m.
    """

    window: int = 64
    factor: float = 0.95
    min_lr: float = 0.0
    threshold: float = 0.1
    buffer: int = 10
    name: str = ""

    def __post_init__(self) -> None:
        rules.uai2024(
            self.window, self.factor, self.min_lr, threshold=self.threshold, buffer=self.buffer
        )  # checks
        if not self.name:
            object.__setattr__(self, "name", f"uai2024 k={self.window} ρ={self.factor:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        m = self.buffer
        angles = window_angles(weights, self.window)
        tail = _Tail(len(weights), m)
        smoothed = np.full(len(weights), np.nan)
        ages = -0.5 * np.arange(m - 1, -1, -1.0) ** 2
        threshold = np.radians(self.threshold)

        def observe(seen: Observation) -> Array | None:
            nonlocal smoothed
            ω = angles(seen)
            if ω is None:
                return None
            tail.append(ω)
            ready = (tail.count >= m) & ~np.isnan(ω)
            if not ready.any():
                return None
            # With differences from the last angle, equal angles give exactly that angle and σ = 0.
            last = tail.values[:, -1]
            D = tail.values - last[:, None]
            variance = np.maximum(row_dot(D, D) / m - (D.sum(axis=1) / m) ** 2, 0.0)
            σσ = np.minimum(_SQUARE_DEGREES * variance, m * m / 4)
            with np.errstate(divide="ignore", invalid="ignore"):
                K = np.exp(ages / σσ[:, None])
            K[:, -1] = 1.0  # also where σ = 0
            C = last + row_dot(K, D) / K.sum(axis=1)
            drop = ready & (C - smoothed < threshold)  # False where there is no C before
            smoothed = np.where(drop, np.nan, np.where(ready, C, smoothed))
            tail.count[drop] = 0
            return lowered(drop, self.factor, seen.rates, self.min_lr)

        return observe


@dataclass(frozen=True)
class MovingAverage:
    """The rule of UAI 2024, Section 3, `autodrop.rules.nqm2024`; with its floor of 0.001."""

    factor: float = 0.5
    min_lr: float = 0.001
    threshold: float = 0.01
    length: int = 20
    name: str = ""

    def __post_init__(self) -> None:
        rules.nqm2024(self.factor, self.min_lr, threshold=self.threshold, length=self.length)
        if not self.name:
            object.__setattr__(self, "name", f"nqm2024 ρ={self.factor:g} floor={self.min_lr:g}")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        L = self.length
        angles = window_angles(weights, 1)
        tail = _Tail(len(weights), L + 1)
        threshold = np.radians(self.threshold)

        def observe(seen: Observation) -> Array | None:
            ω = angles(seen)
            if ω is None:
                return None
            tail.append(ω)
            change = np.abs(tail.values[:, -1] - tail.values[:, 0]) / L
            drop = (tail.count > L) & ~np.isnan(ω) & (change < threshold)
            tail.count[drop] = 0
            return lowered(drop, self.factor, seen.rates, self.min_lr)

        return observe


@dataclass(frozen=True)
class Snapshots:
    """The rule of arXiv 2111.15317, `autodrop.rules.arxiv2021`, without its averages.

    window : updates per epoch.
    """

    window: int = 64
    factor: float = 0.2
    min_lr: float = 1e-4
    threshold: float = 0.01
    max_threshold: float = 1.0
    wait: int = 20
    name: str = ""

    def __post_init__(self) -> None:
        rules.arxiv2021(
            self.window,
            self.factor,
            self.min_lr,
            threshold=self.threshold,
            max_threshold=self.max_threshold,
            wait=self.wait,
        )
        if not self.name:
            label = f"arxiv2021 k={self.window} ρ={self.factor:g} floor={self.min_lr:g}"
            object.__setattr__(self, "name", label)

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        S, k = len(weights), self.window
        tracking = _Tracking(S)
        previous, step = weights, np.zeros_like(weights)
        before = np.full(S, np.nan)
        threshold = np.full(S, self.threshold)
        waited = np.zeros(S, dtype=np.int64)

        def observe(seen: Observation) -> Array | None:
            nonlocal previous, step, before, threshold, waited
            place = seen.updates % k
            if place == 1 % k:
                now, last = seen.weights, step
                step, previous = now - previous, now
                ω = _angles(tracking, step, last)
                saturated = np.abs(np.degrees(ω - before)) < threshold  # False for nan
                before = np.where(np.isnan(ω), before, ω)
                waited = np.where((waited > 0) | saturated, waited + 1, 0)
            if place != 2 % k:
                return None
            drop = waited >= max(self.wait, 1)
            waited = np.where(drop, 0, waited)
            threshold = np.where(
                drop, np.minimum(self.max_threshold, threshold / self.factor), threshold
            )
            return lowered(drop, self.factor, seen.rates, self.min_lr)

        return observe


@dataclass(frozen=True)
class Scalar:
    """Any `autodrop.rules.Rule`, by its own code, one trajectory after the other.

    For the detectors that have no vectorised form; a rule that averages iterates is refused.
    """

    rule: Rule = field(default_factory=rules.uai2024)
    name: str = "rule"

    def __post_init__(self) -> None:
        checks.instance("rule", self.rule, Rule)
        if self.rule.policy.average:
            raise ValueError("a contender cannot replace weights: policy.average must be False")

    def start(self, weights: Array, rates: Array) -> Observe:
        """See `Contender`."""
        rule, S = self.rule, len(weights)
        states: list[Any] = [rule.init()] * S
        mean = rule.observation == "mean"
        tracking = _Tracking(S)
        total, previous, step = weights, weights, np.zeros_like(weights)
        motion = ArrayMotion(weights) if rule.sees_motion else None

        def observe(seen: Observation) -> Array | None:
            nonlocal total, previous, step, states
            t, x = seen.updates, seen.weights
            if motion is not None:
                motion.note(x)
            if rule.observes(t):
                y, last = total if mean else x, step
                step, previous = y - previous, y
                ω = _angles(tracking, step, last)
                seen_by: Sequence[float | Motion | None]
                if motion is None:
                    seen_by = [None if np.isnan(angle) else float(angle) for angle in ω]
                else:
                    squares = row_dot(step, step) / rule.window**2
                    squares = np.where(tracking.known == 1, 0.0, squares)
                    squares = np.where(tracking.known == 0, np.nan, squares)
                    plans = [rule.plan(state) for state in states]
                    seen_by = motion.close(x, rule.window, squares, plans)
                states = [
                    rule.observe(state, each) for state, each in zip(states, seen_by, strict=True)
                ]
                total = x
            else:
                total = total + x
            if not rule.acts(t):
                return None
            acted = [rule.act(state) for state in states]
            states = [state for state, _ in acted]
            factors = np.array(
                [
                    rule.policy.lowered((float(α),))[0] / float(α) if decision.drop else 1.0
                    for α, (_, decision) in zip(seen.rates, acted, strict=True)
                ]
            )
            return None if (factors == 1).all() else factors

        return observe
