"""The array loop: any rule on any optimizer of plain arrays, one trajectory or a batch of them.

    trajectory = run(update, start, learning_rate=0.06, iterations=2000, rule=rules.nqm2024())

For synthetic problems, where thousands of short trajectories run side by side. Models in torch
take `autodrop.AutoDrop`; both follow the same `Rule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from autodrop.angle import angle_between
from autodrop.array_motion import ArrayMotion
from autodrop.checks import check_integer
from autodrop.motion import Motion
from autodrop.policy import DropEvent
from autodrop.rules import Decision, Rule
from autodrop.warning import warn

__all__ = ["Trajectory", "run"]


@dataclass(frozen=True)
class Trajectory:
    """What `run` saw; B is the number of trajectories, 1 for a start of shape (n,).

    angles: (B, W) float64, degrees; entry i from windows i, i+1, i+2. nan where a window had no
        angle: no movement or no finite iterate (both warned of), or tracking that starts afresh
        after an average.
    learning_rates: (B, T) float64; entry t is the rate of update t → t+1.
    drops: for each trajectory its drops, in order; their angles are degrees.
    end: the iterate after the last update, shaped like the start.
    """

    angles: np.ndarray
    learning_rates: np.ndarray
    drops: tuple[tuple[DropEvent, ...], ...]
    end: Any


def run(
    update: Callable[[int, Any], Any],
    start: Any,
    learning_rate: ArrayLike,
    iterations: int,
    rule: Rule,
    *,
    assign: Callable[[Any], None] | None = None,
) -> Trajectory:
    """x_0 → x_1 → … → x_T, each trajectory dropping its learning rate where `rule` says.

    update: `update(t, learning_rate)` makes the update x_t → x_{t+1} and returns x_{t+1}, of the
        start's shape and library; the optimizer's state lives in the closure, and the array may
        be the same one each time. learning_rate is a float for a start of shape (n,), and for
        (B, n) an array of shape (B, 1), like the start in library, dtype and device.
    start: x_0, a floating-point numpy array or torch tensor of shape (n,) or (B, n).
    learning_rate: the first rate, > 0; one for all or one for each trajectory.
    iterations: T ≥ 0.
    rule: acts on each trajectory by itself; its detector sees radians, or motion.
    assign: `assign(x)` replaces the current iterate by x and leaves all other state alone; needed,
        and only used, when `rule.policy.average`.

    Window sums, steps and angles are float64 whatever the dtype. Warns (RuntimeWarning) of windows
    that have no angle, for each trajectory once until its angles have come back. Raises TypeError
    for a start or an iterate that is not real floating point or of different libraries, ValueError
    for shapes that do not fit, rates that are not finite and > 0, T < 0, averages without `assign`
    and a rule with several floors.

    The loop of Algorithm 1 of the UAI paper (p. 3607) and of arXiv 2111.15317, as `rule` has it.
    """
    check_integer("iterations", iterations, 0)
    if rule.policy.average and assign is None:
        raise ValueError("assign is needed to write averages into the iterate: average = True")
    x = _float64("start", start)
    shape, B = x.shape, 1 if x.ndim == 1 else x.shape[0]
    rates = _rates(learning_rate, B)
    rule.policy.floors(1)  # an error now rather than at the first drop

    x = x.reshape(B, -1)
    observer = _Windows(x)
    total = x if rule.observation == "mean" else None
    average = x * 0.0 if rule.policy.average else None
    states = [rule.init()] * B
    motion = ArrayMotion(x) if rule.sees_motion else None
    ω = np.full(B, math.nan)
    passed = _passed(start, rates)
    history = np.empty((iterations, B))
    angles: list[np.ndarray] = []
    drops: list[list[DropEvent]] = [[] for _ in range(B)]

    for t in range(1, iterations + 1):
        history[t - 1] = rates
        x = _float64("the iterate that update returned", update(t - 1, passed), like=start)
        x = x.reshape(B, -1)
        if motion is not None:
            motion.note(x)

        if rule.observes(t):
            # Alg. 1, "if t mod k = 0": window i is x_{ik} … x_{(i+1)k−1}; x_t opens the next.
            ω = observer.close(x if total is None else total, t)
            angles.append(ω)
            seen: Sequence[float | Motion | None]
            if motion is None:
                seen = [None if math.isnan(angle) else float(angle) for angle in ω]
            else:
                plans = [rule.plan(state) for state in states]
                seen = motion.close(x, rule.window, observer.squares() / rule.window**2, plans)
            states = [rule.observe(state, each) for state, each in zip(states, seen, strict=True)]
            total = None if total is None else x
        elif total is not None:
            total = total + x

        if rule.acts(t):
            acted = [rule.act(state) for state in states]
            states = [state for state, _ in acted]
            decisions = [decision for _, decision in acted]
            if average is not None and assign is not None:
                average, x = _average(average, x, decisions, observer)
                if any(decision.drop for decision in decisions):
                    assign(_like(start, x.reshape(shape)))
            for b, decision in enumerate(decisions):
                old = (float(rates[b]),)
                new = rule.policy.lowered(old) if decision.drop else old
                if new != old:
                    degrees = None if math.isnan(ω[b]) else math.degrees(ω[b])
                    event = DropEvent(t, rule.windows(t) - 1, old, new, degrees, t)
                    drops[b].append(event)
                    rates[b] = new[0]
                    passed = None
            if passed is None:
                passed = _passed(start, rates)

    W = max(0, rule.windows(iterations) - 2)
    degrees = np.degrees(np.array(angles[2:]).reshape(W, B).T)
    return Trajectory(
        degrees, history.T.copy(), tuple(map(tuple, drops)), _like(start, x.reshape(shape))
    )


class _Windows:
    """Angles from successive windows of B trajectories, each with its own memory.

    A window's sum does for its mean: angles do not see the factor. `known` counts what is
    remembered: 0 nothing, 1 the last window, 2 also the step that led to it. `warned` holds from
    the first lost window to the next angle.
    """

    def __init__(self, like: Any) -> None:
        self.previous = like
        self.step = like
        self.known = np.zeros(like.shape[0], dtype=np.int64)
        self.warned = np.zeros(like.shape[0], dtype=bool)

    def squares(self) -> np.ndarray:
        """‖step‖² of the last window: 0 where it is the first, nan where it was lost."""
        found = _host((self.step * self.step).sum(-1)).astype(np.float64)
        return np.where(self.known == 2, found, np.where(self.known == 1, 0.0, math.nan))

    def close(self, y: Any, t: int) -> np.ndarray:
        """The angle of each trajectory (radians), nan where there is none."""
        xp: Any = torch if isinstance(y, torch.Tensor) else np
        finite = _host(xp.isfinite(y).all(-1))
        with np.errstate(invalid="ignore"):  # ∞ − ∞ where the check above already says no
            step = y - self.previous
        moved = _host((step != 0.0).any(-1))
        ω = np.full(len(finite), math.nan)
        ready = (self.known == 2) & finite & moved
        if ready.any():
            rows = torch.as_tensor(ready, device=y.device) if xp is torch else ready
            ω[ready] = _host(angle_between(step[rows], self.step[rows]))
        still = finite & ~moved & (self.known > 0)
        for lost, what in ((~finite, "not finite"), (still, "without movement")):
            news = lost & ~self.warned
            if news.any():
                warn(
                    f"no angle: the window that ended with update {t} is {what} for trajectories "
                    f"{np.flatnonzero(news).tolist()}; tracking them starts afresh, and further "
                    "lost windows go unreported until their angles return"
                )
        self.warned = (self.warned | ~finite | still) & np.isnan(ω)
        self.known = np.where(~finite | still, 0, np.minimum(self.known + 1, 2))
        self.previous, self.step = y, step
        return ω


def _average(total: Any, x: Any, decisions: list[Decision], observer: _Windows) -> tuple[Any, Any]:
    """(Σ w x over the waiting windows, and the iterates with Σ w x / Σ w in place of a drop's)."""
    weight = _column(total, [float(decision.weight) for decision in decisions])
    drop = _column(total, [float(decision.drop) for decision in decisions]) > 0.0
    xp: Any = torch if isinstance(x, torch.Tensor) else np
    total = xp.where(weight > 0.0, total + weight * x, 0.0 * x)
    # Σ_{w=1}^{W} w = W(W+1)/2
    x = xp.where(drop, total / xp.where(drop, weight * (weight + 1.0) / 2.0, 1.0 + weight), x)
    total = xp.where(drop, 0.0 * x, total)
    # The replacement is no step of the optimizer: no angle may see it.
    observer.known[[decision.drop for decision in decisions]] = 0
    return total, x


def _float64(name: str, value: Any, like: Any = None) -> Any:
    """value in float64; checked as a start, or against the start that it must resemble."""
    if like is not None:
        if isinstance(value, torch.Tensor) != isinstance(like, torch.Tensor):
            raise TypeError(f"{name} must be a {type(like).__name__}, got {type(value).__name__}")
        if tuple(np.shape(value)) != tuple(np.shape(like)):
            raise ValueError(
                f"{name} must have the start's shape {tuple(np.shape(like))}, "
                f"got {tuple(np.shape(value))}"
            )
    if isinstance(value, torch.Tensor):
        floating = value.is_floating_point()
    else:
        value = np.asarray(value)
        floating = value.dtype.kind == "f"
    if not floating:
        raise TypeError(f"{name} must be real floating point, got dtype {value.dtype}")
    if value.ndim not in (1, 2) or 0 in value.shape:
        raise ValueError(f"{name} must have shape (n,) or (B, n), got {tuple(value.shape)}")
    # A copy: the optimizer may update its array in place.
    if isinstance(value, torch.Tensor):
        return value.detach().to(torch.float64, copy=True)
    return value.astype(np.float64)


def _rates(learning_rate: ArrayLike, B: int) -> np.ndarray:
    rates = np.asarray(learning_rate, dtype=np.float64)
    if rates.shape not in ((), (B,)) or not ((rates > 0.0) & np.isfinite(rates)).all():
        raise ValueError(
            f"learning_rate must be a number or {B} numbers, finite and > 0, got {learning_rate!r}"
        )
    return np.broadcast_to(rates, (B,)).copy()


def _passed(start: Any, rates: np.ndarray) -> Any:
    """The learning rate as `update` takes it."""
    return float(rates[0]) if start.ndim == 1 else _like(start, rates[:, None])


def _like(start: Any, value: Any) -> Any:
    if isinstance(start, torch.Tensor):
        return torch.as_tensor(value).to(dtype=start.dtype, device=start.device, copy=True)
    return np.array(value, dtype=np.asarray(start).dtype)


def _column(like: Any, values: list[float]) -> Any:
    if isinstance(like, torch.Tensor):
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
    return np.array(values)[:, None]


def _host(value: Any) -> np.ndarray:
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
