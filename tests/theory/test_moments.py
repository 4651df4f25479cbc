"""`moments.evolve` against brute force over all iterates, and its own consistency."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given, target
from hypothesis import strategies as st

from tests import strategies
from tests.theory import brute_force
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments

EPS = np.finfo(float).eps
F = Fraction


def equal(left, right):
    """Same shape and the same numbers, without tolerance."""
    return np.shape(left) == np.shape(right) and np.all(np.equal(left, right))


def same_run(left, right):
    return all(
        equal(getattr(left, name), getattr(right, name))
        for name in ("risk", "inner", "squared_norm")
    )


@strategies.examples(0.4)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=18), st.booleans())
def test_equals_brute_force_exactly(run, from_stationary):
    fast = moments.evolve(*run, from_stationary=from_stationary)
    slow = brute_force.evolve(*run, from_stationary=from_stationary)
    assert same_run(fast, slow)
    pair = fast.step_moments()
    assert equal(pair.mean, slow.mean)
    assert equal(pair.covariance, slow.covariance)


@given(strategies.runs(max_iterations=60, max_window=16), st.booleans())
def test_equals_brute_force_in_floats(run, from_stationary):
    problem, _, schedule, _ = run
    fast = moments.evolve(*run, from_stationary=from_stationary)
    slow = brute_force.evolve(*run, from_stationary=from_stationary)
    # Each of T updates, and the start's covariance, takes some 16 rounded operations a mode, which
    # later updates carry on with at most the largest coefficient; the moments are quadratic in the
    # iterates, and both routes round. A wrong term would be of order 1, and meets exact rationals
    # above.
    rounding = 2 * 16 * (len(schedule) + 4) * EPS * slow.gain
    pair = fast.step_moments()
    errors = [
        np.abs(fast.risk - slow.risk).max() / max(problem.curvature) / slow.size,
        np.abs(fast.inner - slow.inner).max() / slow.size,
        np.abs(fast.squared_norm - slow.squared_norm).max() / slow.size,
        np.abs(pair.covariance - slow.covariance).max() / slow.size,
        np.abs(pair.mean - slow.mean).max() / np.sqrt(slow.size),
    ]
    target(float(max(errors) / rounding), label="error / bound")
    assert max(errors) <= rounding


@strategies.examples(0.25)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=18))
def test_unstable_rates_are_exact_too(run):
    problem, method, schedule, window = run
    fast = StepwiseSchedule([5 * rate for rate in schedule.rates], schedule.lengths)
    assert same_run(
        moments.evolve(problem, method, fast, window),
        brute_force.evolve(problem, method, fast, window),
    )


@strategies.examples(0.05)
@given(
    method=strategies.methods(),
    window=st.integers(1, 3),
    extra=st.integers(0, 40),
    drops=st.sets(st.integers(1, 900), min_size=2, max_size=4),
    data=st.data(),
)
def test_long_runs_cross_the_blocks(method, window, extra, drops, data):
    """300 windows and more: several blocks of windows, some cut by drops."""
    problem = data.draw(strategies.problems(max_modes=2), label="problem")
    total = 300 * window + extra
    edges = [0, *sorted(1 + drop % (total - 1) for drop in drops), total]
    edges = sorted(set(edges))
    lengths = np.diff(edges).tolist()
    rates = [data.draw(strategies.stable_rates(problem, method)) for _ in lengths]
    schedule = StepwiseSchedule(rates, lengths)
    fast = moments.evolve(problem, method, schedule, window)
    slow = brute_force.evolve(problem, method, schedule, window)
    rounding = 4 * total * EPS * slow.gain * slow.size
    pair = fast.step_moments()
    assert len(fast.inner) == total // window - 2
    assert np.abs(fast.risk - slow.risk).max() <= rounding * max(problem.curvature)
    assert np.abs(fast.inner - slow.inner).max() <= rounding
    assert np.abs(fast.squared_norm - slow.squared_norm).max() <= rounding
    assert np.abs(pair.covariance - slow.covariance).max() <= rounding
    assert np.abs(pair.mean - slow.mean).max() <= 4 * total * EPS * slow.gain * np.sqrt(slow.size)


@pytest.mark.parametrize("length", [383, 384, 385, 386, 387])
@pytest.mark.parametrize("window", [1, 3])
def test_block_boundaries_exactly(length, window):
    """Runs that end at, before and after a multiple of the block of 128 windows.

    One mode with 1 − αa = ½, then ¼: x_t is Gaussian with mean 5·2⁻ᵗ and variance 1 − 4⁻ᵗ.
    """
    problem = NoisyQuadratic([F(1)], [F(3)], [F(5)])
    schedule = StepwiseSchedule([F(1, 2), F(3, 4)], [length * window, 4 * window])
    run = moments.evolve(problem, UnifiedMomentum.sgd(), schedule, window)
    second, risk = F(25), []
    for t in range(len(schedule) + 1):
        if t % window == 0:
            risk.append(second / 2)
        φ = F(1, 2) if t < length * window else F(1, 4)
        second = φ**2 * second + (1 - φ) ** 2 * 3
    assert equal(run.risk, risk)
    # The same windows from a short run that starts at the mean which the long one has reached;
    # its variance there comes on top, times the squared weight of the start in u and v.
    for first in (0, 126, 127, 128, 255, 256, length - 3):
        mean, variance = F(5) / 2 ** (first * window), 1 - F(1) / 4 ** (first * window)
        rest = StepwiseSchedule(schedule.rates, [(length - first) * window, 4 * window])
        rest = StepwiseSchedule.from_rates(np.asarray(rest).tolist()[: 3 * window])
        still = NoisyQuadratic([F(1)], [F(3)], [mean])
        short = moments.evolve(still, UnifiedMomentum.sgd(), rest, window)
        from_one = NoisyQuadratic([F(1)], [F(3)], [F(1)])
        one = moments.evolve(from_one, UnifiedMomentum.sgd(), rest, window)
        weight = one.step_moments().mean[0, 0]
        assert run.inner[first] == short.inner[0] + weight[0] * weight[1] * variance
        assert run.squared_norm[first] == short.squared_norm[0] + weight[0] ** 2 * variance
        assert run.squared_norm[first + 1] == short.squared_norm[1] + weight[1] ** 2 * variance


@strategies.examples(0.3)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=24), st.data())
def test_splitting_a_stage_changes_nothing(run, data):
    problem, method, schedule, window = run
    i = data.draw(st.integers(0, len(schedule.rates) - 1), label="stage")
    cut = data.draw(st.integers(1, schedule.lengths[i]), label="cut")
    lengths = [*schedule.lengths[:i], cut, schedule.lengths[i] - cut, *schedule.lengths[i + 1 :]]
    rates = [*schedule.rates[:i], schedule.rates[i], *schedule.rates[i:]]
    stages = [(rate, length) for rate, length in zip(rates, lengths, strict=True) if length]
    split = StepwiseSchedule(*zip(*stages, strict=True))
    assert same_run(moments.evolve(*run), moments.evolve(problem, method, split, window))


@strategies.examples(0.3)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=24), st.data())
def test_the_future_does_not_reach_back(run, data):
    problem, method, schedule, window = run
    rates = np.asarray(schedule).tolist()
    total = data.draw(st.integers(3 * window, len(rates)), label="iterations")
    whole = moments.evolve(*run)
    part = moments.evolve(problem, method, StepwiseSchedule.from_rates(rates[:total]), window)
    assert equal(part.risk, whole.risk[: len(part.risk)])
    assert equal(part.inner, whole.inner[: len(part.inner)])
    assert equal(part.squared_norm, whole.squared_norm[: len(part.squared_norm)])


@strategies.examples(0.3)
@given(strategies.runs(exact=True, max_modes=4, max_iterations=24))
def test_modes_add_up(run):
    problem, method, schedule, window = run
    whole = moments.evolve(*run)
    entries = zip(problem.curvature, problem.noise_variance, problem.start, strict=True)
    modes = [
        moments.evolve(NoisyQuadratic([a], [v], [x]), method, schedule, window)
        for a, v, x in entries
    ]
    for name in ("risk", "inner", "squared_norm"):
        assert equal(getattr(whole, name), sum(getattr(mode, name) for mode in modes))
    pair, own = whole.step_moments(), [mode.step_moments() for mode in modes]
    assert equal(pair.mean, np.concatenate([mode.mean for mode in own], axis=1))
    assert equal(pair.covariance, np.concatenate([mode.covariance for mode in own], axis=1))


@strategies.examples(0.3)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=24))
def test_moments_are_affine_in_the_noise(run):
    """E = (what the start gives, noiseless) + v·(what unit noise gives from 0)."""
    problem, method, schedule, window = run
    a, v, x0 = problem.curvature, problem.noise_variance, problem.start
    start_only = NoisyQuadratic(a, v * 0, x0)
    noise_only = NoisyQuadratic(a, v, x0 * 0)
    whole, one, other = (
        moments.evolve(part, method, schedule, window) for part in (problem, start_only, noise_only)
    )
    for name in ("risk", "inner", "squared_norm"):
        assert equal(getattr(whole, name), getattr(one, name) + getattr(other, name))


@strategies.examples(0.4)
@given(strategies.runs(exact=True, max_modes=3, max_iterations=24))
def test_s_of_one_over_one_minus_beta_is_gradient_descent(run):
    """… at α/(1 − β), along any schedule: d_t = x_t − yˢ_t stays 0."""
    problem, method, schedule, window = run
    β = F(method.momentum)
    heavy = UnifiedMomentum(β, 1 / (1 - β))
    effective = StepwiseSchedule([α / (1 - β) for α in schedule.rates], schedule.lengths)
    left = moments.evolve(problem, heavy, schedule, window)
    right = moments.evolve(problem, UnifiedMomentum.sgd(), effective, window)
    assert same_run(left, right)
    assert equal(left.step_moments().covariance, right.step_moments().covariance)


@strategies.examples(0.3)
@given(
    strategies.problems(exact=True, max_modes=3),
    strategies.methods(exact=True),
    st.integers(1, 5),
    st.data(),
)
def test_a_stationary_start_stays_stationary(problem, method, window, data):
    α = data.draw(strategies.stable_rates(problem, method, exact=True), label="rate")
    schedule = StepwiseSchedule.constant(α, 5 * window)
    run = moments.evolve(problem, method, schedule, window, from_stationary=True)
    assert len(set(run.risk)) == len(set(run.inner)) == len(set(run.squared_norm)) == 1
    assert not run.step_moments().mean.any()


@strategies.examples(0.3)
@given(strategies.runs(max_iterations=60))
def test_derived_quantities(run):
    e = moments.evolve(*run)
    k, T = run.window, len(run.schedule)
    assert e.iteration.tolist() == list(range(0, T - T % k + 1, k))
    pair = e.step_moments()
    second = pair.covariance + pair.mean[..., :, None] * pair.mean[..., None, :]
    gram = second.sum(axis=1)
    scale = np.sqrt(gram[:, 0, 0] * gram[:, 1, 1])
    # One comes from products over blocks of windows, the other from a map for each window, both of
    # some dozens of roundings; a stable map near its limit amplifies them.
    rounding = 500 * EPS
    np.testing.assert_allclose(e.inner / scale, gram[:, 0, 1] / scale, rtol=0, atol=rounding)
    np.testing.assert_allclose(e.squared_norm[:-1], gram[:, 0, 0], rtol=rounding)
    np.testing.assert_allclose(e.squared_norm[1:], gram[:, 1, 1], rtol=rounding)
    np.testing.assert_allclose(np.cos(e.ratio_angle), e.ratio, rtol=0, atol=4 * EPS)
    assert (np.abs(e.ratio) <= 1 + rounding).all()
    some = [len(e.inner) - 1, 0]
    assert equal(e.step_moments(some).covariance, pair.covariance[some])
    assert e.step_moments([]).mean.shape == (0, run.problem.dimension, 2)


def test_symbols_run_through():
    """One mode of SGD with symbols: E s_0 s_1 after a fixed start, and E f(x_1)."""
    a, v, x = sympy.symbols("a v x", positive=True)
    problem = NoisyQuadratic([a], [v], [x])
    run = moments.evolve(problem, UnifiedMomentum.sgd(), StepwiseSchedule([F(1, 2)], [3]))
    h = a / 2
    assert sympy.expand(run.risk[1] - a * ((1 - h) ** 2 * x**2 + h**2 * v) / 2) == 0
    expected = h**2 * (1 - h) * x**2 - h**3 * v
    assert sympy.expand(run.inner[0] - expected) == 0
    assert sympy.expand(run.squared_norm[0] - h**2 * (x**2 + v)) == 0


def test_a_million_iterations():
    """n = 200, 10⁶ iterations, window 64, three stages: it ends at the last stage's limits."""
    problem = NoisyQuadratic.paper()
    schedule = StepwiseSchedule([0.06, 0.03, 0.01], [400_000, 300_000, 300_000])
    run = moments.evolve(problem, UnifiedMomentum.sgd(), schedule, 64)
    assert run.risk.shape == (15_626,)
    h = 0.01 * problem.curvature
    expected = (problem.curvature * h * problem.noise_variance / (2 - h)).sum() / 2
    # Relaxed by exp(−2·0.001·3e5); what is left is the rounding of sums of 200 terms.
    assert run.risk[-1] == pytest.approx(expected, rel=200 * EPS * 8)


@pytest.mark.parametrize("window", [0, -1, 1.0, "8", None])
def test_window_must_be_a_positive_integer(window):
    schedule = StepwiseSchedule.constant(0.1, 10)
    with pytest.raises(ValueError, match="window must be a positive integer, got"):
        moments.evolve(NoisyQuadratic([1.0], 1.0), UnifiedMomentum.sgd(), schedule, window)


def test_three_windows_are_needed():
    schedule = StepwiseSchedule.constant(0.1, 11)
    with pytest.raises(ValueError, match=r">= 3 \* window = 12, got 11"):
        moments.evolve(NoisyQuadratic([1.0], 1.0), UnifiedMomentum.sgd(), schedule, 4)
    assert (
        len(moments.evolve(NoisyQuadratic([1.0], 1.0), UnifiedMomentum(), schedule, 3).inner) == 1
    )


def test_unstable_rates_overflow_with_an_error():
    schedule = StepwiseSchedule.constant(3.0, 2000)
    problem = NoisyQuadratic([1.0], 1.0, 1.0)
    with pytest.raises(OverflowError, match=r"max curvature is 3\.0, stable is < 2"):
        moments.evolve(problem, UnifiedMomentum.sgd(), schedule)
    with pytest.raises(ValueError, match=r"must be < 2.0 for stability .* got 3\.0"):
        moments.evolve(problem, UnifiedMomentum.sgd(), schedule, from_stationary=True)


@pytest.mark.parametrize("windows", [[-1], [8], [0, 99]])
def test_step_moments_outside_of_the_run(windows):
    run = moments.evolve(
        NoisyQuadratic([1.0], 1.0), UnifiedMomentum.sgd(), StepwiseSchedule.constant(0.1, 10)
    )
    with pytest.raises(IndexError, match=r"windows must lie in 0 … 7"):
        run.step_moments(windows)


def test_any_entry_that_is_exact_makes_the_problem_exact():
    schedule = StepwiseSchedule.constant(F(1, 4), 4)
    mixed = moments.evolve(NoisyQuadratic([1, 2], F(1, 2), 1), UnifiedMomentum.sgd(), schedule)
    exact = NoisyQuadratic([F(1), F(2)], [F(1, 2)] * 2, [F(1)] * 2)
    assert mixed.problem.exact
    assert same_run(mixed, moments.evolve(exact, UnifiedMomentum.sgd(), schedule))
