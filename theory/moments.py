"""Exact mean and covariance of the iterates and of the window-mean steps, for any schedule.

Per mode the method is a linear recursion (`theory.linear`).  Over a window of k iterations that
starts at x_{ik} it is extended by the displacement e_j = x_{ik+j} − x_{ik} and its running sum, so
that no large numbers cancel when steps are small:

    y_i − x_{ik} = (1/k) Σ_{0≤j<k} e_j = m_i,      u_i = y_{i+1} − y_i = (e_k)_i + m_{i+1} − m_i.

While the rate is constant, all windows share one linear map: it is built once, by repeated
squaring, so that a window costs the same whatever its length; and a run of equal windows is
evaluated in blocks, as products of matrices.

Sources: the model, UAI 2024, Definition 3.1; the angle, Definition 3.3; the recursion is the first
step of the proof of Theorem 3.2 (Section 9), here for every β, s, window and step-wise schedule.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory import angles, checks, linear
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = ["Evolution", "StepMap", "StepMoments", "evolve", "step_map"]

Array = NDArray[Any]
Segments = tuple[tuple[Any, int], ...]  # (rate, iterations) of the stages that a window meets

# Windows evaluated together as one matrix product; larger costs memory, smaller Python overhead.
_BLOCK = 128


class _Affine(NamedTuple):
    """w ← A w + noise of covariance Q, per mode: A (n, r, c), Q (n, r, r)."""

    A: Array
    Q: Array

    def after(self, first: _Affine) -> _Affine:
        """This map applied after `first`, with independent noise."""
        return _Affine(self.A @ first.A, self.covariance(first.Q))

    def covariance(self, C: Array) -> Array:
        return self.A @ C @ self.A.swapaxes(-1, -2) + self.Q

    def mean(self, m: Array) -> Array:
        return (self.A @ m[..., None])[..., 0]


class StepMoments(NamedTuple):
    """Joint moments of (u, v) = (y_{i+1} − y_i, y_{i+2} − y_{i+1}), mode by mode.

    mean : (W, n, 2);  covariance : (W, n, 2, 2).  Modes are independent of each other.
    """

    mean: Array
    covariance: Array


class StepMap(NamedTuple):
    """(u, v) = gain · (x, d) + noise, mode by mode: gain (n, 2, 2), covariance of the noise too."""

    gain: Array
    noise: Array


def _identity(n: int, size: int, dtype: Any) -> _Affine:
    A = np.zeros((n, size, size), dtype=dtype)
    A[:, range(size), range(size)] = 1
    return _Affine(A, np.zeros((n, size, size), dtype=dtype))


def _iterated(step: _Affine, count: int) -> _Affine:
    """`step` applied `count` times, by repeated squaring."""
    result = _identity(step.A.shape[0], step.A.shape[-1], step.A.dtype)
    while count:
        if count & 1:
            result = step.after(result)
        count >>= 1
        if count:
            step = step.after(step)
    return result


def _window_map(problem: NoisyQuadratic, method: UnifiedMomentum, segments: Segments) -> _Affine:
    """(x, d) at the start of a window ↦ (x, d) at its end, e_k and m.  A (n, 4, 2), Q (n, 4, 4)."""
    n, dtype = problem.dimension, problem.curvature.dtype
    total = _identity(n, 4, dtype)
    for rate, count in segments:
        h = linear.steps(problem, rate)
        b = np.zeros((n, 4), dtype=h.dtype)
        b[:, :2] = linear.noise_gain(h, method)
        b[:, 2] = b[:, 0]
        A = _identity(n, 4, h.dtype).A
        A[:, :2, :2] = linear.transition(h, method)
        # e_{j+1} = e_j + (x_{j+1} − x_j), whose coefficient of x is −Ph: no (1 − Ph) − 1 here.
        A[:, 2, 0], A[:, 2, 1] = -b[:, 0], A[:, 0, 1]
        A[:, 3, 2] = 1  # Σ e_j, over j = 0 … k−1
        Q = problem.noise_variance[:, None, None] * b[:, :, None] * b[:, None, :]
        total = _iterated(_Affine(A, Q), count).after(total)
    k = sum(count for _, count in segments)
    # A product, since 0/k would be a float in exact arithmetic.
    mean = Fraction(1, k) if total.A.dtype == object else 1 / k
    scale = np.array([1, 1, 1, mean], dtype=total.A.dtype)
    A = total.A[:, :, :2] * scale[:, None]
    return _Affine(A, total.Q * (scale[:, None] * scale))


def _pair_map(first: _Affine, second: _Affine, third: _Affine) -> _Affine:
    """(x, d) at the start of window i ↦ (u, v), from the maps of windows i, i+1, i+2."""
    n, dtype = first.A.shape[0], first.A.dtype
    # (z, e, m) of window i ↦ (z, r) with r = e − m
    R = np.zeros((n, 3, 4), dtype=dtype)
    R[:, 0, 0] = R[:, 1, 1] = R[:, 2, 2] = 1
    R[:, 2, 3] = -1
    chain = _Affine(R, np.zeros((n, 3, 3), dtype=dtype)).after(first)
    # (z, r) ↦ (z', u, r') with u = r + m', r' = e' − m'
    A = np.zeros((n, 4, 3), dtype=dtype)
    A[:, :, :2] = (T := _second_outputs(n, dtype)) @ second.A
    A[:, 2, 2] = 1
    chain = _Affine(A, T @ second.Q @ T.swapaxes(-1, -2)).after(chain)
    # (z', u, r') ↦ (u, v) with v = r' + m''
    A = np.zeros((n, 2, 4), dtype=dtype)
    A[:, 1, :2] = third.A[:, 3]
    A[:, 0, 2] = A[:, 1, 3] = 1
    Q = np.zeros((n, 2, 2), dtype=dtype)
    Q[:, 1, 1] = third.Q[:, 3, 3]
    return _Affine(A, Q).after(chain)


def step_map(
    problem: NoisyQuadratic, method: UnifiedMomentum, rate: Any, window: int = 1
) -> StepMap:
    """The window-mean steps u, v of three windows at one rate, from (x, d) where they start.

    (x, d) as in `theory.linear`.  Costs the same for every window, but for its logarithm.

    Raises TypeError or ValueError for arguments of another type or out of range.
    """
    checks.instance("method", method, UnifiedMomentum)
    linear.steps(problem, rate)  # checks both
    one = _window_map(problem, method, ((rate, checks.positive_integer("window", window)),))
    return StepMap(*_pair_map(one, one, one))


def _second_outputs(n: int, dtype: Any) -> Array:
    """(x, d, e, m) ↦ (x, d, m, e − m)."""
    T = np.zeros((n, 4, 4), dtype=dtype)
    T[:, 0, 0] = T[:, 1, 1] = T[:, 2, 3] = T[:, 3, 2] = 1
    T[:, 3, 3] = -1
    return T


class _Run(NamedTuple):
    """`windows` consecutive windows with equal maps, from window `first` on."""

    first: int
    windows: int
    keys: tuple[Segments, ...]  # of windows i, i+1, i+2; shorter at the end of the schedule


def _windows(schedule: StepwiseSchedule, window: int) -> list[tuple[Segments, int]]:
    """Runs of equal windows: (segments of each, how many)."""
    total = len(schedule) // window
    runs: list[tuple[Segments, int]] = []
    position = 0
    edges = schedule.boundaries
    while position < total:
        start = position * window
        stage_end = edges[bisect_right(edges, start)]
        inside = (stage_end - start) // window  # windows that lie in one stage
        count = min(max(inside, 1), total - position)
        runs.append((tuple(schedule.segments(start, start + window)), count))
        position += count
    return runs


def _runs(schedule: StepwiseSchedule, window: int) -> Iterator[_Run]:
    """Runs of windows whose own map and the two after it are the same."""
    windows = _windows(schedule, window)
    ends = list(accumulate(count for _, count in windows))

    def key(i: int) -> Segments | None:
        r = bisect_right(ends, i)
        return windows[r][0] if r < len(windows) else None

    first = 0
    for segments, count in windows:
        last = first + count
        if count > 2:
            yield _Run(first, count - 2, (segments,) * 3)
        for i in range(max(first, last - 2), last):
            following = (key(i), key(i + 1), key(i + 2))
            yield _Run(i, 1, tuple(k for k in following if k is not None))
        first = last


class _Block(NamedTuple):
    """Maps from the start of a run of equal windows to the start of its j-th window."""

    P: Array  # (J, n, 2, 2)
    Q: Array  # (J, n, 2, 2)


def _block(one: _Affine, count: int) -> _Block:
    """Powers j = 0 … count − 1 of the map of one window, by doubling."""
    n, dtype = one.A.shape[0], one.A.dtype
    unit = _identity(n, 2, dtype)
    P, Q = unit.A[None], unit.Q[None]
    power = one  # the map of len(P) windows
    while len(P) < count:
        P = np.concatenate([P, power.A @ P])
        Q = np.concatenate([Q, power.covariance(Q)])
        power = power.after(power)
    return _Block(P[:count], Q[:count])


def _quadratic_form(left: Array, right: Array) -> Array:
    """Coefficients (…, 3) of leftᵀ S right on (S_xx, S_xd, S_dd) for symmetric S."""
    return np.stack(
        [
            left[..., 0] * right[..., 0],
            left[..., 0] * right[..., 1] + left[..., 1] * right[..., 0],
            left[..., 1] * right[..., 1],
        ],
        axis=-1,
    )


def _products(block: _Block, left: Array, right: Array, S: Array) -> Array:
    """Σ E (left·z)(right·z) over the modes, with z = (x, d) at each window of each block.

    left, right : (n, 2);  S : (3n, blocks), the second moments at the start of each block.
    Returns (blocks · len(block.P),), in the order of the windows.
    """
    P, Q = block
    form = _quadratic_form(*(np.einsum("ni,jnik->jnk", w, P) for w in (left, right)))
    own = np.einsum("ni,jnik,nk->j", left, Q, right)
    return (form.reshape(len(P), -1) @ S + own[:, None]).T.reshape(-1)


class _Law(NamedTuple):
    """Mean (n, 2) and covariance (n, 2, 2) of (x, d)."""

    mean: Array
    covariance: Array

    @property
    def second_moment(self) -> Array:
        """E (x, d)(x, d)ᵀ as (n, 3): xx, xd, dd."""
        S = self.covariance + self.mean[:, :, None] * self.mean[:, None, :]
        return np.stack([S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]], axis=-1)


def _initial_law(
    problem: NoisyQuadratic, method: UnifiedMomentum, schedule: StepwiseSchedule, stationary: bool
) -> _Law:
    n = problem.dimension
    if stationary:
        h = linear.require_stable(problem, schedule.rates[0], method)
        covariance = linear.stationary_covariance(h, problem.noise_variance, method)
        return _Law(np.zeros((n, 2), dtype=h.dtype), covariance)
    mean = np.zeros((n, 2), dtype=problem.start.dtype)
    mean[:, 0] = problem.start
    return _Law(mean, np.zeros((n, 2, 2), dtype=mean.dtype))


class _Stretch(NamedTuple):
    """A run of windows with equal maps, cut into blocks of len(block.P) windows."""

    run: _Run
    block: _Block
    pair: _Affine | None  # (x, d) at the start of a window ↦ (u, v); None where no angle starts
    laws: list[_Law]  # at the start of each block, and after the run


def _walk(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    schedule: StepwiseSchedule,
    window: int,
    stationary: bool,
) -> Iterator[_Stretch]:
    @lru_cache(maxsize=64)
    def window_map(segments: Segments) -> _Affine:
        return _window_map(problem, method, segments)

    law = _initial_law(problem, method, schedule, stationary)
    for run in _runs(schedule, window):
        maps = [window_map(key) for key in run.keys]
        pair = _pair_map(*maps) if len(maps) == 3 else None
        one = _Affine(maps[0].A[:, :2], maps[0].Q[:, :2, :2])
        block = _block(one, min(run.windows, _BLOCK))
        size = len(block.P)
        full, rest = divmod(run.windows, size)
        jumps = [_iterated(one, size)] * full + ([_iterated(one, rest)] if rest else [])
        laws = [law]
        for jump in jumps:
            law = _Law(jump.mean(law.mean), jump.covariance(law.covariance))
            laws.append(law)
        yield _Stretch(run, block, pair, laws)


@dataclass(frozen=True, eq=False)
class Evolution:
    """Exact expectations along a trajectory; what `evolve` returns.

    With W = ⌊T/k⌋ − 2 angles, entry i belongs to windows i, i+1, i+2, whose means give
    u = y_{i+1} − y_i and v = y_{i+2} − y_{i+1}.

    Attributes
    ----------
    iteration : (⌊T/k⌋ + 1,), t = 0, k, 2k, …
    risk : (⌊T/k⌋ + 1,), E f(x_t) at these t.
    inner : (W,), E⟨u, v⟩.
    squared_norm : (W + 1,), E‖y_{i+1} − y_i‖² for i = 0 … W; u has entry i, v entry i + 1.
    """

    problem: NoisyQuadratic
    method: UnifiedMomentum
    schedule: StepwiseSchedule
    window: int
    from_stationary: bool
    iteration: Array
    risk: Array
    inner: Array
    squared_norm: Array

    @property
    def ratio(self) -> Array:
        """E⟨u, v⟩ / √(E‖u‖² E‖v‖²), shape (W,), float64: what eq. (5) takes for E cos.

        Raises ZeroDivisionError where E‖u‖² is 0: without noise, at the minimum.
        """
        product = np.asarray(self.squared_norm[:-1] * self.squared_norm[1:], dtype=np.float64)
        if not product.all():
            raise ZeroDivisionError(
                f"no ratio: E|u|² or E|v|² is 0 at angle {int(np.argmin(product))}: nothing moves"
            )
        return np.asarray(self.inner, dtype=np.float64) / np.sqrt(product)

    @property
    def ratio_angle(self) -> Array:
        """arccos of `ratio`, in radians, shape (W,): the angle of the expectations.

        It is not the expected angle, but close to it in high dimension.
        """
        return np.arccos(self.ratio)

    def step_moments(self, windows: Sequence[int] | None = None) -> StepMoments:
        """Mean and covariance of (u, v), mode by mode, at the given angles (default: all W).

        windows : indices in 0 … W − 1.  Raises TypeError or IndexError for others.
        """
        W = len(self.inner)
        chosen = np.arange(W) if windows is None else np.asarray(windows)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise TypeError(f"windows must be a sequence of integers, got {windows!r}")
        chosen = chosen.astype(int)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < W):
            raise IndexError(f"windows must lie in 0 … {W - 1}, got {chosen.tolist()}")
        n, dtype = self.problem.dimension, self.inner.dtype
        means = np.zeros((chosen.size, n, 2), dtype=dtype)
        covariances = np.zeros((chosen.size, n, 2, 2), dtype=dtype)

        arguments = (self.problem, self.method, self.schedule, self.window, self.from_stationary)
        for run, block, pair, laws in _walk(*arguments):
            here = np.flatnonzero((chosen >= run.first) & (chosen < run.first + run.windows))
            if pair is None or not here.size:
                continue
            which, j = np.divmod(chosen[here] - run.first, len(block.P))
            mean = np.stack([laws[i].mean for i in which])
            covariance = np.stack([laws[i].covariance for i in which])
            P, Q = block.P[j], block.Q[j]
            means[here] = pair.mean(_Affine(P, Q).mean(mean))
            covariances[here] = pair.covariance(_Affine(P, Q).covariance(covariance))
        return StepMoments(means, covariances)

    def expected_cosine(
        self, windows: Sequence[int] | None = None, tolerance: float = 1e-9
    ) -> Array:
        """E[⟨u, v⟩/(‖u‖‖v‖)], exactly, at the given angles (default: all W); float64.

        A double integral per window (`theory.angles.expected_cosine`), each to within `tolerance`.
        """
        moments = self.step_moments(windows)
        return np.array(
            [
                angles.expected_cosine(covariance, mean, tolerance=tolerance).value
                for mean, covariance in zip(*moments, strict=True)
            ]
        )


def evolve(
    problem: NoisyQuadratic,
    method: UnifiedMomentum,
    schedule: StepwiseSchedule,
    window: int = 1,
    *,
    from_stationary: bool = False,
) -> Evolution:
    """E f(x_t), E⟨u, v⟩ and E‖u‖² at every window of a run, exactly.

    u and v are successive differences of the means of x_t over windows of k iterations; window i
    covers t = ik … (i+1)k − 1.  A drop may fall anywhere, also inside of a window.

    Parameters
    ----------
    window : k ≥ 1.  An angle needs three windows: T ≥ 3k.
    from_stationary : start from the stationary law at the first rate, instead of from
        `problem.start` (then Requires 0 < αa < 2(1 + β)/(1 + 2βs)).

    Exact or symbolic problems (dtype object) with exact rates give exact `risk`, `inner` and
    `squared_norm`.  Unstable rates are allowed: moments then grow, up to an OverflowError.

    Risks are in the units of f, products and squared norms in those of x².

    Raises
    ------
    TypeError
        If problem, method or schedule is something else.
    ValueError
        If the window is not a positive integer, or longer than a third of the schedule.
    OverflowError
        If a moment is not a finite float any more.

    Source: UAI 2024, eq. (3), (9), (11) and Definition 3.3.
    """
    checks.instance("problem", problem, NoisyQuadratic)
    checks.instance("method", method, UnifiedMomentum)
    checks.instance("schedule", schedule, StepwiseSchedule)
    window = checks.positive_integer("window", window)
    total = len(schedule) // window
    if total < 3:
        raise ValueError(
            f"an angle needs three windows: len(schedule) must be >= 3 * window = {3 * window}, "
            f"got {len(schedule)}"
        )
    a, dtype = problem.curvature, np.result_type(problem.curvature, *map(np.array, schedule.rates))
    n = problem.dimension
    risk, inner, first, second = (np.zeros(total + 1, dtype=dtype) for _ in range(4))
    e_x, half_a = np.zeros((2, n, 2), dtype=dtype)
    e_x[:, 0], half_a[:, 0] = 1, a / 2

    with np.errstate(over="ignore", invalid="ignore"):
        for run, block, pair, laws in _walk(problem, method, schedule, window, from_stationary):
            S = np.stack([law.second_moment.reshape(-1) for law in laws[:-1]], axis=-1)
            here = slice(run.first, run.first + run.windows)
            risk[here] = _products(block, half_a, e_x, S)[: run.windows]
            if pair is not None:
                u, v = pair.A[:, 0], pair.A[:, 1]
                noise = pair.Q.sum(axis=0)
                inner[here] = _products(block, u, v, S)[: run.windows] + noise[0, 1]
                first[here] = _products(block, u, u, S)[: run.windows] + noise[0, 0]
                second[here] = _products(block, v, v, S)[: run.windows] + noise[1, 1]
        risk[total] = (half_a[:, 0] * laws[-1].second_moment[:, 0]).sum()
    if not dtype.hasobject and not all(np.isfinite(x).all() for x in (risk, inner, first, second)):
        raise OverflowError(
            "a second moment is no finite float any more: max learning_rate * max curvature is "
            f"{max(schedule.rates) * max(a)}, stable is < {method.max_stable_step}"
        )
    W = total - 2
    return Evolution(
        problem=problem,
        method=method,
        schedule=schedule,
        window=window,
        from_stationary=from_stationary,
        iteration=np.arange(total + 1) * window,
        risk=risk,
        inner=inner[:W],
        squared_norm=np.append(first[:W], second[W - 1]),
    )
