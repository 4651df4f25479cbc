"""Best rates and best gaps, against brute force over all gaps and random schedules.

ROUNDING is relative, for some hundreds of operations with numbers of the size of the result; SEARCH
is for `multipliers.last_iterate` at scaled arguments, whose search for S_N then takes other points.
"""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import event, given, target
from hypothesis import strategies as st

from theory import StepwiseSchedule, UnifiedMomentum, bounds, designs, multipliers

ROUNDING = 1e-12
SEARCH = 1e-9
UNIT = {"distance": 1.0, "subgradient": 1.0}
SGD = UnifiedMomentum()
NESTEROV = UnifiedMomentum.nesterov(0.3)
HEAVY_BALL = UnifiedMomentum.heavy_ball(0.5)
PLAIN = UnifiedMomentum(0.9, 10.0)


def all_gaps(n, T):
    """Every k_0 … k_{n−1} ≥ 1 with Σk_i = T."""
    for cuts in combinations(range(1, T), n - 1):
        yield [after - before for before, after in pairwise((0, *cuts, T))]


def about_last(rates, lengths, method, **options):
    return multipliers.last_iterate(StepwiseSchedule(rates, lengths), method, **options)


def about_best(rates, lengths, method, **options):
    return bounds.unified(StepwiseSchedule(rates, lengths), method, **options)


def scaled(factors, T, method, **options):
    """Rates in units of the best constant one."""
    one = designs.best_constant_rate(T, method, **options)
    return [one * factor for factor in factors]


positive = st.floats(0.1, 10.0)


@st.composite
def methods(draw, free=False):
    """0 ≤ β ≤ 0.95, 0 ≤ σ = (1−β)s ≤ 1; free: also β(1−σ) ≤ 1 − β, where F_0 does not enter."""
    β = draw(st.floats(0.0, 0.95), label="momentum")
    least = max(0.0, 2 - 1 / β) if free and β > 0 else 0.0
    σ = least + (1 - least) * draw(st.floats(0.0, 1.0), label="share of σ")
    # 1 − 1e-12: rounding must not carry s beyond 1/(1−β).
    return UnifiedMomentum(β, σ * (1 - 1e-12) / (1 - β))


# ---- The best rates ------------------------------------------------------------------------------


@given(methods(free=True), st.integers(1, 60), positive, positive, st.floats(0.0, 10.0))
def test_best_constant_rate_attains_the_optimum(method, T, R, G, δ):
    """Theorem A = R√V/√T, up to e = 1e-12 T η where σ is the least possible."""
    constants = {"distance": R, "subgradient": G, "noise": δ}
    rate = designs.best_constant_rate(T, method, **constants)
    bound = bounds.unified([rate] * T, method, **constants)
    assert bound == pytest.approx(R * math.hypot(G, δ) / math.sqrt(T), rel=20 * ROUNDING)


@st.composite
def non_increasing(draw, T, best):
    """Rates within a factor 20 of `best`, constant or falling."""
    spread = draw(st.sampled_from([0.0, 0.01, 1.0]), label="spread of the logarithms")
    start = draw(st.floats(-1.0, 1.0), label="log of the first rate")
    falls = draw(st.lists(st.floats(0.0, 1.0), min_size=T - 1, max_size=T - 1), label="falls")
    return best * np.exp(start - spread * np.cumsum([0.0, *falls]) / T)


@given(st.data(), methods(), st.integers(1, 20), positive, positive, st.floats(0.0, 3.0))
def test_no_schedule_has_a_smaller_theorem_a(data, method, T, R, G, δ):
    """Theorem A averages (R²/2 + ½VΣη²)/Ση ≥ R√V/√T and F_0: none is below the smaller of these."""
    constants = {"distance": R, "subgradient": G, "noise": δ}
    best = designs.best_constant_rate(T, method, **constants)
    rates = data.draw(non_increasing(T, best))
    least = min(R * math.hypot(G, δ) / math.sqrt(T), G * R)
    event(f"F_0 is the smaller: {least == G * R}")
    ratio = least / bounds.unified(rates, method, **constants)
    target(ratio, label="optimum / Theorem A")
    assert ratio <= 1 + ROUNDING


@given(st.integers(1, 60), methods(), positive, positive, st.floats(0.0, 3.0), st.integers(-9, 9))
def test_best_constant_rate_has_the_unit_of_distance_over_subgradient(T, method, R, G, δ, power):
    c = 2.0**power
    rate = designs.best_constant_rate(T, method, distance=R, subgradient=G, noise=δ)
    longer = designs.best_constant_rate(T, method, distance=c * R, subgradient=G, noise=δ)
    steeper = designs.best_constant_rate(T, method, distance=R, subgradient=c * G, noise=c * δ)
    assert longer == c * rate
    assert steeper == pytest.approx(rate / c, rel=4 * np.finfo(float).eps)


@pytest.mark.parametrize("T", [0, -1, 2.5, True])
def test_best_constant_rate_wants_a_number_of_iterations(T):
    with pytest.raises(ValueError, match="iterations must be a positive integer"):
        designs.best_constant_rate(T, SGD, **UNIT)


def test_best_constant_rate_needs_gradients():
    with pytest.raises(ValueError, match="subgradient and noise must not both be 0"):
        designs.best_constant_rate(3, SGD, distance=1.0, subgradient=0.0)


# ---- Switching times -----------------------------------------------------------------------------

ratios = st.floats(1.05, 5.0)


@given(st.data(), st.integers(1, 6), st.integers(0, 20))
def test_switching_times_are_gaps(data, n, more):
    """n positive integers whose sum is T, also where a rate is the nearest to no target."""
    falls = data.draw(st.lists(ratios, min_size=n, max_size=n))
    targets = data.draw(st.lists(st.floats(0.01, 100.0), min_size=n + more, max_size=n + more))
    lengths = designs.switching_times(1 / np.cumprod(falls), sorted(targets, reverse=True))
    assert len(lengths) == n
    assert min(lengths) >= 1
    assert sum(lengths) == n + more
    if more == 0:
        assert lengths == [1] * n


@given(st.data(), st.lists(st.tuples(ratios, st.integers(1, 5)), min_size=1, max_size=6))
def test_switching_times_follow_targets_around_the_rates(data, stages):
    """k_i targets less than half way, in the logarithm, from α̂_i to its neighbours."""
    falls, lengths = zip(*stages, strict=True)
    rates = 1 / np.cumprod(falls)
    near = 0.49 * math.log(min(falls))
    targets = []
    for rate, length in zip(rates, lengths, strict=True):
        away = data.draw(st.lists(st.floats(-near, near), min_size=length, max_size=length))
        targets += sorted(rate * np.exp(away), reverse=True)
    assert designs.switching_times(rates, targets) == list(lengths)


def test_switching_times_of_linear_decay():
    """Halving rates along (T − t)/T change where the decay passes 1/√2, 1/(2√2): halving gaps."""
    T = 1000
    lengths = designs.switching_times([1.0, 0.5, 0.25], (T - np.arange(T)) / T)
    ends = [math.ceil(T * (1 - 1 / math.sqrt(2) / 2**i)) for i in range(2)]
    assert lengths == [ends[0], ends[1] - ends[0], T - ends[1]]


# ---- The best gaps -------------------------------------------------------------------------------

FACTORS = ([2.0, 1.0, 0.5], [1.5, 1.0, 0.2], [1.0, 0.9, 0.8], [0.1, 0.05, 0.01], [10.0, 5.0, 1.0])


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("method", [SGD, NESTEROV, HEAVY_BALL, PLAIN], ids=str)
@pytest.mark.parametrize("T", [3, 7, 12])
def test_best_gaps_for_the_best_iterate_are_the_best_of_all(T, method, factors):
    rates = scaled(factors, T, method, **UNIT)
    found = designs.best_gaps(rates, T, method, **UNIT, about="best iterate")
    assert found.rates == tuple(rates)
    assert len(found) == T
    assert sorted(found.lengths) == [1, 1, T - 2]
    least = min(about_best(rates, lengths, method, **UNIT) for lengths in all_gaps(3, T))
    assert bounds.unified(found, method, **UNIT) <= least * (1 + ROUNDING)


@pytest.mark.parametrize("also", [{}, {"noise": 1.0}, {"gap": 0.1}], ids=str)
@pytest.mark.parametrize(
    "factors",
    [[2.0, 1.0], [2.0, 1.0, 0.5], [1.5, 1.0, 0.2], [2.0, 0.3, 0.1], [2.0, 1.0, 0.5, 0.25]],
    ids=str,
)
@pytest.mark.parametrize(
    ("T", "method"),
    [
        (10, SGD),
        (12, SGD),
        (11, NESTEROV),
        (12, HEAVY_BALL),
        (10, PLAIN),
        (10, UnifiedMomentum.nesterov(0.9)),
    ],
    ids=str,
)
def test_best_gaps_for_the_last_iterate_are_the_best_of_all(T, method, factors, also):
    constants = {**UNIT, **also}
    rates = scaled(factors, T, method, **UNIT)
    found = designs.best_gaps(rates, T, method, **constants)
    assert found.rates == tuple(rates)
    assert len(found) == T
    every = [about_last(rates, k, method, **constants) for k in all_gaps(len(rates), T)]
    assert multipliers.last_iterate(found, method, **constants) <= min(every) * (1 + ROUNDING)


@pytest.mark.parametrize("T", [5, 40, 90])
@pytest.mark.parametrize("method", [SGD, HEAVY_BALL, UnifiedMomentum.nesterov(0.9)], ids=str)
def test_best_gaps_for_the_last_iterate_improve_on_where_they_start(method, T):
    """Never worse than the gaps that follow linear decay; and no move of one iteration helps."""
    rates = scaled([2.0, 1.0, 0.5, 0.25], T, method, **UNIT)
    found = designs.best_gaps(rates, T, method, **UNIT)
    value = multipliers.last_iterate(found, method, **UNIT)
    targets = multipliers.last_iterate_rates(T, method, **UNIT)
    start = designs.switching_times(rates, targets.tolist())
    assert value <= about_last(rates, start, method, **UNIT)
    for from_, to in [(i, j) for i in range(4) for j in (i - 1, i + 1) if 0 <= j < 4]:
        lengths = list(found.lengths)
        lengths[from_] -= 1
        lengths[to] += 1
        if lengths[from_] > 0:
            assert value <= about_last(rates, lengths, method, **UNIT)


@pytest.mark.parametrize("about", ["best iterate", "last iterate"])
def test_best_gaps_leave_no_choice_with_one_rate_or_one_iteration_each(about):
    def gaps(rates):
        return designs.best_gaps(rates, 3, NESTEROV, **UNIT, about=about).lengths

    assert gaps([0.5]) == (3,)
    assert gaps([0.5, 0.3, 0.1]) == (1, 1, 1)


@pytest.mark.parametrize("about", ["best iterate", "last iterate"])
def test_best_gaps_do_not_depend_on_the_units(about):
    """R → aR, G → bG, δ → bδ, α → (a/b)α multiplies the guarantee by ab."""
    a, b, T = 8.0, 0.25, 30
    one, other = (
        {"distance": x, "subgradient": y, "gap": 0.7 * x * y, "noise": 0.4 * y}
        for x, y in ((1.0, 1.0), (a, b))
    )
    rates = [0.3, 0.12, 0.05]
    value = bounds.unified if about == "best iterate" else multipliers.last_iterate
    found = designs.best_gaps(rates, T, NESTEROV, **one, about=about)
    again = designs.best_gaps([a / b * r for r in rates], T, NESTEROV, **other, about=about)
    assert again.rates == tuple(a / b * r for r in rates)
    assert value(again, NESTEROV, **other) == pytest.approx(
        a * b * value(found, NESTEROV, **one), rel=SEARCH
    )


@pytest.mark.parametrize("about", ["best iterate", "last iterate"])
@pytest.mark.parametrize("rates", [[0.1, 0.2], [0.1, 0.1], [0.3, 0.1, 0.2]], ids=str)
def test_rates_must_decrease(rates, about):
    with pytest.raises(ValueError, match="rates must be > 0 and decrease"):
        designs.best_gaps(rates, 5, SGD, **UNIT, about=about)


def test_an_iteration_for_every_rate():
    with pytest.raises(ValueError, match="iterations must be >= the number of rates, 3, got 2"):
        designs.best_gaps([0.3, 0.2, 0.1], 2, SGD, **UNIT)


def test_about_is_one_of_two():
    with pytest.raises(ValueError, match=r"about must be .* got 'average'"):
        designs.best_gaps([0.3, 0.2, 0.1], 5, SGD, **UNIT, about="average")


@pytest.mark.parametrize("T", [0, 2.0])
def test_best_gaps_want_a_number_of_iterations(T):
    with pytest.raises(ValueError, match="iterations must be a positive integer"):
        designs.best_gaps([0.3], T, SGD, **UNIT)


@pytest.mark.parametrize(
    ("rates", "targets", "message"),
    [
        ([0.3, 0.2, 0.1], [0.5], "rates must not be more than the targets, 1, got 3"),
        ([0.1, 0.2], [0.3, 0.2, 0.1], "rates must be > 0 and decrease"),
        ([0.2, 0.1], [0.1, 0.2], "targets must be > 0 and not increase"),
        ([0.2, 0.1], [0.1, 0.0], "targets must be > 0 and not increase"),
        ([], [0.1], "at least one"),
    ],
)
def test_switching_times_checks_its_arguments(rates, targets, message):
    with pytest.raises(ValueError, match=message):
        designs.switching_times(rates, targets)
