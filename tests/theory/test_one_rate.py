"""Risk and angle at one rate against the recursion over windows, from the law a run enters with.

ROUNDING is relative to the largest second moment, for some hundreds of operations with numbers of
its size.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, methods, problems, runs, stable_rates
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, saturation
from theory.one_rate import at_one_rate, moments_at_stages

ROUNDING = 1e-11
SGD = UnifiedMomentum.sgd()
NESTEROV = UnifiedMomentum.nesterov(0.8)


@given(runs(), st.integers(1, 5), st.integers(0, 4), st.data())
@examples(0.5)
def test_the_last_stage_of_a_run(run, stride, first, data):
    """After any stages before it, all at once and on a line of times."""
    problem, method, schedule, k = run
    # The windows of `evolve` are counted from 0: the stage must begin with one.
    before = [k * length for length in schedule.lengths[:-1]]
    count = data.draw(st.integers(1, 6), label="count")
    own = k * (first + stride * (count - 1) + 3)
    whole = StepwiseSchedule(schedule.rates, [*before, own])
    exact = moments.evolve(problem, method, whole, k)
    entered = moments_at_stages(problem, method, whole)[-2]
    stage = at_one_rate(problem, method, schedule.rates[-1], k)
    D = stage.from_moments(entered)
    windows = sum(before) // k + first + stride * np.arange(count)
    size = max(float(exact.risk.max()), stage.floor)
    np.testing.assert_allclose(
        stage.risk(D, k * first, k * stride, count),
        exact.risk[windows],
        rtol=0,
        atol=ROUNDING * size,
    )
    norm = np.sqrt(exact.squared_norm[windows] * exact.squared_norm[windows + 1])
    largest = float(exact.squared_norm.max()) + stage.squared_norm
    np.testing.assert_allclose(
        np.cos(stage.angle(D, first, stride, count)) * norm,
        exact.inner[windows],
        rtol=0,
        atol=ROUNDING * largest,
    )


@given(st.data(), problems(), methods(), st.integers(1, 9))
@examples(0.5)
def test_limits_are_the_stationary_ones(data, problem, method, k):
    """The angle by another route, the autocovariance of the steps; the floor by a long run."""
    rate = data.draw(stable_rates(problem, method))
    stage = at_one_rate(problem, method, rate, k)
    squared, product = saturation.window_step_moments(problem, rate, method, k)
    assert stage.squared_norm == pytest.approx(squared.sum(), rel=ROUNDING)
    assert stage.inner == pytest.approx(product.sum(), abs=ROUNDING * squared.sum())
    assert np.cos(stage.limit) == pytest.approx(product.sum() / squared.sum(), abs=ROUNDING)
    still = stage.from_moments(stage._stationary)
    assert stage.risk(still)[0] == stage.floor
    start = moments.evolve(
        problem, method, StepwiseSchedule.constant(rate, 3), from_stationary=True
    )
    assert stage.floor == pytest.approx(start.risk[0], rel=ROUNDING)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("method", [SGD, NESTEROV, UnifiedMomentum(0.6, 2.0)], ids=str)
def test_a_line_of_times_is_each_time_by_itself(method, k):
    problem = NoisyQuadratic([0.3, 1.0, 3.0], [0.1, 0.4, 0.2], [-2.0, 1.0, 3.0])
    schedule = StepwiseSchedule([0.3, 0.2], [8, 60])
    entered = moments_at_stages(problem, method, schedule)[1]
    stage = at_one_rate(problem, method, 0.2, k)
    D = stage.from_moments(entered)
    t = 3 + 2 * np.arange(7)
    np.testing.assert_allclose(
        stage.risk(D, 3, 2, 7), [stage.risk(D, i)[0] for i in t], rtol=ROUNDING
    )
    np.testing.assert_allclose(
        stage.angle(D, 3, 2, 7), [stage.angle(D, i)[0] for i in t], rtol=ROUNDING
    )
    run = moments.evolve(problem, method, schedule)
    np.testing.assert_allclose(stage.risk(D, 3, 2, 7), run.risk[8 + t], rtol=ROUNDING)


@pytest.mark.parametrize("method", [SGD, NESTEROV, UnifiedMomentum(0.6, 2.0)], ids=str)
def test_moved_twice_is_moved_once(method):
    problem = NoisyQuadratic([0.3, 1.0, 3.0], [0.1, 0.4, 0.2], [-2.0, 1.0, 3.0])
    stage = at_one_rate(problem, method, 0.2, 4)
    D = stage.from_moments(moments_at_stages(problem, method, StepwiseSchedule([0.3], [7]))[-1])
    np.testing.assert_allclose(
        stage.moved(stage.moved(D, 5), 11), stage.moved(D, 16), rtol=0, atol=1e-15
    )
    assert stage.moved(D, 0) is D
    after = moments_at_stages(problem, method, StepwiseSchedule([0.3, 0.2], [7, 13]))[-1]
    np.testing.assert_allclose(stage.moments_after(D, 13), after, rtol=1e-13)


@given(runs(max_stages=2), st.integers(0, 30))
@examples(0.5)
def test_bounds_hold(run, t):
    problem, method, schedule, k = run
    stage = at_one_rate(problem, method, schedule.rates[-1], k)
    D = stage.from_moments(moments_at_stages(problem, method, schedule)[0])
    slack = 1 + ROUNDING
    assert abs(stage.risk(D, t)[0] - stage.floor) <= stage.risk_bound(D, t) * slack + 1e-14
    bound = stage.angle_bound(D, t)
    if bound < 1:
        ratio = np.cos(stage.angle(D, t)[0])
        assert abs(ratio - np.cos(stage.limit)) <= bound * slack + 1e-14


def test_a_mode_that_forgets_at_once():
    """αa = 1: from the second iteration on, all is stationary."""
    problem = NoisyQuadratic([2.0], 0.3, 5.0)
    stage = at_one_rate(problem, SGD, 0.5)
    D = stage.from_moments(problem.start[None] ** 2)
    risk = stage.risk(D, 0, 1, 3)
    assert risk[0] == pytest.approx(25.0, rel=1e-15)
    assert risk[1:] == pytest.approx([stage.floor] * 2, rel=1e-15)
    assert stage.floor == pytest.approx(0.3, rel=1e-15)  # a V/2, V = v at αa = 1


@pytest.mark.parametrize(
    ("rate", "window", "message"),
    [
        (2.0, 1, r"learning_rate \* max curvature must be < 2"),
        (0.0, 1, "learning_rate must be finite and > 0, got 0.0"),
        (0.1, 0, "window must be a positive integer, got 0"),
    ],
)
def test_bad_input(rate, window, message):
    with pytest.raises(ValueError, match=message):
        at_one_rate(NoisyQuadratic([1.0], 0.1, 1.0), SGD, rate, window)
