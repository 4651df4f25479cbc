"""Theorem C against its proof written out, exact worst cases, and resisting oracles.

SOLVER is what `theory.worst_case` guarantees, in units of GR = 1; ROUNDING is relative, for some
thousands of operations with numbers of the size of the result.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tests.theory import convex_reference as reference
from tests.theory.convex_reference import CONSTANTS
from theory import TorchMomentum, UnifiedMomentum, bounds, multipliers
from theory.noise_trees import noise_tree_worst_case
from theory.worst_case import ACCURACY, worst_case

ROUNDING = 1e-9
SOLVER = 2 * ACCURACY
SGD = UnifiedMomentum()


def standard(draw):
    """The draw in units with R = G = 1, where nothing depends on the size of the numbers."""
    R, G, gap, δ = draw.constants.values()
    constants = {**CONSTANTS, "gap": gap / (G * R), "noise": δ / G}
    return draw._replace(rates=[rate * G / R for rate in draw.rates], constants=constants)


def draws(seed, count, most, methods=None):
    """Draws with T ≤ `most` for which s ≤ 1/(1−β), R = G = 1."""
    rng = np.random.default_rng([9, seed])
    found = []
    while len(found) < count:
        draw = standard(reference.random_draw(rng, int(rng.integers(1, most + 1))))
        torch = isinstance(draw.method, TorchMomentum)
        if torch or draw.method.s * (1 - draw.method.momentum) <= 1:
            found.append(draw)
    return found


# ---- The theorem itself --------------------------------------------------------------------------


def growing(rng, form, share):
    """Multipliers at `share` of the largest growth, in a random direction, that is allowed.

    The coefficients b are affine in v, and at constant v all b below the diagonal are ≤ 0; so the
    hypothesis holds along a direction up to a largest length, computed here, and not beyond.
    """
    N = len(form.steps)
    ζ = np.append(rng.exponential(size=N) * (rng.random(N) < 0.7), 0.0)
    ζ[0] += 0.1
    constant = reference.theorem_c(form, np.ones(N + 1), 1.0, **CONSTANTS).b
    falling = 1 - ζ[:N].sum() + np.append(0.0, np.cumsum(ζ[:N]))
    slope = reference.theorem_c(form, falling, 1.0, **CONSTANTS).b - constant
    below = np.tril(np.ones_like(slope), -1) * (slope > 1e-12 * np.abs(slope).max()) > 0
    longest = min([1 / ζ.sum(), *(-constant[below] / slope[below])])
    return 1 + share * longest * (falling - 1)


def theorem_c_against_worst_case(seed, share, count=8):
    """(exact worst case of ΣW_jF_j, its bound, the violation), for random multipliers."""
    rng = np.random.default_rng([10, seed])
    for method, rates, _ in draws(seed, count, most=5):
        form = reference.dense_potential(method, rates)
        v = growing(rng, form, share)
        last = float(np.exp(rng.normal()) * form.steps[-1])
        found = reference.theorem_c(form, v, last, **CONSTANTS)
        total = v[0] * (last + np.dot(form.steps, v[1:]))
        assert found.W.sum() == pytest.approx(total, rel=ROUNDING)
        exact = worst_case(rates, method, criterion=found.W, **CONSTANTS).value
        yield exact * total, found.bound, found.violation, total


@pytest.mark.parametrize("share", [0.5, 0.999])
@pytest.mark.parametrize("seed", range(3))
def test_theorem_c_holds_for_any_multipliers_that_it_allows(seed, share):
    for exact, bound, violation, total in theorem_c_against_worst_case(seed, share):
        assert violation <= ROUNDING
        assert exact <= bound + SOLVER * total


# ---- The last iterate ----------------------------------------------------------------------------


def unconstrained(method, rates, noise=0.0):
    """Theorem C for the last iterate at the best S_N, whether or not its hypothesis holds there."""
    form = reference.dense_potential(method, rates)

    def at(log_last):
        last = math.exp(log_last)
        v = reference.last_iterate_multipliers(form, last)
        return reference.theorem_c(form, v, last, noise=noise, **CONSTANTS)

    grid = np.linspace(-10, 10, 81)
    near = grid[np.argmin([at(point).bound for point in grid])]
    found = minimize_scalar(
        lambda point: at(point).bound,
        bounds=(near - 0.25, near + 0.25),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return at(found.x)


@pytest.mark.parametrize("seed", range(8))
def test_never_below_the_exact_worst_case_and_equal_to_it_where_the_hypothesis_is_slack(seed):
    """Equal to 1e-5 where the best S_N satisfies the hypothesis with e = 0; 208 worst cases."""
    equal = 0
    for method, rates, constants in draws(seed, count=13, most=6):
        given = {key: constants[key] for key in ("distance", "subgradient", "gap")}
        best = worst_case(rates, method, criterion="best", **given).value
        last = worst_case(rates, method, criterion="last", **given).value
        assert multipliers.best_iterate(rates, method, **given) >= best - SOLVER
        assert bounds.theorem_b(rates, method, **given) >= best - SOLVER
        bound = multipliers.last_iterate(rates, method, **given)
        assert bound >= last - SOLVER
        free = unconstrained(method, rates)
        np.testing.assert_allclose(free.W, np.eye(len(rates) + 1)[-1], atol=ROUNDING)
        if free.violation <= 1e-12:  # rounding of coefficients that vanish
            assert bound <= free.bound * (1 + 1e-8)  # the best S_N enters to second order
            if constants["gap"] == 1:  # with a smaller F_0, e > 0 can be better
                equal += 1
                assert bound == pytest.approx(free.bound, rel=1e-8)
                assert bound == pytest.approx(last, rel=1e-5)
    assert equal >= 2


@pytest.mark.parametrize("seed", range(4))
def test_with_two_point_noise_it_is_exact_as_well(seed):
    """Where the hypothesis is slack, some two-point noise attains the bound."""
    rng = np.random.default_rng([14, seed])
    equal = 0
    for method, rates, _ in draws(seed, count=8, most=4):
        noise = float(rng.uniform(0, 1.5))
        bound = multipliers.last_iterate(rates, method, noise=noise, **CONSTANTS)
        exact = noise_tree_worst_case(rates, method, criterion="last", noise=noise, **CONSTANTS)
        assert bound >= exact.value - SOLVER
        if unconstrained(method, rates, noise).violation <= 1e-12:
            equal += 1
            assert bound == pytest.approx(exact.value, rel=1e-5)
    assert equal >= 2


@pytest.mark.parametrize("seed", range(4))
def test_sgd_with_any_rates_is_exact(seed):
    rng = np.random.default_rng([12, seed])
    for T in (1, 2, 3, 5, 8):
        rates = np.exp(rng.normal(size=T)) / math.sqrt(T)
        bound = multipliers.last_iterate(rates, SGD, **CONSTANTS)
        exact = worst_case(rates, SGD, criterion="last", **CONSTANTS).value
        assert bound == pytest.approx(exact, rel=1e-5)


def check_exact_with_noise(last_iterate):
    rates, noise = [0.3, 0.8, 0.2], 0.75
    exact = noise_tree_worst_case(rates, SGD, criterion="last", noise=noise, **CONSTANTS).value
    assert last_iterate(rates, SGD, noise=noise, **CONSTANTS) == pytest.approx(exact, rel=1e-5)


def check_exact(last_iterate):
    for rates in ([0.3, 0.8, 0.2], [0.5] * 4):
        exact = worst_case(rates, SGD, criterion="last", **CONSTANTS).value
        assert last_iterate(rates, SGD, **CONSTANTS) == pytest.approx(exact, rel=1e-5)


def spoilt(half=0.5, moment=lambda G, δ: G**2 + δ**2, power=2, idle=lambda G, δ: G**2):
    """Theorem C for the last iterate of SGD, to be spoilt."""

    def bound(rates, method, *, distance, subgradient, noise=0.0):
        form = reference.dense_potential(method, rates)
        η = np.asarray(form.steps, float)

        def at(log_last):
            last = math.exp(log_last)
            v = reference.last_iterate_multipliers(form, last)
            spent = moment(subgradient, noise) * np.sum((v[1:] * η) ** power)
            spent += idle(subgradient, noise) * last**2
            return half * (v[0] ** 2 * distance**2 + spent)

        return minimize_scalar(at, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).fun

    return bound


def test_the_checks_accept_theorem_c():
    for check in (check_exact, check_exact_with_noise):
        check(spoilt())
        check(multipliers.last_iterate)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_exact, spoilt(half=1.0)),
        (check_exact, spoilt(power=1)),
        (check_exact, spoilt(idle=lambda G, δ: 0.0)),
        (check_exact_with_noise, spoilt(idle=lambda G, δ: G**2 + δ**2)),
        (check_exact_with_noise, spoilt(moment=lambda G, δ: (G + δ) ** 2)),
        (check_exact_with_noise, spoilt(moment=lambda G, δ: G**2 + δ)),
    ],
    ids=[
        "lost-half",
        "not-squared",
        "no-idle-step",
        "noisy-idle-step",
        "G-plus-delta-squared",
        "delta-not-squared",
    ],
)
def test_planted_errors_in_theorem_c(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


def check_heavy_ball_with_linear_decay():
    """The exact worst case is 0.5247, which a bound of 0.5, R√(G²+δ²)/√(N+1), contradicts."""
    method = UnifiedMomentum(0.5, 0)
    rates = multipliers.last_iterate_rates(3, method, **CONSTANTS)
    exact = worst_case(rates, method, criterion="last", **CONSTANTS).value
    assert f"{exact:.4f}" == "0.5247"
    assert multipliers.last_iterate(rates, method, **CONSTANTS) >= exact - SOLVER


def test_the_growth_condition_is_needed(monkeypatch):
    check_heavy_ball_with_linear_decay()

    def without(form, v):
        return np.ones(v.shape[1], dtype=bool), np.full(v.shape[1], -np.inf)

    monkeypatch.setattr(multipliers, "_signs", without)
    method = UnifiedMomentum(0.5, 0)
    rates = multipliers.last_iterate_rates(3, method, **CONSTANTS)
    assert multipliers.last_iterate(rates, method, **CONSTANTS) == pytest.approx(0.5, rel=ROUNDING)
    with pytest.raises(AssertionError):
        check_heavy_ball_with_linear_decay()


def test_planted_potential_is_found(monkeypatch):
    """q and r exchanged."""
    right = multipliers.potential

    def wrong(method, rates):
        form = right(method, rates)
        extrapolation = (0.0,) + (form.r,) * len(form.steps)
        return type(form)(form.steps, extrapolation, form.extrapolation[1], form.kernel)

    case = [0.2, 0.2, 0.1, 0.1], UnifiedMomentum(0.3, 0)
    expected = unconstrained(case[1], case[0]).bound
    assert multipliers.last_iterate(*case, **CONSTANTS) == pytest.approx(expected, rel=1e-8)
    monkeypatch.setattr(multipliers, "potential", wrong)
    assert multipliers.last_iterate(*case, **CONSTANTS) != pytest.approx(expected, rel=1e-3)


def test_without_multipliers_what_remains_is_the_length_of_the_way():
    """F_0 + G√(G²+δ²) Σ_i H[N−1, i]: no S_N satisfies the hypothesis for these rates."""
    rates = [0.0844, 0.0391, 0.0232, 0.1373, 0.024, 0.0212, 0.0806]
    method = UnifiedMomentum(0.74, 0)
    way = method.step_matrix(rates)[-1].sum()
    for gap, noise in ((1.0, 0.0), (0.5, 0.75)):
        bound = multipliers.last_iterate(rates, method, gap=gap, noise=noise, **CONSTANTS)
        assert bound == pytest.approx(gap + way * math.sqrt(1 + noise**2), rel=ROUNDING)


@pytest.mark.parametrize("seed", range(2))
def test_last_iterate_is_never_above_the_length_of_the_way(seed):
    for method, rates, constants in draws(seed + 100, count=30, most=10):
        way = method.step_matrix(rates)[-1].sum()
        bound = multipliers.last_iterate(rates, method, **constants)
        assert bound <= (constants["gap"] + way) * (1 + ROUNDING)


@pytest.mark.parametrize("method", [SGD, UnifiedMomentum(0.3, 1)], ids=["sgd", "nesterov"])
def test_a_longer_schedule_against_the_proof_written_out(method):
    rates = [0.3 * (1 - method.momentum)] * 15 + [0.05 * (1 - method.momentum)] * 15
    free = unconstrained(method, rates)
    assert free.violation <= 1e-12
    assert multipliers.last_iterate(rates, method, **CONSTANTS) == pytest.approx(
        free.bound, rel=1e-8
    )


# ---- The best rates for the last iterate ---------------------------------------------------------


@pytest.mark.parametrize("N", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("noise", [0.0, 0.75])
def test_linear_decay_of_sgd_is_optimal(N, noise):
    R, G = 2.0, 0.5
    constants = {"distance": R, "subgradient": G, "noise": noise}
    rates = multipliers.last_iterate_rates(N, SGD, **constants)
    V = G**2 + noise**2
    h = V / G**2
    by_hand = [R * (N - t - 1 + h) / math.sqrt(V) / (N + h) ** 1.5 for t in range(N)]
    np.testing.assert_allclose(rates, by_hand, rtol=1e-14)
    value = multipliers.last_iterate(rates, SGD, **constants)
    assert value == pytest.approx(R * math.sqrt(V / (N + h)), rel=ROUNDING)
    if noise == 0:  # attained by a function that is run literally, with N + 1 axes
        gaps = reference.resisting(1, N + 1, N + 1, R, G).gaps(SGD, rates)
        assert gaps[N, 0] == pytest.approx(value, rel=ROUNDING)


@pytest.mark.parametrize("method", [UnifiedMomentum(0.3, 1), UnifiedMomentum(0.5, 2),
                                    UnifiedMomentum(0.5, 1.5), UnifiedMomentum(0.2, 0),
                                    UnifiedMomentum(0.9, 10)])  # fmt: skip
def test_linear_decay_corrected_for_momentum_is_optimal_where_the_hypothesis_holds(method):
    held = 0
    for N in (1, 2, 4, 8):
        rates = multipliers.last_iterate_rates(N, method, **CONSTANTS)
        free = unconstrained(method, rates.tolist())
        assert free.bound == pytest.approx(1 / math.sqrt(N + 1), rel=1e-8)
        form = reference.dense_potential(method, rates.tolist())
        last = (N + 1) ** -0.75
        v = reference.last_iterate_multipliers(form, last)
        np.testing.assert_allclose(v[1:] * np.asarray(form.steps), last, rtol=ROUNDING)
        if free.violation <= 1e-12:
            held += 1
            value = multipliers.last_iterate(rates, method, **CONSTANTS)
            assert value == pytest.approx(1 / math.sqrt(N + 1), rel=1e-8)
    assert held >= 1


def test_last_iterate_rates_are_proportional_to_the_constants():
    base = multipliers.last_iterate_rates(5, SGD, distance=1.0, subgradient=1.0)
    far = multipliers.last_iterate_rates(5, SGD, distance=3.0, subgradient=4.0)
    np.testing.assert_allclose(far, base * 3 / 4, rtol=1e-14)


@pytest.mark.parametrize("iterations", [0, -1, 2.5, True])
def test_last_iterate_rates_need_an_iteration(iterations):
    with pytest.raises(ValueError, match="iterations must be a positive integer"):
        multipliers.last_iterate_rates(iterations, SGD, **CONSTANTS)


def test_last_iterate_rates_name_what_is_wrong():
    with pytest.raises(ValueError, match="subgradient must be > 0, got 0"):
        multipliers.last_iterate_rates(3, SGD, distance=1.0, subgradient=0.0)
    with pytest.raises(ValueError, match=r"s must be <= .* got 3"):
        multipliers.last_iterate_rates(3, UnifiedMomentum(0.5, 3), **CONSTANTS)
    with pytest.raises(TypeError, match="method must be a UnifiedMomentum"):
        multipliers.last_iterate_rates(3, TorchMomentum(0.5), **CONSTANTS)


# ---- The best iterate ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_best_iterate_is_never_above_theorem_a_or_the_gap(seed):
    rng = np.random.default_rng([13, seed])
    compared = better = 0
    for _ in range(60):
        T, noisy = int(rng.integers(1, 13)), bool(rng.integers(2))
        method, rates, constants = standard(reference.random_draw(rng, T, noisy))
        try:
            plain = bounds.unified(rates, method, **constants)
            bound = multipliers.best_iterate(rates, method, **constants)
        except ValueError:
            continue
        compared += 1
        better += bound < 0.99 * plain
        assert bound <= constants["gap"] * (1 + ROUNDING)
        assert bound <= plain * (1 + 1e-6), (method, rates, constants)
    assert compared > 30
    assert better > 5


@pytest.mark.parametrize(
    ("method", "rates", "constants"),
    [
        (SGD, [0.0229, 0.0289, 0.144, 1.54], CONSTANTS),  # late rates above the early ones
        (UnifiedMomentum(0.7, 0), [0.177, 0.177], {**CONSTANTS, "noise": 0.886}),
        (UnifiedMomentum(0.57, 0), [0.177, 0.121, 0.205, 0.167, 0.092, 0.122], CONSTANTS),
        (SGD, [1.0], {**CONSTANTS, "gap": 10.0}),  # T = 1, and a gap above GR
    ],
)
def test_cases_where_the_best_iterate_was_worse_than_theorem_a(method, rates, constants):
    bound = multipliers.best_iterate(rates, method, **constants)
    assert bound <= bounds.unified(rates, method, **constants) * (1 + ROUNDING)


@pytest.mark.parametrize(
    ("rates", "method"),
    [
        # With v_{−1} ≤ v_0 in place of v_{−1} ≤ v_0 − P_0: 0.986 of the exact worst case.
        ([0.961, 0.341, 0.149, 0.034, 0.065], UnifiedMomentum(0.20480666199823264, 1.0)),
        # Without W_s ≥ 0: 0.900 of it.
        ([0.09, 0.02, 0.11], TorchMomentum(0.77)),
    ],
    ids=["ζ_0 ≥ P_0", "W_s ≥ 0"],
)
def test_best_iterate_keeps_every_hypothesis(rates, method):
    exact = worst_case(rates, method, distance=1.0, subgradient=1.0).attained
    assert multipliers.best_iterate(rates, method, distance=1.0, subgradient=1.0) >= exact


def test_best_iterate_gains_from_small_late_rates():
    """Geometric decay: late iterates hardly move, so the bound is close to the exact value."""
    rates = [0.5 * 0.6**t for t in range(8)]
    plain = bounds.unified(rates, SGD, **CONSTANTS)
    bound = multipliers.best_iterate(rates, SGD, **CONSTANTS)
    exact = worst_case(rates, SGD, **CONSTANTS).value
    assert exact - SOLVER <= bound < 0.95 * plain


def test_best_iterate_does_not_depend_on_the_last_rate():
    """α_{T−1} moves none of x_0 … x_{T−1}."""
    method = UnifiedMomentum(0.5, 1)
    first = multipliers.best_iterate([0.2, 0.2, 0.1, 0.1], method, **CONSTANTS)
    second = multipliers.best_iterate([0.2, 0.2, 0.1, 0.05], method, **CONSTANTS)
    assert first == pytest.approx(second, rel=ROUNDING)


@pytest.mark.parametrize("bound", [multipliers.best_iterate, bounds.theorem_b])
@pytest.mark.parametrize("T", [1, 3])
def test_a_start_at_the_minimum(bound, T):
    assert bound([0.1] * T, SGD, distance=0.0, subgradient=1.0) == 0


@pytest.mark.parametrize("bound", [multipliers.best_iterate, multipliers.last_iterate])
@pytest.mark.parametrize(
    ("method", "rates", "message"),
    [
        (UnifiedMomentum(0.5, 2.1), [0.1, 0.1], "s must be <= .* got 2.1"),
        (TorchMomentum(0.5, True), [0.1, 0.1], "Nesterov"),
        (SGD, [], "at least one entry"),
        (SGD, [0.1, -0.1], r"rates\[1\] = -0.1"),
        (SGD, [Fraction(0), 1], r"rates\[0\] = 0"),
    ],
)
def test_errors_name_what_is_wrong(bound, method, rates, message):
    with pytest.raises(ValueError, match=message):
        bound(rates, method, **CONSTANTS)
