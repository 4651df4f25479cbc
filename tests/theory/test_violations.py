"""The search for violations: finds the failures of the printed (40), and none of what is proved."""

import math
from itertools import pairwise

import numpy as np
import pytest

from theory import StepwiseSchedule, UnifiedMomentum
from theory.violations import Case, smallest_violation, stepwise_cases
from theory.worst_case import worst_case


def harmonic(stages):
    """α̂_i = 1/(i + 2)."""
    return [1 / (i + 2) for i in range(stages)]


def constants(schedule, previous):
    """κ_1 = min k_i α̂_i, κ_2 = max (i + 1) k_i α̂_i α̂_{i−1}, with α̂_{−1} = previous."""
    rates, lengths = schedule.rates, schedule.lengths
    before = (previous, *rates)
    κ1 = min(k * rate for k, rate in zip(lengths, rates, strict=True))
    κ2 = max((i + 1) * k * rates[i] * before[i] for i, k in enumerate(lengths))
    return κ1, κ2


def printed_40(previous):
    """UAI 2024, eq. (40), p. 3624."""
    return lambda case: bound_40(case, previous, lambda n: math.log((n + 1) / 2), math.log)


def corrected_40(previous):
    """(40) with sums of decreasing terms bounded by larger integrals, not by smaller ones."""
    return lambda case: bound_40(
        case, previous, lambda n: math.log(n + 1), lambda n: 1 + math.log(n)
    )


def bound_40(case, previous, rate_sum, product_sum):
    κ1, κ2 = constants(case.schedule, previous)
    n, β, s = len(case.schedule.rates), case.method.momentum, case.method.s
    R, G, δ = case.distance, case.subgradient, case.noise
    return (
        β * G * R * rate_sum(n) / (κ1 * (1 - β) * n)
        + (1 - β) * R**2 / (2 * κ1 * n)
        + (2 * s * β + 1) * (G**2 + δ**2) * κ2 * product_sum(n) / (2 * (1 - β) * κ1 * n)
    )


def classical(case, factor=1.0):
    """β = 0: (R² + (G² + δ²) Σα²)/(2Σα), with a factor on R²."""
    α = np.asarray(case.schedule)
    second = case.subgradient**2 + case.noise**2
    return (factor * case.distance**2 + second * (α**2).sum()) / (2 * α.sum())


@pytest.mark.parametrize(
    ("stages", "previous", "distances", "iterations", "lengths"),
    [
        (1, 1.0, [0.25, 0.5], 1, (1,)),  # n = 1: log n = 0, and no noise term is left
        (2, 1.0, [0.2, 0.25, 0.3], 5, (2, 3)),  # the schedule of Theorem 5.2's proof
        (2, 0.6, [0.2, 0.25, 0.3], 2, (1, 1)),  # α̂_{−1} in (α̂_0, 1), as Theorem 5.1 asks
        (3, 0.6, [0.2], 10, (3, 3, 4)),
    ],
)
def test_smallest_violation_of_40(stages, previous, distances, iterations, lengths):
    cases = stepwise_cases(harmonic, 12, stages=[stages], distances=distances)
    found = smallest_violation(printed_40(previous), cases, proven=classical)
    assert len(found.case.schedule) == iterations
    assert found.case.schedule.lengths == lengths
    assert found.ratio > 1.02
    # the other programme agrees
    exact = worst_case(
        found.case.schedule, found.case.method, distance=found.case.distance, subgradient=1
    )
    assert exact.attained == pytest.approx(found.exact, rel=1e-5)


@pytest.mark.parametrize(
    ("lengths", "distance", "exact", "bound"),
    [((8, 6, 8), 0.3, 0.2034, 0.1906), ((4, 3, 4, 5), 0.2, 0.1823, 0.1783)],
)
def test_violation_at_three_and_four_stages(lengths, distance, exact, bound):
    """α̂_{−1} → α̂_0 = 1/2."""
    case = Case(StepwiseSchedule(harmonic(len(lengths)), lengths), distance=distance)
    found = smallest_violation(printed_40(0.5), [case])
    assert found.exact == pytest.approx(exact, abs=0.5e-4)  # four digits are given
    assert found.bound == pytest.approx(bound, abs=0.5e-4)
    assert smallest_violation(corrected_40(0.5), [case]) is None


def subgradient_method(schedule, x, g):
    """min_t f(x_t) for f(x) = max(0, max_i ⟨g_i, x⟩): f* = 0 at x* = 0."""
    best = math.inf
    for α in np.asarray(schedule):
        values = g @ x
        best = min(best, max(0.0, values.max()))
        x = x - α * g[values.argmax()]
    return best


ABSOLUTE = np.array([[1.0], [-1.0]])
PLANE = np.array([[-98, 18], [27, -96], [91, 39], [-44, -32], [65, 43]]) / 100
SPACE = np.array(
    [
        [929, 137, 339, -45],
        [-578, -575, -261, -516],
        [795, 234, 358, 429],
        [-371, 71, -551, -743],
        [177, -156, 584, 776],
        [-184, 296, -695, -627],
        [-114, -84, 906, 397],
        [-45, 50, -986, 150],
        [-323, 666, 670, -31],
        [-484, -509, -329, 425],
    ]
)


@pytest.mark.parametrize(
    ("lengths", "previous", "start", "g"),
    [
        ((1,), 1.0, [0.25], ABSOLUTE),
        ((1, 1), 0.6, [0.25], ABSOLUTE),
        ((2, 3), 1.0, [-0.22, -0.05], PLANE),
        ((3, 3, 4), 0.6, [0.175, 0.051, 0.069, -0.002], SPACE / 1000),
    ],
)
def test_explicit_functions_violate_40(lengths, previous, start, g):
    """Counterexamples that need no solver: the literal iteration on a maximum of linear forms."""
    assert np.linalg.norm(g, axis=1).max() <= 1
    case = Case(
        StepwiseSchedule(harmonic(len(lengths)), lengths), distance=float(np.linalg.norm(start))
    )
    reached = subgradient_method(case.schedule, np.array(start), g)
    assert reached > 1.01 * printed_40(previous)(case)
    assert reached <= corrected_40(previous)(case)


def test_what_is_proved_is_not_violated():
    def cases():
        return stepwise_cases(harmonic, 5, stages=[1, 2], distances=[0.2, 1], noises=[0, 0.7])

    assert smallest_violation(classical, cases()) is None
    assert smallest_violation(corrected_40(1.0), cases()) is None
    # planted: (1 − β)R² without its share, then the noise without its share
    lost = smallest_violation(lambda case: classical(case, factor=0.5), cases())
    assert len(lost.case.schedule) == 1
    silent = smallest_violation(
        lambda case: classical(Case(case.schedule, distance=case.distance)), cases()
    )
    assert silent.case.noise == 0.7
    assert silent.exact <= classical(silent.case)


def test_momentum_and_other_criteria_are_passed_on():
    schedule = StepwiseSchedule.constant(0.5, 4)
    methods = [UnifiedMomentum.heavy_ball(0.5), UnifiedMomentum.nesterov(0.5)]
    last = smallest_violation(
        lambda case: 0.5, [Case(schedule, method) for method in methods], criterion="last"
    )
    exact = [
        worst_case(schedule, method, distance=1, subgradient=1, criterion="last").value
        for method in methods
    ]
    assert last.exact == pytest.approx(max(exact), rel=1e-5)
    assert last.case.method == methods[int(np.argmax(exact))]
    assert (last.tried, last.solved) == (2, 2)


def test_search_stops_at_the_first_size_and_takes_the_worst():
    seen = []

    def bound(case):
        seen.append(len(case.schedule))
        return 0.75 if len(case.schedule) < 3 else 0.01

    found = smallest_violation(bound, stepwise_cases(harmonic, 6, stages=[2], distances=[0.1, 0.2]))
    assert seen == [2, 2, 3, 3, 3, 3]
    assert found.case.distance == 0.2
    assert found.ratio == pytest.approx(found.exact / 0.01)


def test_a_proven_bound_saves_the_solver():
    cases = list(stepwise_cases(harmonic, 4, stages=[1], distances=[1.0]))
    assert smallest_violation(lambda case: 9.0, cases, proven=lambda case: 1.0) is None
    found = smallest_violation(
        lambda case: 0.1 if case is cases[2] else 9.0, cases, proven=classical
    )
    assert (found.tried, found.solved) == (3, 1)


def test_stepwise_cases_are_all_and_in_order():
    cases = list(stepwise_cases(harmonic, 6, stages=[1, 3], distances=[1, 2], noises=[0, 1]))
    lengths = [case.schedule.lengths for case in cases]
    assert len(cases) == len(set(cases)) == 4 * sum(1 + math.comb(T - 1, 2) for T in range(1, 7))
    assert all(sum(left) <= sum(right) for left, right in pairwise(lengths))
    assert {case.schedule.rates for case in cases} == {(1 / 2,), (1 / 2, 1 / 3, 1 / 4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bound": lambda case: math.nan}, "bound must be a number, got nan"),
        ({"tolerance": 0.0}, "tolerance must be finite and > 0"),
        ({"lengths": (3, 2)}, "non-decreasing T, got T = 2 after 3"),
        ({"criterion": "none"}, "criterion must be one of"),
    ],
)
def test_errors(arguments, message):
    arguments = {"bound": lambda case: 9.0, "lengths": (2, 3), **arguments}
    lengths = arguments.pop("lengths")
    cases = [Case(StepwiseSchedule.constant(0.5, length)) for length in lengths]
    with pytest.raises(ValueError, match=message):
        smallest_violation(arguments.pop("bound"), cases, **arguments)
    with pytest.raises(ValueError, match="stages must be a positive integer, got 0"):
        list(stepwise_cases(harmonic, 3, stages=[0]))
