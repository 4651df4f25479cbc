"""The scatter of measured angles against closed forms, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, methods, problems, stable_rates
from tests.theory.chance import FALSE_ALARM
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, saturation, simulate
from theory.angle_noise import (
    angle_autocovariance,
    angle_deviation,
    effective_dimension,
    step_covariances,
)

SGD = UnifiedMomentum.sgd()
HEAVY_BALL = UnifiedMomentum.heavy_ball(0.9)
PAPER = NoisyQuadratic.paper()


@given(st.data(), problems(), methods(), st.integers(1, 7))
@examples(0.3)
def test_the_first_two_covariances_are_those_of_saturation(data, problem, method, k):
    rate = data.draw(stable_rates(problem, method))
    γ = step_covariances(problem, rate, method, k, 1)
    np.testing.assert_allclose(
        γ, saturation.window_step_moments(problem, rate, method, k), rtol=1e-12, atol=1e-300
    )


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("h", [0.05, 0.4, 1.3])
def test_covariances_of_one_mode_from_those_of_the_iterate(h, k):
    """E x_s x_t = V φ^{|s−t|}, averaged over windows and differenced: a sum of (11k)² terms."""
    φ, V, lags = 1 - h, h / (2 - h), 9
    t = np.arange(k * (lags + 2))
    C = V * φ ** np.abs(t[:, None] - t)
    average = np.kron(np.eye(lags + 2), np.full(k, 1 / k))
    steps = np.diff(average, axis=0)
    want = (steps @ C @ steps.T)[0]
    got = step_covariances(NoisyQuadratic([1.0], 1.0), h, SGD, k, lags)[:, 0]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-14 * V)


@pytest.mark.parametrize("n", [1, 3, 50])
@pytest.mark.parametrize("h", [0.1, 0.9, 1.5])
def test_equal_modes(h, n):
    """κ_0 = (1 − c²)/n with c = −h/2, as of any n pairs with that correlation."""
    problem = NoisyQuadratic([1.0] * n, 0.7)
    assert effective_dimension(problem, h, SGD) == pytest.approx(n, rel=1e-12)
    want = np.sqrt((1 - h**2 / 4) / n)
    assert angle_deviation(problem, h, SGD) == pytest.approx(want, rel=1e-12)


def test_the_effective_dimension_of_a_power_law():
    """Weights a²v/(2 − αa), here nearly a²: (Σa²)²/Σa⁴."""
    a = np.arange(1, 51.0) ** -1.5
    want = (a**2).sum() ** 2 / (a**4).sum()
    assert effective_dimension(NoisyQuadratic(a, 1.0), 1e-9, SGD) == pytest.approx(want, rel=1e-7)


CASES = [
    (PAPER, 0.06, SGD, 1, 0.01),
    (PAPER, 0.06, HEAVY_BALL, 1, 0.03),
    (PAPER, 0.001, SGD, 4, 0.01),
    (PAPER, 0.01, SGD, 16, 0.01),
    (PAPER, 0.01, UnifiedMomentum.nesterov(0.9), 4, 0.02),
    (NoisyQuadratic(np.arange(1, 201.0) ** -1.5, 0.02), 1.0, SGD, 4, 0.08),
]


@pytest.mark.parametrize(("problem", "rate", "method", "k", "bias"), CASES)
def test_deviations_of_simulated_angles(problem, rate, method, k, bias):
    """Of one angle and of the mean of ten, over 8000 stationary runs.

    `bias` is what the expansion in 1/n_eff neglects, fixed beforehand: n_eff ≈ 100, but 2.5 in the
    last, and more for momentum.  The standard error of a standard deviation s is
    s√((κ_4 + 2)/(4N)); excess kurtosis up to 1 is allowed for, and z < 5 has a false alarm of 6e-7.
    """
    runs, m = 8000, 10
    sample = simulate.run(
        problem,
        method,
        StepwiseSchedule.constant(rate, (m + 2) * k),
        trajectories=runs,
        seed=4,
        window=k,
        from_stationary=True,
    ).angle
    allowed = bias + 5.0 * np.sqrt(3 / (4 * runs))
    assert FALSE_ALARM > 6e-7  # of z = 5, two-sided
    one, mean = (angle_deviation(problem, rate, method, k, count) for count in (1, m))
    assert sample[0].std(ddof=1) == pytest.approx(one, rel=allowed)
    assert sample.mean(axis=0).std(ddof=1) == pytest.approx(mean, rel=allowed)


def test_neighbours_are_not_independent():
    """With momentum, ten angles say what 40 independent ones would: the test above sees that."""
    one, mean = (angle_deviation(PAPER, 0.06, HEAVY_BALL, 1, m) for m in (1, 10))
    assert mean < 0.5 * one / np.sqrt(10)
    κ = angle_autocovariance(PAPER, 0.06, SGD, 1, 3)
    assert κ[0] == pytest.approx(angle_deviation(PAPER, 0.06, SGD) ** 2)
    two = angle_deviation(PAPER, 0.06, SGD, 1, 2)
    assert two**2 == pytest.approx((κ[0] + κ[1]) / 2)


def test_bad_input():
    with pytest.raises(ValueError, match="average must be a positive integer, got 0"):
        angle_deviation(PAPER, 0.01, SGD, 1, 0)
    with pytest.raises(ValueError, match="must be < 2"):
        angle_deviation(PAPER, 0.2, SGD)
    with pytest.raises(ValueError, match="window must be a positive integer, got 0"):
        step_covariances(PAPER, 0.01, SGD, 0)


@pytest.mark.parametrize("method", [HEAVY_BALL, UnifiedMomentum.nesterov(0.5)], ids=str)
@pytest.mark.parametrize("k", [1, 3])
def test_covariances_at_long_lags_with_momentum(method, k):
    """Of the steps, by brute force: y over windows of k from the autocovariance of the steps."""
    problem, rate, lags = NoisyQuadratic([0.3, 1.0], [1.0, 0.2]), 0.5, 9
    g = saturation.step_autocovariance(problem, rate, method, (lags + 2) * k)
    w = np.concatenate([np.arange(1, k + 1), np.arange(k - 1, 0, -1)]) / k
    got = step_covariances(problem, rate, method, k, lags)
    for lag in range(lags + 1):
        want = sum(
            w[i] * w[j] * g[abs(lag * k + j - i)] for i in range(len(w)) for j in range(len(w))
        )
        np.testing.assert_allclose(got[lag], want, rtol=0, atol=1e-13 * g[0].max())
