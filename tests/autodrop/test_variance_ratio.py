"""The variance ratio against its definition on whole trajectories, and its false drops."""

import dataclasses
import math
import re

import numpy as np
import pytest
import scipy.optimize
import scipy.special
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
            best, lag, terms = spread(x, start, u, t)
            if best > 0 and t - u >= 4 * lag:
                tests += 1
                ratio = ((x[t] - x[u]) ** 2).sum() / (t - u) / best
                logs = log_steps[start // k - 1 : t // k - 1]
                state = VarianceRatioState(
                    stage=stage,
                    tests=tests,
                    differences=(np.diff(logs) ** 2).sum(),
                    pairs=max(0, len(logs) - 1),
                )
                if ratio < detector.threshold(state, terms):
                    return t
        if any(j % 2 == 0 for j in passed):
            kept = [*kept[-2:], t]
    return None


def spread(x, start, u, t):
    """max over ℓ of the mean of ‖x_{τ+ℓ} − x_τ‖²/ℓ, where τ = start + 64 i, u < τ + ℓ ≤ t.

    With the ℓ that attains it and the number of terms.
    """
    best, at, terms = 0.0, 0, 0
    for lag in LAGS:
        ends = [τ + lag for τ in range(start, t, 64) if u < τ + lag <= t]
        if ends:
            value = np.mean([((x[e] - x[e - lag]) ** 2).sum() for e in ends]) / lag
            if value > best:
                best, at, terms = value, lag, len(ends)
    return best, at, terms


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
    x = trajectory(seed, 1000, curvature, momentum)
    assert replayed(x, rule) == drops_by_definition(x, k, detector)


def test_the_comparison_sees_drops():
    x = trajectory(0, 3000, 1.0, 0.0)
    assert len(replayed(x, autodrop.Rule(4, VarianceRatio(first=0.5)))) >= 4


@pytest.mark.parametrize("ν", [3.0, 5.0, 10.0, 100.0])
@pytest.mark.parametrize("p", [0.005, 0.05, 0.1])
def test_quantiles(ν, p):
    exact = scipy.stats.chi2.ppf(p, ν) / ν
    assert exact - 0.02 <= _chi_square_quantile(p, ν) <= exact + 0.002


def test_the_upper_limit_is_one():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 12))
    limits = [_upper_limit((np.diff(row) ** 2).sum(), 11) for row in x]
    covered = np.mean(np.array(limits) >= 1.0)
    # Nominally 0.9, by an approximate number of degrees of freedom; the standard error is 0.005.
    assert 0.87 < covered < 0.93
    assert _upper_limit(1.0, 2) == math.inf


def test_on_quadratics_the_short_steps_tell_the_level_where_the_risk_settles():
    # E‖x_{t+1} − x_t‖² = 4α · ½ Σ a_i V_i exactly, V_i = αa_i v_i/(2 − αa_i): for every spectrum.
    a, v, α = np.array([0.1, 0.7, 1.6]), np.array([2.0, 0.3, 1.0]), 0.9
    V = α * a * v / (2 - α * a)
    steps = (α * a) ** 2 * (V + v)
    assert steps.sum() == pytest.approx(4 * α * (a @ V) / 2, rel=1e-14)


def test_equal_thresholds_and_more():
    state = VarianceRatioState(stage=3, tests=1, differences=0.02, pairs=20)
    detector = VarianceRatio()
    assert detector.threshold(state, 20) == detector.last  # many dimensions: c decides
    few = dataclasses.replace(state, differences=40.0)
    assert detector.threshold(few, 20) < 0.1
    assert detector.threshold(dataclasses.replace(state, pairs=2), 20) == 0.0
    first = dataclasses.replace(state, stage=0)
    assert detector.threshold(first, 20) == detector.first
    assert detector.threshold(dataclasses.replace(state, stage=10**6), 20) == detector.last
    later = dataclasses.replace(few, tests=5)
    assert detector.threshold(later, 20) == detector.threshold(few, 20)
    spending = VarianceRatio(per_stage=True)
    assert spending.threshold(later, 20) < spending.threshold(few, 20) < detector.threshold(few, 20)


@pytest.mark.parametrize("terms", [1, 2, 30])
@pytest.mark.parametrize("variance", [0.02, 0.2, 1.0])
def test_the_threshold_is_a_quantile_over_the_largest_of_several(variance, terms):
    pairs = 30
    df = 2 / 3 * pairs
    upper = variance / (scipy.stats.chi2.ppf(0.1, df) / df)
    ν = scipy.optimize.brentq(lambda x: scipy.special.polygamma(1, x / 2) - upper, 0.1, 1e5)
    μ = ν * terms / (terms + 1)
    expected = scipy.stats.chi2.ppf(0.05, μ) / μ / (1 + math.sqrt(2 / (ν * terms)))
    state = VarianceRatioState(tests=1, differences=2 * pairs * variance, pairs=pairs)
    # Wilson and Hilferty are at most 0.02 below for such μ, ψ'⁻¹ is right to 0.1 in ν.
    found = VarianceRatio(first=9.0, last=9.0).threshold(state, terms)
    assert found == pytest.approx(expected, abs=0.02)


def test_a_lost_window_starts_the_stage_afresh_and_keeps_its_number():
    detector = VarianceRatio()
    state = dataclasses.replace(detector.init(), stage=2, updates=640)
    assert detector.update(state, None) == (VarianceRatioState(2), False)
    lost = Motion(64, 1.0, None, (math.inf,) * len(LAGS), (1,) * len(LAGS))
    assert detector.update(state, lost) == (VarianceRatioState(2), False)
    assert detector.plan(VarianceRatioState(2), 64) == Plan(restart=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 0.5}, "level must be in (0, 0.5), got 0.5"),
        ({"first": 0.6}, "first must be in (0, last], got 0.6"),
        ({"last": 0.0, "first": 0.0}, "last must be finite and > 0, got 0.0"),
        ({"growth": 0.9}, "growth must be finite and >= 1, got 0.9"),
        ({"shortest": 0}, "shortest must be an integer >= 1, got 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VarianceRatio(**arguments)


def test_rules_for_motion():
    assert rules.variance_ratio().policy.factor == 0.25
    assert not rules.uai2024().sees_motion
    with pytest.raises(ValueError, match="motion needs observation = 'mean'"):
        autodrop.Rule(5, VarianceRatio(), observation="snapshot")
    with pytest.raises(TypeError, match="must be one that sees angles"):
        autodrop.replay([90.0], rules.variance_ratio(5))


def test_numpy_and_torch_loops_agree():
    x = trajectory(3, 1500, 1.0, 0.0)
    rule = autodrop.Rule(8, VarianceRatio(first=0.5))
    run = autodrop.run(
        lambda t, α: torch.from_numpy(x[t + 1]), torch.from_numpy(x[0]), 1.0, len(x) - 1, rule
    )
    steps = [drop.step for drop in run.drops[0]]
    assert steps == replayed(x, rule)
    assert steps


def test_each_trajectory_has_its_own_times():
    paths = np.stack([trajectory(seed, 1500, 1.0, 0.0) for seed in range(5)])
    rule = autodrop.Rule(4, VarianceRatio(first=0.5))
    run = autodrop.run(lambda t, α: paths[:, t + 1], paths[:, 0], 1.0, paths.shape[1] - 1, rule)
    together = [[drop.step for drop in drops] for drops in run.drops]
    assert together == [replayed(path, rule) for path in paths]
    assert len({tuple(steps) for steps in together}) > 1


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

    class Counting(type(detector)):
        def threshold(self, *args):
            nonlocal tests
            tests += 1
            return super().threshold(*args)

    counting = Counting(**dataclasses.asdict(detector))
    rule = autodrop.Rule(k, counting)
    run = autodrop.run(lambda t, α: x[:, t + 1], x[:, 0], 1.0, x.shape[1] - 1, rule)
    return sum(map(len, run.drops)), tests


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("k", [2, 16])
@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_false_drops_per_test_are_below_the_level(spectrum, k, drift):
    # c out of the way: the quantile alone decides, in every stage
    detector = VarianceRatio(first=9.0, last=9.0)
    x = walks(1, 60, 2000, SPECTRA[spectrum], drift)
    found, tests = false_drops(x, k, detector)
    assert tests > 300
    # The tests of a stage are dependent, hence half of them. If the true probability is below the
    # level, red with at most 1e-3.
    assert found / tests <= scipy.stats.binom.isf(1e-3, tests // 2, detector.level) / (tests // 2)


def test_a_wrong_level_is_noticed():
    class Lax(VarianceRatio):
        def threshold(self, state, terms):
            return 2.0 * super().threshold(state, terms)

    x = walks(1, 60, 2000, SPECTRA["10 equal"], 0.0)
    found, tests = false_drops(x, 16, Lax(first=9.0, last=9.0))
    assert found / tests > scipy.stats.binom.isf(1e-3, tests // 2, 0.05) / (tests // 2)


def test_false_drops_of_a_whole_stage_are_below_the_level_that_is_spent():
    x = walks(2, 200, 3000, SPECTRA["10 equal"], 0.0)
    rule = autodrop.Rule(16, VarianceRatio(first=9.0, last=9.0, per_stage=True))
    run = autodrop.run(lambda t, α: x[:, t + 1], x[:, 0], 1.0, x.shape[1] - 1, rule)
    false = sum(bool(drops) for drops in run.drops)
    # 200 independent stages; red with at most 1e-3 if the probability is below 0.05.
    assert false <= scipy.stats.binom.isf(1e-3, 200, 0.05)
    # Without spending a stage of 3000 updates has more than that.
    rule = autodrop.Rule(16, VarianceRatio(first=9.0, last=9.0))
    run = autodrop.run(lambda t, α: x[:, t + 1], x[:, 0], 1.0, x.shape[1] - 1, rule)
    assert sum(bool(drops) for drops in run.drops) > scipy.stats.binom.isf(1e-3, 200, 0.05)
