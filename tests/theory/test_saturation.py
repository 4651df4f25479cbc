"""Stationary values, the window law, the rate of saturation and the reset."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import sympy
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.theory import brute_force
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, linear, moments, saturation

EPS = np.finfo(float).eps
F = Fraction
SGD = UnifiedMomentum.sgd()


@st.composite
def stationary_cases(draw, exact=True, method=None, max_modes=3):
    """(problem, stable rate, method)."""
    problem = draw(strategies.problems(exact, max_modes), label="problem")
    method = method or draw(strategies.methods(exact))
    return problem, draw(strategies.stable_rates(problem, method, exact), label="rate"), method


def stationary_run(problem, α, method, window=1):
    schedule = StepwiseSchedule.constant(α, 3 * window)
    return moments.evolve(problem, method, schedule, window, from_stationary=True)


# Closed forms equal the recursion, on rationals, without tolerance.


@given(stationary_cases(method=SGD))
def test_theorem_3_2(case):
    """(4), (20) and (5) are the moments of the first two steps from stationarity."""
    problem, α, _ = case
    run = stationary_run(*case)
    assert saturation.inner_product_limit(problem, α) == run.inner[0]
    assert saturation.squared_norm_limit(problem, α) == run.squared_norm[0]
    ratio = saturation.inner_product_limit(problem, α) / saturation.squared_norm_limit(problem, α)
    assert saturation.cosine_ratio(problem, α) == ratio
    a, v = problem.curvature, problem.noise_variance
    w = a**2 * v / (2 - α * a)
    assert ratio == (w * (-α * a / 2)).sum() / w.sum()
    assert -α * max(a) / 2 <= ratio <= -α * min(a) / 2  # (6)


@given(stationary_cases(method=SGD))
def test_wrong_forms_of_theorem_3_2_are_told_apart(case):
    """The exact comparison rejects 2 + αa, a lost factor 2 and a flipped sign, in every case."""
    problem, α, _ = case
    run = stationary_run(*case)
    a, v = problem.curvature, problem.noise_variance
    inner = {
        "2 + αa": -(α**3) * (a**3 * v / (2 + α * a)).sum(),
        "sign": α**3 * (a**3 * v / (2 - α * a)).sum(),
        "1 − αa/2": -(α**3) * (a**3 * v / (1 - α * a / 2)).sum(),
    }
    squared_norm = {
        "2 + αa": 2 * α**2 * (a**2 * v / (2 + α * a)).sum(),
        "factor 2": α**2 * (a**2 * v / (2 - α * a)).sum(),
    }
    for what, wrong in inner.items():
        assert wrong != run.inner[0], what
    for what, wrong in squared_norm.items():
        assert wrong != run.squared_norm[0], what


@strategies.examples(0.4)
@given(stationary_cases(), st.integers(1, 6))
def test_window_moments_of_any_method(case, window):
    run = stationary_run(*case, window)
    squared, product = saturation.window_step_moments(*case, window)
    assert (run.step_moments().covariance[0, :, 0, 0] == squared).all()
    assert (run.step_moments().covariance[0, :, 1, 1] == squared).all()
    assert (run.step_moments().covariance[0, :, 0, 1] == product).all()
    assert saturation.cosine_ratio(*case, window) == run.inner[0] / run.squared_norm[0]


@given(stationary_cases())
def test_stationary_covariance_is_the_fixed_point(case):
    """… of one literal update of eq. (9), through d = x − yˢ."""
    problem, α, method = case
    v = problem.noise_variance
    S = linear.stationary_covariance(α * problem.curvature, v, method)
    change = np.array([[1, 0], [1, -1]], dtype=object)  # (x, yˢ) ↦ (x, d)
    for i, a in enumerate(problem.curvature):
        assert (S[i] == change @ brute_force.stationary(a, v[i], method, α, True) @ change.T).all()


@strategies.examples(0.5)
@given(stationary_cases(exact=False, max_modes=6))
def test_stationary_covariance_solves_the_lyapunov_equation(case):
    problem, α, method = case
    h, v = α * problem.curvature, problem.noise_variance
    M, b = linear.transition(h, method), linear.noise_gain(h, method)
    S = linear.stationary_covariance(h, v, method)
    for i in range(len(h)):
        solved = scipy.linalg.solve_discrete_lyapunov(M[i], v[i] * np.outer(b[i], b[i]))
        # The solver's linear system is as ill conditioned as 1/(1 − r²).
        r = np.abs(np.linalg.eigvals(M[i])).max()
        condition = np.linalg.norm(np.kron(M[i], M[i]) - np.eye(4), 2) * np.linalg.norm(
            np.linalg.inv(np.kron(M[i], M[i]) - np.eye(4)), 2
        )
        assert r < 1
        assert np.abs(S[i] - solved).max() <= 64 * EPS * condition * np.abs(S[i]).max()


@given(stationary_cases(method=SGD), st.integers(1, 8))
def test_window_law(case, window):
    """For one curvature the ratio is the window law, for more their weighted mean."""
    problem, α, _ = case
    squared, product = saturation.window_step_moments(problem, α, SGD, window)
    assert (product == saturation.window_cosine(α * problem.curvature, window) * squared).all()


@strategies.examples(0.4)
@given(stationary_cases(method=SGD), st.integers(0, 12))
def test_transient(case, iteration):
    problem, α, _ = case
    run = moments.evolve(problem, SGD, StepwiseSchedule.constant(α, iteration + 3))
    squared, product = saturation.transient_step_moments(problem, α, iteration)
    assert squared == run.squared_norm[iteration]
    assert product == run.inner[iteration]


@given(stationary_cases(method=SGD), strategies.fractions("1/20", 1))
def test_after_a_drop(case, factor):
    problem, α, _ = case
    # Two stages; the first window pair that lies behind the drop starts at t = 1.
    run = moments.evolve(
        problem, SGD, StepwiseSchedule([α, factor * α], [1, 3]), from_stationary=True
    )
    inner = saturation.inner_product_after_drop(problem, α, factor)
    assert inner == run.inner[1]
    # The angle falls below 90° exactly when ρ < ½.
    assert np.sign(inner) == np.sign(1 - 2 * factor)


@given(stationary_cases(), st.data())
def test_heavy_ball_at_window_1(case, data):
    """Per-mode correlation exactly β − αa/2."""
    problem, _, _ = case
    method = UnifiedMomentum.heavy_ball(data.draw(strategies.fractions(0, "19/20")))
    α = data.draw(strategies.stable_rates(problem, method, exact=True))
    squared, product = saturation.window_step_moments(problem, α, method)
    assert (product == (method.momentum - α * problem.curvature / 2) * squared).all()


@given(stationary_cases(method=SGD), strategies.fractions(0, "19/20"), st.integers(1, 4))
def test_plain_gradient_descent_in_disguise(case, β, window):
    """s = 1/(1 − β) is SGD at α/(1 − β), stable where that is."""
    problem, α, _ = case
    disguised = UnifiedMomentum(β, 1 / (1 - β))
    left = saturation.window_step_moments(problem, (1 - β) * α, disguised, window)
    assert np.equal(left, saturation.window_step_moments(problem, α, SGD, window)).all()


# The window law by sympy: from the autocovariance γ_m = γ_0 φᵐ, summed over windows.


def autocovariance_law(φ, k):
    """(2γ_1 − γ_2 − γ_0)/(2(γ_0 − γ_1)), γ_m the mean of φ^|i−j+mk| over i, j < k."""
    γ = [sum(φ ** abs(i - j + m * k) for i in range(k) for j in range(k)) for m in range(3)]
    return (2 * γ[1] - γ[2] - γ[0]) / (2 * (γ[0] - γ[1]))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_window_law_by_sympy(k):
    h = sympy.symbols("h", positive=True)
    law = sympy.cancel(saturation.window_cosine(h, k))
    assert sympy.cancel(law - autocovariance_law(1 - h, k)) == 0
    limit = sympy.Rational(k**2 - 1, 2 * (2 * k**2 + 1))
    assert sympy.limit(law, h, 0) == limit
    assert saturation.small_rate_limit(k) == float(limit)
    # Strictly falling on (0, 1]: the derivative has no zero there (Sturm) and is negative at ½.
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.diff(law, h)))
    roots = sympy.Poly(numerator, h).count_roots(0, 1) if numerator.has(h) else 0
    assert roots == 0
    assert sympy.Poly(sympy.fraction(law)[1], h).count_roots(0, 1) == 0
    assert (numerator / denominator).subs(h, sympy.Rational(1, 2)) < 0


def test_window_law_for_long_windows_by_sympy():
    """k → ∞ at fixed h: with E = 1 − φᵏ → 1, the closed form for symbolic k tends to −½."""
    φ, E = sympy.symbols("phi E")
    k = sympy.symbols("k", positive=True)
    h = 1 - φ
    # γ_0, γ_1, γ_2 summed as geometric series, φᵏ = 1 − E
    γ0 = k + 2 * (k * φ / (1 - φ) - φ * E / (1 - φ) ** 2)
    γ1 = φ * E**2 / (1 - φ) ** 2
    γ2 = γ1 * (1 - E)
    series = (2 * γ1 - γ2 - γ0) / (2 * (γ0 - γ1))
    printed = (φ * E * (2 + E + E**2) - k * h * (2 - h)) / (2 * (k * h * (2 - h) - φ * E * (2 + E)))
    assert sympy.cancel(series - printed) == 0
    for n in (1, 2, 5):
        value = printed.subs({E: 1 - φ**n, k: n})
        assert sympy.cancel(value - saturation.window_cosine(1 - φ, n)) == 0
    far = sympy.limit(printed.subs(E, 1), k, sympy.oo)
    assert sympy.cancel(far) == -sympy.Rational(1, 2)


@given(st.fractions(F(1, 10), 1, max_denominator=10), st.integers(6, 9))
def test_window_law_at_kh_large(h, exponent):
    """0 < C + ½ = (3φ… )/(2kh…) ≤ 4/(kh): from above, at the rate 1/(kh)."""
    k = 2**exponent
    gap = saturation.window_cosine(h, k) + F(1, 2)
    assert 0 <= gap <= F(4) / (k * h)


@given(
    st.lists(st.fractions(F(1, 100), 1, max_denominator=100), min_size=2, max_size=6, unique=True),
    st.integers(1, 64),
)
def test_window_law_falls_and_stays_in_its_range(steps, k):
    """0 < h ≤ 1: strictly falling in h, between −½ and (k² − 1)/(2(2k² + 1))."""
    law = [saturation.window_cosine(h, k) for h in sorted(steps)]
    assert all(left > right for left, right in pairwise(law))
    assert all(F(-1, 2) <= value < F(k**2 - 1, 2 * (2 * k**2 + 1)) for value in law)


@pytest.mark.parametrize(("k", "h", "value"), [(8, F(176, 100), -0.550), (3, F(198, 100), -0.971)])
def test_window_law_ends_beyond_one(k, h, value):
    """Past αa = 1 the angle can exceed 120° (three printed decimals)."""
    assert float(saturation.window_cosine(h, k)) == pytest.approx(value, abs=5e-4)
    assert saturation.window_cosine(h, k) == autocovariance_law(1 - h, k)


@pytest.mark.parametrize("window", [0, -3, 2.0, "4"])
def test_window_law_needs_a_window(window):
    with pytest.raises(ValueError, match="window must be a positive integer, got"):
        saturation.window_cosine(0.1, window)
    with pytest.raises(ValueError, match="window must be a positive integer, got"):
        saturation.small_rate_limit(window)
    with pytest.raises(ValueError, match="window must be a positive integer, got"):
        saturation.cosine_ratio(NoisyQuadratic([1.0], 1.0), 0.1, SGD, window)


# Small rates: no large numbers cancel.


@pytest.mark.parametrize("exponent", [6, 7, 8, 12])
@pytest.mark.parametrize("window", [1, 2, 64])
@pytest.mark.parametrize(
    "method", [SGD, UnifiedMomentum(F(9, 10), 0), UnifiedMomentum(F(1, 2), 1)], ids=repr
)
def test_small_rates_keep_their_digits(exponent, window, method):
    """Floats against Fractions of the very same floats: relative error of a few hundred eps."""
    a, v, x0 = [0.7, 3.1], [0.02, 0.5], [1e-3, -2e-3]
    α, β, s = 10.0**-exponent, float(method.momentum), float(method.s)
    exact_problem = NoisyQuadratic(*([F(x) for x in part] for part in (a, v, x0)))
    problem = NoisyQuadratic(a, v, x0)
    floating, exact = UnifiedMomentum(β, s), UnifiedMomentum(F(β), F(s))

    expected = saturation.window_step_moments(exact_problem, F(α), exact, window)
    found = saturation.window_step_moments(problem, α, floating, window)
    run = moments.evolve(
        problem, floating, StepwiseSchedule.constant(α, 3 * window), window, from_stationary=True
    )
    # Sums of 4k − 3 autocovariances, each from a recursion of up to 3k steps.
    rounding = (64 + 8 * window) * EPS
    for i in range(2):
        np.testing.assert_allclose(found[i].astype(float), expected[i].astype(float), rtol=rounding)
    assert run.squared_norm[0] == pytest.approx(float(sum(expected[0])), rel=rounding)
    assert run.inner[0] == pytest.approx(float(sum(expected[1])), rel=rounding)
    ratio = sum(expected[1]) / sum(expected[0])
    assert saturation.cosine_ratio(problem, α, floating, window) == pytest.approx(
        float(ratio), rel=2 * rounding
    )


# Stability and the rate of saturation.


@given(strategies.methods(), st.floats(1e-3, 0.999) | st.floats(1.001, 4.0))
def test_stability_is_spectral_radius_below_one(method, share):
    """h = θ·2(1 + β)/(1 + 2βs): stable iff θ < 1. M is read off from eq. (9)."""
    h = share * method.max_stable_step
    assert method.max_stable_step == 2 * (1 + method.momentum) / (
        1 + 2 * method.momentum * method.s
    )
    M, _ = brute_force.one_step(h, method, 1.0)
    radius = np.abs(np.linalg.eigvals(np.array(M, dtype=float))).max()
    assert (radius < 1) == (share < 1)
    problem = NoisyQuadratic([h], 1.0)
    if share < 1:
        linear.require_stable(problem, 1.0, method)
        rate = saturation.saturation_rate(problem, 1.0, method)
        # Eigenvalues of a 2 × 2 matrix, ill conditioned (√eps) where the two meet.
        assert math.exp(-rate / 2) == pytest.approx(radius, abs=4 * math.sqrt(EPS))
    else:
        with pytest.raises(ValueError, match=r"learning_rate \* max curvature must be < .*, got"):
            linear.require_stable(problem, 1.0, method)


@given(stationary_cases(exact=False, method=SGD, max_modes=6))
def test_rate_of_sgd(case):
    problem, α, _ = case
    a = problem.curvature
    rate = saturation.saturation_rate(problem, α)
    assert math.exp(-rate / 2) == pytest.approx(np.abs(1 - α * a).max(), abs=4 * EPS)
    if α * (min(a) + max(a)) <= 2:
        assert rate >= 2 * α * min(a) * (1 - 4 * EPS) - 4 * EPS


@pytest.mark.parametrize("method", [SGD, UnifiedMomentum(0.2, 0.0), UnifiedMomentum(0.3, 1.0)])
def test_rate_is_the_measured_decay(method):
    """E f(x_t) − limit ∝ e^{−rate·t} once the faster exponentials have died out."""
    problem, α = NoisyQuadratic([0.5, 2.0], [1.0, 0.3], [3.0, 1.0]), 0.2
    run = moments.evolve(problem, method, StepwiseSchedule.constant(α, 140))
    S = linear.stationary_covariance(α * problem.curvature, problem.noise_variance, method)
    limit = (problem.curvature * S[:, 0, 0]).sum() / 2
    rate = saturation.saturation_rate(problem, α, method)
    t = np.array([60, 61, 70, 71])
    excess = run.risk[t] - limit
    decay = -np.diff(np.log(np.abs(excess)))[::2]
    radii = np.abs(np.linalg.eigvals(linear.transition(α * problem.curvature, method)))
    slowest = np.sort(radii.ravel())
    # What is left of the next exponential, and the rounding of the excess.
    other = (slowest[-2] / slowest[-1]) ** t[::2]
    tolerance = 100 * other + 100 * EPS * limit / np.abs(excess[::2])
    assert (np.abs(decay - rate) <= tolerance).all()
    assert tolerance.max() < 0.1 * rate


def test_every_mode_forgets_at_once():
    assert saturation.saturation_rate(NoisyQuadratic([2.0, 2.0], 1.0), 0.5) == math.inf


def test_smaller_rates_saturate_more_slowly():
    """P2 (iii) on the paper's NQM while α(a_min + a_max) ≤ 2."""
    problem = NoisyQuadratic.paper()
    rates = [saturation.saturation_rate(problem, α) for α in (0.001, 0.01, 0.03, 0.06, 2 / 20.1)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(2 * 0.001 * 0.1, rel=2e-4)


# Numbers printed elsewhere.


def test_heavy_ball_passes_120_degrees():
    problem = NoisyQuadratic(np.linspace(0.1, 2.0, 20), 0.02)
    method = UnifiedMomentum.heavy_ball(0.9)
    ratio = saturation.cosine_ratio(problem, 0.06, method, 8)
    assert ratio == pytest.approx(-0.51176, abs=5e-6)
    run = stationary_run(problem, 0.06, method, 8)
    assert run.ratio[0] == pytest.approx(ratio, rel=1000 * EPS)


def test_after_a_drop_on_the_papers_problem():
    """ρ = 0.95 at window 1: 118.23°, then 115.82° and 116.55°; ρ = ½: exactly 90°."""
    problem = NoisyQuadratic.paper()
    schedule = StepwiseSchedule([0.06, 0.95 * 0.06], [2, 4000])
    run = moments.evolve(problem, SGD, schedule, from_stationary=True)
    # Steps s_0, s_1 | s_2, s_3, …: angle 1 straddles the drop.
    before, straddling, *after = np.degrees(run.ratio_angle)
    assert before == straddling == pytest.approx(118.23, abs=5e-3)
    assert after[:2] == pytest.approx([115.82, 116.55], abs=5e-3)
    limit = saturation.cosine_ratio(problem, 0.95 * 0.06)
    assert run.ratio[-1] == pytest.approx(limit, rel=200 * EPS)
    exact = NoisyQuadratic([F(i, 10) for i in range(1, 201)], [F(1, 50)] * 200, [F(0)] * 200)
    assert saturation.inner_product_after_drop(exact, F(6, 100), F(1, 2)) == 0


def test_windows_that_straddle_a_drop():
    """k = 64 on the paper's NQM: ρ = 0.95 moves the angle by less than the rule's 0.1° at once.

    ρ = 0.1: about 110°, 135° and 102.5° before it settles, never below 90°.
    """

    def angles(factor):
        schedule = StepwiseSchedule([0.06, factor * 0.06], [3 * 64, 60 * 64])
        run = moments.evolve(NoisyQuadratic.paper(), SGD, schedule, 64, from_stationary=True)
        return np.degrees(run.ratio_angle)

    mild, hard = angles(0.95), angles(0.1)
    assert np.ptp(mild) < 0.1
    assert hard[1:4] == pytest.approx([110, 135, 102.5], abs=0.5)
    assert hard.min() > 90


@pytest.mark.parametrize("name", ["inner_product_limit", "squared_norm_limit", "saturation_rate"])
@pytest.mark.parametrize("rate", [0.0, -0.1, math.inf, math.nan])
def test_rates_must_be_positive(name, rate):
    with pytest.raises(ValueError, match="learning_rate must be finite and > 0, got"):
        getattr(saturation, name)(NoisyQuadratic([1.0], 1.0), rate)


@pytest.mark.parametrize(
    "name",
    [
        "cosine_ratio",
        "expected_angle",
        "expected_cosine",
        "inner_product_limit",
        "saturation_rate",
        "squared_norm_limit",
        "step_autocovariance",
        "window_step_moments",
    ],
)
def test_stability_and_noise_are_required(name):
    function = getattr(saturation, name)
    with pytest.raises(ValueError, match=r"must be < 2.*for stability .*, got 2\.0"):
        function(NoisyQuadratic([1.0, 2.0], 1.0), 1.0)
    with pytest.raises(ValueError, match="noise_variance must be > 0 in some mode"):
        function(NoisyQuadratic([1.0], 0.0), 1.0)


def test_other_bad_input():
    problem = NoisyQuadratic([1.0], 1.0)
    with pytest.raises(ValueError, match="iteration must be an integer >= 0, got -1"):
        saturation.transient_step_moments(problem, 0.1, -1)
    for factor in (0.0, -0.5, 1.5):
        with pytest.raises(ValueError, match=f"factor must satisfy 0 < factor <= 1, got {factor}"):
            saturation.inner_product_after_drop(problem, 0.1, factor)
