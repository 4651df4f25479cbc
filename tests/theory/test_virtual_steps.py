"""Virtual steps: never below the truth, tight where they were found to be; planted errors."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.strategies import examples, fractions
from tests.theory.any_runs import UNIT, any_method, any_rates
from theory import StepwiseSchedule, UnifiedMomentum
from theory.bounds import unified
from theory.exact_certificates import InvalidProof, from_virtual_steps
from theory.methods import TorchMomentum
from theory.multipliers import best_iterate
from theory.noise_trees import noise_tree_worst_case
from theory.virtual_steps import at_steps, virtual_steps
from theory.worst_case import ACCURACY, worst_case

STAGES = [1 / 2] * 3 + [1 / 3] * 4 + [1 / 4] * 5
LONGER = [1 / 2] * 8 + [1 / 3] * 10 + [1 / 4] * 12
ROUNDING = 1e-9  # relative; of less than 100 sums of some thousand terms of one size each
EPS = float(np.finfo(float).eps)


@given(method=any_method(), rates=any_rates(7), gap=st.none() | st.floats(0.1, 1))
@examples(0.2)
@example(UnifiedMomentum(0.5, 5.0), [0.3, 0.9, 0.2, 0.7], None)
@example(TorchMomentum(0.9, nesterov=True), [0.1, 0.8, 0.05, 0.8, 0.05], None)
@example(UnifiedMomentum(0.9, 0), [0.02] * 7, None)
@example(UnifiedMomentum(0.9, 1), [0.05] * 7, 0.3)
def test_never_below_the_exact_worst_case(method, rates, gap):
    bound = virtual_steps(rates, method, gap=gap, **UNIT)
    exact = worst_case(rates, method, gap=gap, **UNIT)
    assert bound.value >= exact.value - ACCURACY
    # The function that the solver found satisfies what the theorem says about all weights.
    assert np.dot(bound.weights, exact.gaps) <= bound.value + ACCURACY


@given(
    method=any_method(),
    rates=any_rates(7),
    data=st.data(),
)
@examples(0.2)
def test_any_steps_are_a_bound(method, rates, data):
    """The evaluation needs no condition: wrong b only cost."""
    positive = st.floats(0, 2)
    b = data.draw(st.lists(positive, min_size=len(rates), max_size=len(rates)), label="b")
    b[data.draw(st.integers(0, len(b) - 1), label="a positive one")] += 0.1
    bound = at_steps(b, rates, method, **UNIT)
    exact = worst_case(rates, method, **UNIT)
    assert bound.value >= exact.value - ACCURACY
    assert np.dot(bound.weights, exact.gaps) <= bound.value + ACCURACY


@given(method=any_method(), rates=any_rates(5), noise=st.floats(0.05, 1))
@examples(0.15)
def test_never_below_a_tree_of_noise(method, rates, noise):
    bound = virtual_steps(rates, method, noise=noise, **UNIT)
    tree = noise_tree_worst_case(rates, method, noise=noise, **UNIT)
    assert bound.value >= tree.value - ACCURACY
    assert np.dot(bound.weights, tree.gaps) <= bound.value + ACCURACY


@given(method=any_method(exact=True), data=st.data())
def test_floats_and_fractions_agree(method, data):
    """Where the conditions hold the bound is that of the certificate; where not, it is larger."""
    rates = data.draw(st.lists(fractions("1/10", 1), min_size=1, max_size=5), label="rates")
    T = len(rates)
    steps = data.draw(st.lists(fractions(0, 3), min_size=T, max_size=T), label="b")
    steps[0] += 1
    R, G = Fraction(3, 2), Fraction(2, 3)
    ideal = (R**2 + G**2 * sum(b * b for b in steps)) / (2 * sum(steps))
    found = at_steps(list(map(float, steps)), rates, method, distance=R, subgradient=G)
    try:
        certificate = from_virtual_steps(steps, rates, method, distance=R, subgradient=G)
    except InvalidProof:
        assert found.value >= float(min(ideal, R * G)) * (1 - ROUNDING)
    else:
        assert certificate.bound == ideal
        assert math.isclose(found.value, ideal, rel_tol=ROUNDING)
        np.testing.assert_allclose(
            found.weights, np.array(certificate.weights, dtype=float), atol=ROUNDING
        )
        assert found.excess <= ROUNDING


@pytest.mark.parametrize("method", [UnifiedMomentum.heavy_ball(0.9), TorchMomentum(0.9)])
@pytest.mark.parametrize("rates", [STAGES, LONGER])
def test_large_momentum_is_exact(method, rates):
    """0.6128, attained after three iterations; `test_exact_certificates` has the equation."""
    found = virtual_steps(rates, method, **UNIT)
    assert math.isclose(found.value, (math.sqrt(1702) - 29) / 20, rel_tol=ROUNDING)
    assert sum(b > 0 for b in found.steps) == 3


@pytest.mark.parametrize("s", [0, 1, 2])
@pytest.mark.parametrize("T", [4, 9, 16])
def test_exact_at_the_minimax_rate(s, T):
    """η = R/(√V√T): R√V/√T, which no method can beat without noise."""
    found = virtual_steps(
        [0.5 * 3 / (2.5 * math.sqrt(T))] * T,
        UnifiedMomentum(0.5, s),
        distance=3,
        subgradient=2,
        noise=1.5,
    )
    assert found.value <= 3 * 2.5 / math.sqrt(T) * (1 + ROUNDING)
    quiet = virtual_steps([0.5 / math.sqrt(T)] * T, UnifiedMomentum(0.5, s), **UNIT)
    assert math.isclose(quiet.value, 1 / math.sqrt(T), rel_tol=1e-8)  # b = η up to its search


@pytest.mark.parametrize(
    ("rates", "method"),
    [
        ([1 / 2, 1 / 3, 1 / 4], UnifiedMomentum.heavy_ball(0.5)),
        ([1 / 2, 1 / 2, 1 / 4, 1 / 4], UnifiedMomentum.heavy_ball(0.5)),
        ([1 / 2, 1 / 3, 1 / 4], TorchMomentum(0.5)),
        (STAGES, UnifiedMomentum.sgd()),
        (STAGES, UnifiedMomentum(0.5, 2)),
        (STAGES, UnifiedMomentum(0.7, 1 / 0.3)),
    ],
)
def test_tight_for_gradient_steps_and_few_iterations(rates, method):
    exact = worst_case(rates, method, **UNIT).value
    assert virtual_steps(rates, method, **UNIT).value == pytest.approx(exact, abs=ACCURACY)


@given(
    data=st.data(),
    β=st.floats(0, 0.95),
    σ=st.floats(0, 2),
    noise=st.floats(0, 2),
    gap=st.floats(0.1, 1),
)
@examples(0.5)
def test_never_worse_than_theorem_a(data, β, σ, noise, gap):
    """Also beyond s = 1/(1 − β), where Theorem A has an additional term."""
    rates = data.draw(st.lists(st.floats(0.01, 1), min_size=1, max_size=10), label="rates")
    method = UnifiedMomentum(β, σ / (1 - β))
    constants = {**UNIT, "noise": noise, "gap": gap}
    rates.sort(reverse=True)
    found = virtual_steps(rates, method, **constants)
    assert found.value <= gap
    assert found.value <= unified(rates, method, **constants) * (1 + ROUNDING)


@pytest.mark.parametrize("method", [UnifiedMomentum.heavy_ball(0.5), UnifiedMomentum.nesterov(0.7)])
def test_theorem_c_is_among_them(method):
    """b_t = v_t η_t/v_{−1}: no more is won by increasing multipliers."""
    found = virtual_steps(STAGES, method, **UNIT)
    assert found.value <= best_iterate(STAGES, method, **UNIT) * (1 + 1e-6)  # its grid is as fine


def without_a_condition(steps, rates, method):
    """(1 + Σb²)/(2Σb), which is what the theorem would say without its conditions."""
    return (1 + sum(b * b for b in steps)) / (2 * sum(steps))


@pytest.mark.parametrize(
    ("condition", "steps", "rates", "method", "message"),
    [
        (
            "μ ≥ 0",
            [Fraction(1, 2), Fraction(1, 2), Fraction(1, 2), Fraction(1, 2)],
            [1, 1, 1, 1],
            UnifiedMomentum.sgd(),
            "the multiplier of f_0 ≥ f_1",
        ),
        (
            "w ≥ 0",
            [Fraction(3, 5)] * 4,
            [Fraction(1, 20)] * 4,
            UnifiedMomentum.sgd(),
            "the weight of f_",
        ),
    ],
)
def test_each_condition_is_needed(condition, steps, rates, method, message):
    """Without it the formula falls below the exact worst case, which no bound can do."""
    exact = worst_case(rates, method, **UNIT).value
    assert without_a_condition(steps, rates, method) < exact - 0.1
    with pytest.raises(InvalidProof, match=message):
        from_virtual_steps(steps, rates, method, distance=1, subgradient=1)
    assert at_steps(list(map(float, steps)), rates, method, **UNIT).value >= exact - ACCURACY


@given(method=any_method(), rates=any_rates(6), R=st.floats(0.1, 10), V=st.floats(0.1, 10))
@examples(0.2)
def test_units(method, rates, R, V):
    """x in R, gradients in √V: the same number times R√V."""
    plain = virtual_steps(rates, method, **UNIT)
    scaled = [rate * R / V for rate in rates]
    found = virtual_steps(scaled, method, distance=R, subgradient=V)
    if any(plain.steps):
        steps = np.array(plain.steps) * R / V
        again = at_steps(steps, scaled, method, distance=R, subgradient=V)
        assert math.isclose(again.value, plain.value * R * V, rel_tol=ROUNDING)
    # The local search may stop elsewhere.
    assert found.value <= R * V * (1 + EPS)


def test_schedules_and_trivial_problems():
    schedule = StepwiseSchedule([1 / 2, 1 / 4], [2, 2])
    method = UnifiedMomentum.nesterov(0.5)
    assert virtual_steps(schedule, method, **UNIT) == virtual_steps(
        [1 / 2, 1 / 2, 1 / 4, 1 / 4], method, **UNIT
    )
    nothing = virtual_steps([1.0, 1.0], method, distance=1, subgradient=0, noise=1)
    assert (nothing.value, nothing.weights, nothing.excess) == (0, (1, 0), math.inf)
    one = virtual_steps([1.0], method, **UNIT)
    assert one.value == 1


class Stuck:
    """x_2 does not move along its own gradient."""

    def step_matrix(self, rates):
        return np.diag([1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: virtual_steps([], UnifiedMomentum(), **UNIT), ValueError, "at least one entry"),
        (lambda: virtual_steps([1, -1], UnifiedMomentum(), **UNIT), ValueError, r"rates\[1\] = -1"),
        (lambda: virtual_steps([1], 0.9, **UNIT), TypeError, "step_matrix, got 0.9"),
        (lambda: virtual_steps([1] * 3, Stuck(), **UNIT), ValueError, r"H\[1, 1\] = 0"),
        (
            lambda: virtual_steps([1], UnifiedMomentum(), distance=-1, subgradient=1),
            ValueError,
            "distance must be finite and >= 0, got -1",
        ),
        (
            lambda: virtual_steps([1], UnifiedMomentum(), noise=math.nan, **UNIT),
            ValueError,
            "noise must be",
        ),
        (lambda: at_steps([1], [1, 1], UnifiedMomentum(), **UNIT), ValueError, "one entry per"),
        (lambda: at_steps([0, 0], [1, 1], UnifiedMomentum(), **UNIT), ValueError, "not all 0"),
        (lambda: at_steps([1, -1], [1, 1], UnifiedMomentum(), **UNIT), ValueError, ">= 0"),
    ],
)  # fmt: skip
def test_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
