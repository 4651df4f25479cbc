"""Model (12), Algorithm 2 as its pseudo-code runs, the gaps in closed form and their constants.

Models are drawn in exact rationals, inside of the hypotheses, and π is replaced by rationals on
both sides of it: k_i is irrational, so no comparison can be a tie.
"""

import math
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pytest
import sympy
from hypothesis import event, given, target
from hypothesis import strategies as st

from tests import strategies
from theory import StepwiseSchedule, velocity_model
from theory.velocity_model import VelocityModel, algorithm_2, fit, gap_constants, gaps

EPS = np.finfo(float).eps
F = Fraction
PI_BELOW = F(int(sympy.floor(sympy.pi * 10**60)), 10**60)
PI_ABOVE = PI_BELOW + F(1, 10**60)
RIGHT_ANGLES = {"pi": F(2)}  # angles in units of a right angle


class Case(NamedTuple):
    rates: tuple
    model: VelocityModel
    threshold: Fraction

    @property
    def steps(self):
        """γα̂_i."""
        return [self.model.curvature * rate for rate in self.rates]


@st.composite
def cases(draw, max_step=4, max_threshold=2, falling=True):
    """ε α̂_max = θ/3 with θ < 1, γ α̂_max ≤ max_step, 0 < τ_0 ≤ max_threshold, up to 5 stages."""
    top = draw(strategies.fractions("1/20", 2), label="largest rate")
    shares = draw(st.lists(strategies.fractions("1/10", 1, 10), max_size=4), label="falls")
    rates = [top, *(top * share for share in shares)]
    if falling:
        rates = sorted(rates, reverse=True)
    θ = draw(strategies.fractions("1/50", "49/50", 50), label="share of the largest asymptote")
    step = draw(strategies.fractions("1/20", 1, 20), label="share of the largest step") * max_step
    τ_0 = draw(strategies.fractions("1/50", 1, 50), label="share of the threshold") * max_threshold
    event(f"stages: {len(rates)}")
    event(f"initial threshold in use: {τ_0 < step / 2}")
    return Case(tuple(rates), VelocityModel(θ / (3 * top), step / top), τ_0)


times = strategies.fractions(0, 500)


# The model.


@strategies.examples(0.5)
@given(cases(), times, times)
def test_the_model_rises_from_0_to_its_level(case, time, later):
    for rate in case.rates:
        level = case.model.level(rate, **RIGHT_ANGLES)
        assert 1 < level < F(4, 3)
        now, then = (case.model.angle(rate, t, **RIGHT_ANGLES) for t in sorted([time, later]))
        assert 0 <= now <= then < level
        assert case.model.angle(rate, 0, **RIGHT_ANGLES) == 0


@strategies.examples(0.5)
@given(cases(), times)
def test_the_printed_forms(case, time):
    ε, γ = case.model.asymptote, case.model.curvature
    for α in case.rates:
        printed = (1 + ε * α) * (1 - 1 / (γ * α * (time + 1 / (γ * α))))
        assert case.model.angle(α, time, **RIGHT_ANGLES) == printed
        slope = PI_BELOW * (1 + ε * α) / (2 * γ * α * (time + 1 / (γ * α)) ** 2)
        assert case.model.derivative(α, time, pi=PI_BELOW) == slope
        wrong = PI_BELOW * (1 + ε * α) / (2 * (time + 1 / (γ * α)) ** 2)  # a lost γα
        assert (case.model.derivative(α, time, pi=PI_BELOW) == wrong) == (γ * α == 1)


@strategies.examples(0.5)
@given(cases(), strategies.fractions(0, "99/100", 100))
def test_the_share_of_the_level_is_reached_on_time(case, share):
    for rate in case.rates:
        time = case.model.time_to_share(rate, share)
        reached = case.model.angle(rate, time, **RIGHT_ANGLES)
        assert reached == share * case.model.level(rate, **RIGHT_ANGLES)


def test_numbers_arrays_and_symbols():
    model, rates = VelocityModel(0.5, 2.0), np.array([0.1, 0.2])
    angle = model.angle(rates[:, None], np.arange(5.0))
    assert angle.shape == (2, 5)
    assert angle[1, 3] == model.angle(0.2, 3)
    ε, γ, α, t, τ = sympy.symbols("ε γ α t τ", positive=True)
    symbolic = VelocityModel(ε, γ)
    slope = sympy.diff(symbolic.angle(α, t, pi=sympy.pi), t)
    assert sympy.simplify(slope - symbolic.derivative(α, t, pi=sympy.pi)) == 0
    k = symbolic.gap(α, τ, pi=sympy.pi)
    assert sympy.simplify(symbolic.derivative(α, k, pi=sympy.pi) - τ) == 0
    values = {ε: 0.5, γ: 2.0, α: 0.2, τ: 0.01}
    assert math.isclose(float(k.subs(values)), model.gap(0.2, 0.01), rel_tol=32 * EPS)


# Algorithm 2.


@strategies.examples(0.5)
@given(cases(falling=False))
def test_the_loop_has_one_update_more_than_the_gaps(case):
    for pi in (PI_BELOW, PI_ABOVE):
        schedule = algorithm_2(*case, pi=pi)
        k = gaps(*case, pi=pi).rounded
        assert schedule == StepwiseSchedule(case.rates, (k[0] + 1, *k[1:]))
        assert len(schedule) == sum(k) + 1


@given(cases(falling=False))
def test_gaps_are_the_first_integers_after_the_closed_form(case):
    real, rounded = gaps(*case, pi=PI_BELOW)
    assert gaps(*case, pi=PI_ABOVE).rounded == rounded
    for rate, k, x in zip(case.rates, rounded, real, strict=True):
        τ = case.model.stage_threshold(rate, case.threshold)
        γα, ε = case.model.curvature * rate, case.model.asymptote
        # k − 1 < x ≤ k for the x with (1 + γαx)² = X, decided without a root
        X = PI_BELOW * (1 + ε * rate) * γα / (2 * τ)
        assert k >= 1
        assert (1 + γα * (k - 1)) ** 2 < X <= (1 + γα * k) ** 2
        # One rounding in each of a handful of operations; x + 1/γα cancels to x.
        error = 16 * EPS * (abs(x) + 1 / float(γα))
        assert abs((1 + float(γα) * x) - math.sqrt(X)) <= float(γα) * error + 16 * EPS
        assert k - 1 - error < x < k + error


@given(cases(), st.sampled_from(["1/(γα) added", "τ_i = τ_0", "√τ lost", "factor 2"]))
def test_wrong_closed_forms_are_told_apart(case, wrong):
    """At a step so small that rounding up cannot hide them."""
    rate, model = case.rates[0], VelocityModel(case.model.asymptote, F(1, 1000) / case.rates[0])
    γα, ε, τ_0 = F(1, 1000), model.asymptote, case.threshold
    k = gaps([rate], model, τ_0, pi=PI_BELOW).rounded[0]
    τ = min(τ_0, γα / 2)
    assert τ == γα / 2 < τ_0
    root = math.sqrt(math.pi * (1 + ε * rate) / (2 * γα * τ))
    forms = {
        "1/(γα) added": root + 1000,
        "τ_i = τ_0": math.sqrt(math.pi * (1 + ε * rate) / (2 * γα * τ_0)) - 1000,
        "√τ lost": math.sqrt(math.pi * (1 + ε * rate) / (2 * γα)) / τ - 1000,
        "factor 2": math.sqrt(math.pi * (1 + ε * rate) / (γα * τ)) - 1000,
    }
    assert abs(root - 1000 - k) <= 1
    assert abs(forms[wrong] - k) > 2


@strategies.examples(0.5)
@given(cases(falling=False))
def test_floats_agree_with_themselves(case):
    """In floating point too, gaps are those of the loop, whatever rounding does."""
    model = VelocityModel(float(case.model.asymptote), float(case.model.curvature))
    rates = [float(rate) for rate in case.rates]
    k = gaps(rates, model, float(case.threshold)).rounded
    assert algorithm_2(rates, model, float(case.threshold)).lengths == (k[0] + 1, *k[1:])


def test_a_schedule_worked_by_hand():
    # τ = γα/2, so k is the first with (1 + γαk)² ≥ π(1 + εα): 1 for γα = 1 (3.30), 2 for γα = 1/2
    # (3.22). Stage 0 is updated once more.
    model = VelocityModel(F(1, 20), 1)
    assert gaps([F(1), F(1, 2)], model, 1).rounded == (1, 2)
    assert algorithm_2([F(1), F(1, 2)], model, 1) == StepwiseSchedule([F(1), F(1, 2)], [2, 2])


# κ_1 and κ_2.


def within(case, lengths, squared_bound):
    """(γ k_i α̂_i)² < the bound, which contains π, for every stage; decided exactly."""
    return [(s * k) ** 2 < squared_bound for s, k in zip(case.steps, lengths, strict=True)]


@strategies.examples(0.5)
@given(cases(max_step=8, falling=False))
def test_the_lower_constant(case):
    """(1 + γkα)² > π: k_i α̂_i > (√π − 1)/γ, with any τ_0 and γ."""
    for s, k in zip(case.steps, gaps(*case, pi=PI_ABOVE).rounded, strict=True):
        assert (1 + s * k) ** 2 > PI_ABOVE
    γ = float(case.model.curvature)
    assert gap_constants(*case).lower == (math.sqrt(math.pi) - 1) / γ


def test_a_larger_lower_constant_is_rejected():
    """By 1 % it is too large: εα = 0.003 and a gap of thousands of iterations."""
    case = Case((F(1),), VelocityModel(F(3, 1000), F(1, 10_000)), F(1))
    (k,) = gaps(*case).rounded
    κ_1 = gap_constants(*case).lower
    assert κ_1 <= k < 1.01 * κ_1


@strategies.examples(0.5)
@given(cases(max_step=1, max_threshold=F(1, 2)))
def test_the_printed_upper_constant_under_its_true_hypotheses(case):
    """τ_0 ≤ ½, γα̂_i ≤ 1; for the loop's stage 0 also γα̂_0 ≤ ½."""
    bound = 2 * PI_BELOW / (3 * case.threshold)
    k = gaps(*case, pi=PI_BELOW).rounded
    assert all(within(case, k, bound))
    if case.steps[0] <= F(1, 2):
        assert all(within(case, algorithm_2(*case, pi=PI_BELOW).lengths, bound))
    printed = velocity_model.printed_gap_constants(case.model, case.threshold)
    κ_2 = math.sqrt(bound) / float(case.model.curvature)
    assert math.isclose(printed.upper, κ_2, rel_tol=8 * EPS)


@pytest.mark.parametrize(
    ("step", "threshold", "real"),
    [(F(1), F(39, 20), True), (F(2), F(1, 10), True), (F(1), F(53, 100), False),
     (F(103, 100), F(1, 2), False)],
)  # fmt: skip
def test_the_printed_upper_constant_fails_without_them(step, threshold, real):
    case = Case((F(1),), VelocityModel(F(333, 1000), step), threshold)
    found = gaps(*case, pi=PI_BELOW)
    assert not any(within(case, found.rounded, 2 * PI_ABOVE / (3 * threshold)))
    upper = velocity_model.printed_gap_constants(case.model, threshold).upper
    assert (found.real[0] > upper) == real


@strategies.examples(0.5)
@given(cases(max_step=8, falling=False))
def test_the_corrected_upper_constant(case):
    """For any τ_0 and γ; tight up to rounding up, so that without α̂ it bounds the real gaps."""
    k, κ = gaps(*case), gap_constants(*case)
    literal = gap_constants(*case, literal=True)
    rates = np.array(case.rates, dtype=float)
    slack = 1 + 16 * EPS  # rounding of a dozen operations
    assert (np.array(k.rounded) * rates).max() <= κ.upper * slack
    lengths = np.array(algorithm_2(*case).lengths)
    assert (lengths * rates).max() <= literal.upper * slack
    largest = float(max(rates))
    real = max(x * a for x, a in zip(k.real, rates, strict=True))
    assert math.isclose(real, κ.upper - largest, rel_tol=64 * EPS)
    target(float((np.array(k.rounded) * rates).max() / κ.upper), label="k α over κ_2")


def test_wrong_upper_constants_are_rejected():
    """Without what rounding up adds, and without the maximum."""
    case = Case((F(1),), VelocityModel(F(1, 10), F(2)), F(1, 10))
    (k,), κ = gaps(*case).rounded, gap_constants(*case)
    assert κ.upper - 1 < k <= κ.upper
    without_maximum = (math.sqrt(math.pi * 1.1) - 1) / 2 + 1
    assert k > without_maximum
    assert algorithm_2(*case).lengths[0] > κ.upper  # which is why `literal` exists


# Rates and gaps of Theorem 5.2.


def test_the_two_sequences_of_rates():
    assert velocity_model.proved_rates(4) == (F(1, 2), F(1, 3), F(1, 4), F(1, 5))
    stated = velocity_model.stated_rates(27)
    assert stated[0] == 1
    assert math.isclose(stated[26], 1 / 9, rel_tol=4 * EPS)
    assert all(rate > 1 / (i + 2) for i, rate in enumerate(stated))


@given(strategies.fractions("1/20", 5), st.integers(1, 60))
def test_gaps_with_a_constant_product(κ, stages):
    rates = velocity_model.proved_rates(stages)
    k = velocity_model.constant_gaps(rates, κ)
    assert all(κ <= x * rate < κ + rate for x, rate in zip(k, rates, strict=True))
    whole = velocity_model.constant_gaps(rates, 3)
    assert sum(whole) == 3 * stages * (stages + 3) // 2  # Lemma 12.1, with equality
    as_floats = velocity_model.constant_gaps([0.1] * 2, 0.3)
    assert as_floats == (math.ceil(F(0.3) / F(0.1)),) * 2


# Fits.


@strategies.examples(0.5)
@given(
    st.floats(-0.3, 0.6),
    st.floats(0.01, 0.5),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=3),
)
def test_a_fit_finds_the_model_that_made_the_curve(level, step, rates):
    """level = ε α_max and step = γ α_max, from any of several rates; ε may be negative here."""
    top = max(rates)
    ε, γ = level / top, step / top
    t = np.tile(np.arange(1.0, 201), len(rates))
    α = np.repeat(rates, 200)
    u = γ * α * t
    found = fit(t, math.pi / 2 * (1 + ε * α) * u / (1 + u), α)
    # Brent's steps end at √EPS |log γ|, and |log γ| ≤ 4; where the curve hardly bends, ε is as far
    # off as γ, and both have a factor 10 to spare over 3000 random draws.
    tolerance = 4 * math.sqrt(EPS) * 10
    assert math.isclose(found.curvature, γ, rel_tol=tolerance)
    assert abs(found.asymptote - ε) * top <= tolerance
    assert found.worst <= tolerance
    assert found.rms <= found.worst


def test_a_fit_is_a_least_squares_minimum():
    """Neighbours in ε and γ are worse, and the misfit is what it says."""
    t = np.arange(1.0, 61)
    y = 1.7 - 1.6 * np.exp(-t / 10)  # exponential: (12) cannot fit it
    found = fit(t, y, 0.1)

    def residual(ε, γ):
        return y - VelocityModel(ε, γ).angle(0.1, t)

    of_the_model = residual(found.asymptote, found.curvature)
    assert np.abs(found.residual - of_the_model).max() <= 16 * EPS  # in another order of operations
    least = (found.residual**2).sum()
    assert math.isclose(found.rms, math.sqrt(least / 60), rel_tol=8 * EPS)
    assert found.worst == np.abs(found.residual).max() > 0.05
    for ε_factor, γ_factor in ((1.01, 1), (0.99, 1), (1, 1.01), (1, 0.99), (1.01, 1.01)):
        ε, γ = ε_factor * found.asymptote, γ_factor * found.curvature
        assert (residual(ε, γ) ** 2).sum() > least


# Errors.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VelocityModel(0, 1), "asymptote must be finite and > 0, got 0"),
        (lambda: VelocityModel(1, -2.0), "curvature must be finite and > 0, got -2.0"),
        (lambda: VelocityModel(1, math.inf), "curvature must be finite"),
        (lambda: VelocityModel(1, math.nan), "curvature must be finite"),
        (lambda: VelocityModel(1, 1).level(F(1, 3)), r"below 120°, got asymptote \* rate = 1/3"),
        (lambda: VelocityModel(1, 1).angle(0.0, 1), "rate must be finite and > 0, got 0.0"),
        (lambda: VelocityModel(1, 1).angle(0.1, -10), "time must be > −1/.*, got -10"),
        (lambda: VelocityModel(1, 1).derivative(0.1, -11), "time must be > −1/.*, got -11"),
        (lambda: VelocityModel(1, 1).time_to_share(0.1, 1), "0 <= share < 1, got 1"),
        (lambda: VelocityModel(1, 1).gap(0.1, 0), "threshold must be finite and > 0, got 0"),
        (lambda: algorithm_2([], VelocityModel(1, 1), 1), "at least one entry"),
        (lambda: algorithm_2([0.1, 0.4], VelocityModel(1, 1), 1), r"got asymptote \* rate = 0.4"),
        (lambda: algorithm_2([0.1, 0], VelocityModel(1, 1), 1), "rate must be finite and > 0"),
        (lambda: gaps([0.1], VelocityModel(1, 1), -1), "threshold must be finite and > 0, got -1"),
        (lambda: velocity_model.stated_rates(0), "stages must be a positive integer, got 0"),
        (lambda: velocity_model.proved_rates(2.5), "stages must be a positive integer, got 2.5"),
        (lambda: velocity_model.constant_gaps([0.1], 0), "product must be finite and > 0"),
        (lambda: velocity_model.constant_gaps([0.0], 1), "every rate must be finite and > 0"),
        (lambda: fit([1.0], [1.0], 0.1), "same shape"),
        (lambda: fit([0.0, 1.0], [0.0, 1.0], 0.1), "times must be finite and > 0"),
        (lambda: fit([1.0, 2.0], [0.0, math.nan], 0.1), "angles must be finite"),
        (lambda: fit([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], 0.1), "a constant, at curvature >="),
        (lambda: fit([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 0.1), "straight line .* at curvature <="),
        (lambda: fit(range(1, 100), 0.5 * np.arange(1, 100) / np.arange(11, 110), 0.1).model,
         "asymptote must be finite and > 0"),
    ],
)  # fmt: skip
def test_errors_name_the_quantity(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_model_must_be_a_model():
    with pytest.raises(TypeError, match="model must be a VelocityModel"):
        algorithm_2([0.1], (1, 1), 1)


def test_the_stage_threshold_is_the_smaller_one():
    model = VelocityModel(1, 4)
    assert model.stage_threshold(F(1, 10), 1) == F(1, 5)
    assert model.stage_threshold(F(1, 10), F(1, 10)) == F(1, 10)


def test_the_schedule_is_the_partition_up_to_one():
    """t_n of the loop is T − 1: what the accumulated gaps end in."""
    model, rates = VelocityModel(0.5, 0.1), velocity_model.proved_rates(6)
    schedule = algorithm_2(rates, model, 0.5)
    edges = list(accumulate(gaps(rates, model, 0.5).rounded))
    assert [b - 1 for b in schedule.boundaries[1:]] == edges
