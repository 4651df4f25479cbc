"""The variance ratio against its definition on whole trajectories, and its false drops."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

import autodrop
from autodrop import rules
from autodrop.detectors import VarianceRatio, VarianceRatioState
from autodrop.motion import LAGS, Motion, Plan
from autodrop.variance_ratio import _chi_square_quantile, _upper_limit


def drops_by_definition(x, k, detector):
    """Where the rule drops on the iterates x_0 … x_T, from the whole trajectory at once."""
    T = len(x) - 1
    means = np.array([x[i * k : (i + 1) * k].mean(0) for i in range(T // k)])
    log_steps = np.log((np.diff(means, axis=0) ** 2).sum(1))  # [i]: to window i + 1
    found, stage, start = [], 0, k
    while True:
        at = next_drop(x, k, detector, stage, start, log_steps)
        if at is None:
            return found
        found.append(at)
        stage, start = stage + 1, at + k


def next_drop(x, k, detector, stage, start, log_steps):
    T = len(x) - 1
    kept, tests = [], 0
    t_j = [detector.shortest * 2 ** (j / 4) for j in range(80)]
    for t in range(start + k, T + 1, k):
        passed = [j for j in range(80) if t - k - start < t_j[j] * (1 - 1e-12) <= t - start]
        if not passed:
            continue
        if len(kept) == 3:
            u = kept[0]
            best, lag = spread(x, start, u, t)
            if best > 0 and t - u >= 6 * lag:
                tests += 1
                ratio = ((x[t] - x[u]) ** 2).sum() / (t - u) / best
                first = start // k  # the window that ended where the stage starts
                logs = log_steps[first : t // k - 1]
                if ratio < detector.threshold(
                    stage, tests, (np.diff(logs) ** 2).sum(), max(0, len(logs) - 1)
                ):
                    return t
        if any(j % 2 == 0 for j in passed):
            kept = [*kept[-2:], t]
    return None


def spread(x, start, u, t):
    """(max over lags of the mean of ‖x_{τ+ℓ} − x_τ‖²/ℓ, its lag), τ = start + 64 i, u < τ + ℓ ≤ t."""
    best, at = 0.0, 0
    for lag in LAGS:
        ends = [τ + lag for τ in range(start, t, 64) if u < τ + lag <= t]
        if ends:
            value = np.mean([((x[e] - x[e - lag]) ** 2).sum() for e in ends]) / lag
            if value > best:
                best, at = value, lag
    return best, at


def trajectory(seed, T, curvature, momentum, n=6):
    """SGD on a quadratic; with a small curvature nearly a random walk."""
    rng = np.random.default_rng(seed)
    x, v = np.ones(n), np.zeros(n)
    a = curvature * np.logspace(-2, 0, n)
    found = [x]
    for _ in range(T):
        v = momentum * v - (a * x + rng.standard_normal(n) * 0.3)
        x = x + 0.5 * v
        found.append(x)
    return np.array(found)


def replayed(x, rule):
    """The drops of the array loop, the iterates being what they are whatever the rates."""
    run = autodrop.run(lambda t, α: x[t + 1], x[0], 1.0, len(x) - 1, rule)
    return [drop.step for drop in run.drops[0]]


@given(
    seed=st.integers(0, 10_000),
    k=st.sampled_from([1, 2, 3, 5, 16, 50, 64, 200]),
    curvature=st.sampled_from([1e-3, 0.1, 1.0]),
    momentum=st.sampled_from([0.0, 0.8]),
    per_stage=st.booleans(),
    shortest=st.sampled_from([4, 64]),
)
def test_drops_where_the_definition_says(seed, k, curvature, momentum, per_stage, shortest):
    detector = VarianceRatio(0.1, shortest=shortest, per_stage=per_stage)
    rule = autodrop.Rule(k, detector)
    x = trajectory(seed, 1500, curvature, momentum)
    assert replayed(x, rule) == drops_by_definition(x, k, detector)


def test_the_comparison_sees_drops():
    x = trajectory(0, 3000, 1.0, 0.0)
    assert len(replayed(x, rules.variance_ratio(4))) >= 4


def walks(seed, trajectories, T, spectrum, drift):
    """Random walks with independent Gaussian steps of variances `spectrum`, and a drift."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((trajectories, T, len(spectrum))) * np.sqrt(spectrum)
    x = np.cumsum(steps + drift, axis=1)
    return np.concatenate([np.zeros((trajectories, 1, len(spectrum))), x], axis=1)


SPECTRA = {
    "3 equal": np.ones(3),
    "10 equal": np.ones(10),
    "100 equal": np.ones(100),
    "power law": np.arange(1, 101) ** -0.75,  # effective dimension 9.9
}


def false_drops(x, k, detector):
    """(drops, tests) where nothing ever settles; rates stay as they are."""
    tests = 0

    class Counting(VarianceRatio):
        def threshold(self, *args):
            nonlocal tests
            tests += 1
            return super().threshold(*args)

    counting = Counting(**{name: getattr(detector, name) for name in detector.__match_args__})
    rule = autodrop.Rule(k, counting)
    run = autodrop.run(lambda t, α: x[:, t + 1], x[:, 0], 1.0, x.shape[1] - 1, rule)
    return sum(map(len, run.drops)), tests


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("k", [1, 16])
@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_false_drops_per_test_are_below_the_level(spectrum, k, drift):
    # c out of the way: the quantile alone decides, in every stage
    detector = VarianceRatio(first=9.0, last=9.0)
    x = walks(1, 60, 2000, SPECTRA[spectrum], drift)
    found, tests = false_drops(x, k, detector)
    assert tests > 600
    # Red if the true probability is the level with at most 1e-3; tests of a stage are dependent.
    assert found <= scipy.stats.binom.isf(1e-3, tests, detector.level)
