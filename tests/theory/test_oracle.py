"""The oracle against exhaustive search, closed forms, facts about minima, and the known numbers.

ROUNDING is relative, for some hundreds of operations with numbers of the size of the result.
"""

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import minimum_filter

from autodrop import rules
from tests.strategies import examples, methods, problems
from tests.theory.brute_force import update
from tests.theory.chance import critical_z, detectable, z_scores
from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    UnifiedMomentum,
    closed_loop,
    final_risk,
    moments,
    oracle,
    reference_schedules,
    schedule_search,
    simulate,
)

ROUNDING = 1e-12
SGD = UnifiedMomentum.sgd()
HEAVY_BALL = UnifiedMomentum.heavy_ball(0.5)
NESTEROV = UnifiedMomentum.nesterov(0.5)
OTHER = UnifiedMomentum(0.6, 2.0)
METHODS = [SGD, HEAVY_BALL, NESTEROV, OTHER]
PAPER = NoisyQuadratic.paper()
SMALL = [
    NoisyQuadratic([1.0], 0.3, 2.0),
    NoisyQuadratic([0.4, 2.0], [0.5, 0.1], [2.0, 1.0]),
    NoisyQuadratic([0.3, 1.0, 3.0], [0.1, 0.4, 0.2], [-2.0, 1.0, 3.0]),
]


def stable(problem, method, share=0.9):
    return share * method.max_stable_step / float(max(problem.curvature))


# ---- Exhaustive search ---------------------------------------------------------------------------


def every_risk(problem, method, rates, lengths):
    """E f(x_T) for each row of rates (G, S), by eq. (9) on coefficients of (x_0, c_0, …)."""
    α = np.repeat(rates, lengths, axis=1)
    T = α.shape[1]
    basis = np.eye(T + 1)
    risk = np.zeros(len(α))
    for a, v, start in zip(problem.curvature, problem.noise_variance, problem.start, strict=True):
        x = ys = np.tile(basis[0], (len(α), 1))
        for t in range(T):
            x, ys = update(x, ys, a * (x - basis[t + 1]), α[:, [t]], method)
        risk += a * (x[:, 0] ** 2 * start**2 + v * (x[:, 1:] ** 2).sum(axis=1)) / 2
    return risk


def exhaustive(problem, method, lengths, floor, cap, drop_only=False, points=25):
    """The least risk on a grid of rates, and on finer ones around each of its local minima."""
    S = len(lengths)
    axis = np.geomspace(floor, cap, points)
    grid = np.array(list(product(axis, repeat=S)))
    risks = every_risk(problem, method, grid, lengths)
    if drop_only:
        risks[(np.diff(grid, axis=1) > 0).any(axis=1)] = np.inf
    shape = (points,) * S
    lowest = minimum_filter(risks.reshape(shape), size=3, mode="nearest").reshape(-1)
    offsets = np.array(list(product(np.linspace(-1, 1, 5), repeat=S)))
    least = risks.min()
    for best in grid[(risks == lowest) & np.isfinite(risks)]:
        value, width = np.inf, np.log(axis[1] / axis[0])
        while width > 1e-6:
            around = np.clip(best * np.exp(width * offsets), floor, cap)
            if drop_only:
                around = np.minimum.accumulate(around, axis=1)
            found = every_risk(problem, method, around, lengths)
            # Smaller steps only once the best does not move: a valley is followed to its end.
            if not found.min() < value * (1 - 1e-15):
                width /= 3
            best, value = around[found.argmin()], found.min()
        least = min(least, value)
    return least


def all_lengths(S, T):
    for cuts in combinations(range(1, T), S - 1):
        yield [after - before for before, after in pairwise((0, *cuts, T))]


@pytest.mark.parametrize("drop_only", [False, True])
@pytest.mark.parametrize("lengths", [[7], [3, 4], [1, 2, 4]], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("problem", SMALL, ids=["n=1", "n=2", "n=3"])
def test_no_rates_on_a_grid_are_better(problem, method, lengths, drop_only):
    cap = stable(problem, method)
    found = oracle.optimal_schedule(
        problem,
        method,
        7,
        len(lengths),
        cap,
        0.001 * cap,
        lengths=lengths,
        drop_only=drop_only,
        restarts=8,
    )
    least = exhaustive(problem, method, lengths, 0.001 * cap, cap, drop_only)
    assert found.schedule.lengths == tuple(lengths)
    assert found.risk <= least * (1 + ROUNDING)
    rates = np.array([found.schedule.rates])
    assert found.risk == pytest.approx(every_risk(problem, method, rates, lengths)[0], rel=ROUNDING)
    assert found.residual < 1e-6
    assert not drop_only or all(after <= before for before, after in pairwise(found.schedule.rates))


@pytest.mark.parametrize(("problem", "S", "T"), [(SMALL[2], 2, 8), (SMALL[1], 3, 6)])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_lengths_are_better(problem, method, S, T):
    cap = stable(problem, method)
    found = oracle.optimal_schedule(problem, method, T, S, cap, 0.001 * cap, lengths="free")
    every = [
        exhaustive(problem, method, lengths, 0.001 * cap, cap, points=9)
        for lengths in all_lengths(S, T)
    ]
    assert len(found.schedule) == T
    assert len(found.schedule.rates) == S
    # A move that gains less than 1e-6 is not made.
    assert found.risk <= min(every) * (1 + 1e-6)
    assert found.risk == pytest.approx(
        moments.evolve(problem, method, found.schedule).risk[-1], rel=ROUNDING
    )


def test_rates_above_the_stable_ones():
    """A cap of four times the largest stable rate: large and small rates take turns."""
    problem = NoisyQuadratic([0.3, 1.0, 3.0], 0.001, 2.0)
    cap = 4 * 2 / 3.0
    found = oracle.optimal_schedule(problem, SGD, 3, 3, cap, 0.001 * cap, restarts=16)
    least = exhaustive(problem, SGD, [1, 1, 1], 0.001 * cap, cap, points=30)
    assert found.risk == pytest.approx(least, rel=1e-8)
    assert max(found.schedule.rates) > 2 / 3.0
    assert (
        found.risk < oracle.optimal_schedule(problem, SGD, 3, 3, 2 / 3.0, restarts=16).risk * 0.99
    )


# ---- Closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "v", "start"), [(1.0, 0.3, 2.0), (4.0, 0.01, -1.0), (0.2, 2.0, 0.5)])
@pytest.mark.parametrize("T", [1, 2, 7, 40])
def test_one_mode_wants_rates_like_one_over_t(a, v, start, T):
    """α_t = 1/(a(t + 1 + v/x_0²)) and R = ½av/(T + v/x_0²): 1/V_{t+1} = 1/V_t + 1/v.

    The least (1−αa)²V + α²a²v over α is Vv/(V + v), at αa = V/(V + v); it rises with V, so that
    nothing is gained by a larger V before.
    """
    found = oracle.optimal_schedule(NoisyQuadratic([a], v, start), SGD, T, T, 1 / a)
    ratio = v / start**2
    assert found.risk == pytest.approx(a * v / 2 / (T + ratio), rel=1e-10)
    assert found.lower_bound == pytest.approx(found.risk, rel=1e-10)
    # A risk within 1e-10 of the least leaves the rates a relative error of about its root.
    expected = 1 / (a * (np.arange(T) + 1 + ratio))
    np.testing.assert_allclose(np.asarray(found.schedule), expected, rtol=1e-4)


@pytest.mark.parametrize(("cap", "floor"), [(0.2, 0.0), (1.0, 0.1), (0.2, 0.1), (0.15, 0.15)])
def test_one_mode_under_limits_is_greedy(cap, floor):
    problem = NoisyQuadratic([1.0], 0.3, 2.0)
    found = oracle.optimal_schedule(problem, SGD, 20, 20, cap, floor)
    greedy = reference_schedules.greedy(problem, SGD, 20, cap, floor)
    assert found.risk == pytest.approx(greedy.risk, rel=1e-10)
    assert found.lower_bound == pytest.approx(greedy.risk, rel=1e-10)
    assert max(found.schedule.rates) <= cap
    assert min(found.schedule.rates) >= floor


def test_equal_curvatures_are_one_mode():
    """Only Σx_0² and Σv enter."""
    problem = NoisyQuadratic([2.0] * 3, [0.1, 0.5, 0.3], [1.0, -2.0, 0.0])
    found = oracle.optimal_schedule(problem, SGD, 15, 15, 0.5)
    assert found.risk == pytest.approx(2.0 * 0.9 / 2 / (15 + 0.9 / 5.0), rel=1e-10)


@pytest.mark.parametrize("method", [HEAVY_BALL, NESTEROV, OTHER], ids=str)
def test_the_lower_bound_is_attained_with_momentum_too(method):
    """With a rate for every iteration one mode can be given any weights w_t of the noise."""
    problem = NoisyQuadratic([1.0], 0.3, 2.0)
    found = oracle.optimal_schedule(problem, method, 8, 8, stable(problem, method), restarts=16)
    assert found.lower_bound == pytest.approx(0.3 / 2 / (8 + 0.3 / 4), rel=ROUNDING)
    assert found.risk == pytest.approx(found.lower_bound, rel=1e-6)


def test_without_noise_as_many_rates_as_modes_end_at_the_minimum():
    """α_t = 1/a_t in any order: R = 0, up to rounding of the rates."""
    problem = NoisyQuadratic([1.0, 3.0], 0.0, [2.0, 1.0])
    found = oracle.optimal_schedule(problem, SGD, 2, 2, 1.5)
    assert found.risk < 1e-20
    assert sorted(found.schedule.rates) == pytest.approx([1 / 3, 1.0], rel=1e-8)
    assert found.lower_bound == 0


def test_at_the_minimum_the_least_rates_are_best():
    found = oracle.optimal_schedule(NoisyQuadratic([1.0, 3.0], 0.1, 0.0), SGD, 6, 2, 0.3, 0.01)
    assert found.schedule.rates == (0.01, 0.01)
    free = oracle.optimal_schedule(NoisyQuadratic([1.0, 3.0], 0.1, 0.0), SGD, 6, 2, 0.3)
    assert free.schedule.rates == pytest.approx([0.3e-9] * 2)
    assert free.lower_bound == pytest.approx(0, abs=1e-18)


@given(problems(), methods(), st.data())
@examples(0.5)
def test_no_schedule_is_below_the_lower_bound(problem, method, data):
    T = data.draw(st.integers(1, 20), label="T")
    cap = stable(problem, method, data.draw(st.floats(0.05, 1.5), label="cap"))
    floor = cap * data.draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]), label="floor")
    shares = data.draw(st.lists(st.floats(0, 1), min_size=T, max_size=T), label="rates")
    least = max(floor, 1e-9 * cap)
    rates = [min(max(least * (cap / least) ** share, least), cap) for share in shares]
    schedule = StepwiseSchedule(rates, [1] * T)
    bound = oracle.lower_bound(problem, method, T, cap, floor)
    assert bound <= final_risk.final_risk(problem, method, schedule) * (1 + ROUNDING)


# ---- Facts about minima --------------------------------------------------------------------------


def optimum(problem, method, T=24, S=3, share=0.9, floor=0.0, **options):
    cap = stable(problem, method, share)
    return oracle.optimal_schedule(problem, method, T, S, cap, floor * cap, **options)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("problem", SMALL[1:], ids=["n=2", "n=3"])
def test_more_freedom_is_never_worse(problem, method):
    base = optimum(problem, method)
    twice = optimum(problem, method, S=6)
    free = optimum(problem, method, lengths="free")
    every = optimum(problem, method, S=24)
    low = optimum(problem, method, share=0.3)
    high = optimum(problem, method, floor=0.2)
    dropping = optimum(problem, method, drop_only=True)
    assert every.lower_bound <= every.risk <= twice.risk <= base.risk
    assert twice.risk < base.risk * 0.999
    assert free.risk < base.risk * 0.999
    assert base.risk <= min(low.risk, dropping.risk) * (1 + ROUNDING)
    assert base.risk < high.risk * 0.999


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_units(method):
    """a → ca, α → α/c multiplies the risk by c; v → bv, x_0 → √b x_0 by b."""
    problem = SMALL[2]
    a, v, start = problem.curvature, problem.noise_variance, problem.start
    base = optimum(problem, method)
    steeper = optimum(NoisyQuadratic(8 * a, v, start), method)
    wider = optimum(NoisyQuadratic(a, 4 * v, 2 * start), method)
    assert steeper.risk == pytest.approx(8 * base.risk, rel=1e-10)
    assert wider.risk == pytest.approx(4 * base.risk, rel=1e-10)
    # Rates are determined to about the root of what the risk is.
    assert 8 * np.array(steeper.schedule.rates) == pytest.approx(base.schedule.rates, rel=1e-4)
    assert wider.schedule.rates == pytest.approx(base.schedule.rates, rel=1e-4)


@pytest.mark.parametrize("lengths", ["equal", "free"])
def test_the_risk_is_that_of_evolve_and_of_simulated_runs(lengths):
    """z of the mean of 20 000 runs."""
    problem, method = SMALL[2], NESTEROV
    found = optimum(problem, method, T=40, lengths=lengths)
    assert found.risk == pytest.approx(
        moments.evolve(problem, method, found.schedule).risk[-1], rel=ROUNDING
    )
    risk = simulate.run(problem, method, found.schedule, trajectories=20_000, seed=3).risk[-1:]
    assert np.abs(z_scores(risk, np.array([found.risk])))[0] <= critical_z(2)
    assert detectable(risk, 2)[0] < 0.08 * found.risk


def test_rates_that_rise_are_found_and_forbidden():
    """With strong momentum the last stage of the oracle rises; one that may only drop is worse."""
    problem, method = NoisyQuadratic([0.2, 2.0], 0.2, 2.0), UnifiedMomentum.nesterov(0.9)
    free = optimum(problem, method, T=12, S=3, restarts=16)
    dropping = optimum(problem, method, T=12, S=3, restarts=16, drop_only=True)
    assert free.schedule.rates[2] > free.schedule.rates[1]
    first, second, third = dropping.schedule.rates
    assert first >= second >= third
    assert dropping.risk > 1.01 * free.risk
    assert dropping.residual < 1e-6
    # The constraint holds the last two together: they alone would still descend.
    assert second == third
    assert dropping.gradient[1] > 0 > dropping.gradient[2]
    assert dropping.gradient[1:].sum() == pytest.approx(0, abs=1e-6 * dropping.risk / second)


@pytest.mark.parametrize(
    ("lengths", "T", "before", "after"),
    [("equal", 30, 3, 3), ("free", 30, 3, 5), ("free", 8, 2, 3)],
)
def test_no_better_schedule_is_started_from(lengths, T, before, after):
    """The best of one search, with fewer stages for free lengths, as the start of another."""
    problem, method = SMALL[2], UnifiedMomentum.nesterov(0.9)
    best = optimum(problem, method, T=T, S=before, restarts=8, lengths=lengths)
    again = optimum(
        problem, method, T=T, S=after, restarts=1, lengths=lengths, starts=[best.schedule], seed=5
    )
    assert again.risk <= best.risk * (1 + ROUNDING)
    assert len(again.schedule.rates) == after


def test_restarts_and_seeds():
    problem = NoisyQuadratic([0.3, 1.0, 3.0], 0.001, 2.0)
    options = {"T": 5, "S": 5, "share": 4.0}
    one, more, same, other = (
        optimum(problem, SGD, **options, restarts=restarts, seed=seed)
        for restarts, seed in ((1, 0), (12, 0), (12, 0), (12, 1))
    )
    assert more.schedule == same.schedule
    assert more.restart_risks == same.restart_risks
    assert more.restart_risks != other.restart_risks
    assert more.risk <= one.risk
    assert more.risk == pytest.approx(more.restart_risks[0], rel=ROUNDING)
    assert list(more.restart_risks) == sorted(more.restart_risks)
    assert 1 <= more.agreeing < len(more.restart_risks)
    assert optimum(SMALL[1], SGD).agreeing == len(optimum(SMALL[1], SGD).restart_risks)


# ---- What certifies it ---------------------------------------------------------------------------


def test_the_residual_knows_a_minimum():
    limits = schedule_search.Limits(0.1, 1.0, drop_only=False)
    rates, one = np.array([0.1, 0.5, 1.0]), np.ones(3)

    def residual(gradient):
        return limits.residual(rates, np.array(gradient), one)

    assert residual([3.0, 0.0, -2.0]) == 0
    assert residual([-0.01, 0.0, 0.0]) == pytest.approx(0.01)
    assert residual([0.0, 0.02, 0.0]) == pytest.approx(0.02)
    assert residual([0.0, 0.0, 0.03]) == pytest.approx(0.03)


def test_the_residual_knows_a_minimum_among_rates_that_drop():
    limits = schedule_search.Limits(0.1, 1.0, drop_only=True)
    rates, one = np.array([0.5, 0.3, 0.3]), np.ones(3)

    def residual(gradient):
        return limits.residual(rates, np.array(gradient), one)

    assert residual([0.0, 0.01, -0.01]) == pytest.approx(0, abs=1e-16)
    assert residual([0.0, -0.01, 0.01]) == pytest.approx(0.01)
    assert residual([0.0, 0.02, 0.0]) == pytest.approx(0.01)
    assert residual([0.02, 0.0, 0.0]) == pytest.approx(0.02)


def test_the_residual_is_the_relative_slope():
    """At rates that are no minimum, |∂ log R/∂ log α̂_i| at worst."""
    found = optimum(SMALL[2], SGD)
    worse = StepwiseSchedule([0.9 * rate for rate in found.schedule.rates], found.schedule.lengths)
    risk, gradient = final_risk.risk_gradient(SMALL[2], SGD, worse)
    rates = np.array(worse.rates)
    limits = schedule_search.Limits(1e-12, 10.0, drop_only=False)
    residual = limits.residual(rates, gradient / risk, rates)
    assert residual == pytest.approx(np.abs(gradient * rates / risk).max())
    assert residual > 1e-3
    assert found.residual < 1e-6


@given(st.data(), st.integers(1, 6))
def test_coordinates_and_rates(data, S):
    """Rates ↦ coordinates ↦ rates, and rates within the limits, whatever the coordinates."""
    unit = st.lists(st.floats(0, 1), min_size=S, max_size=S)
    heights = np.array(data.draw(unit))
    for drop_only in (False, True):
        limits = schedule_search.Limits(0.003, 0.7, drop_only)
        rates = 0.003 * (0.7 / 0.003) ** (np.sort(heights)[::-1] if drop_only else heights)
        x = limits.coordinates(rates)
        assert limits.rates(x) == pytest.approx(rates, rel=1e-9)
        found = limits.rates(np.maximum(data.draw(unit), limits.least))
        assert ((found >= 0.003) & (found <= 0.7)).all()
        assert not drop_only or (np.diff(found) <= 0).all()


# ---- The paper's problem -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cap", "floor", "drop_only", "risk"),
    [
        (0.0999, 0.0, False, 0.0154350),
        (0.0999, 0.0, True, 0.0154350),
        (0.06, 0.0, False, 0.0170322),
        (0.0999, 0.001, False, 0.1354009),
    ],
)
def test_25_equal_stages(cap, floor, drop_only, risk):
    """Rates ≤ 0.06: five stages at the cap; with six, a minimum of its own, it is 0.0170998."""
    found = oracle.optimal_schedule(PAPER, SGD, 2000, 25, cap, floor, drop_only=drop_only)
    assert found.risk == pytest.approx(risk, abs=6e-8)
    assert found.residual < 1e-6
    assert found.lower_bound < found.risk
    assert max(found.schedule.rates) == cap
    assert min(found.schedule.rates) >= floor
    assert all(after <= before for before, after in pairwise(found.schedule.rates))
    assert found.schedule.lengths == (80,) * 25
    assert (found.max_rate, found.min_rate, found.drop_only) == (cap, floor, drop_only)


def test_a_floor_costs_its_stationary_risk():
    """Between 0.13536, which no schedule beats, and the oracle's 0.13540."""
    a, h = PAPER.curvature, 0.001 * PAPER.curvature
    stationary = float((a * h * 0.02 / (2 - h)).sum() / 2)
    bound = oracle.lower_bound(PAPER, SGD, 2000, 0.0999, 0.001)
    assert stationary < bound
    assert bound == pytest.approx(0.1353661, abs=6e-8)
    assert stationary == pytest.approx(0.1353532, abs=6e-8)


def test_25_free_lengths():
    found = oracle.optimal_schedule(PAPER, SGD, 2000, 25, 0.0999, lengths="free", restarts=1)
    assert found.risk < 0.01509
    assert found.residual < 1e-6
    assert found.schedule.rates[0] == 0.0999
    assert found.schedule.rates[1] < 0.06
    # A move of a boundary by one iteration gains no 1e-6 of the risk, with the best rates after it.
    for i, step in product((0, 12, 23), (-1, 1)):
        lengths = np.array(found.schedule.lengths)
        lengths[i] += step
        lengths[i + 1] -= step
        moved = StepwiseSchedule(found.schedule.rates, lengths.tolist())
        again = oracle.optimal_schedule(
            PAPER, SGD, 2000, 25, 0.0999, lengths=moved.lengths, starts=[moved], restarts=1
        )
        assert found.risk * (1 - 1e-6) < again.risk <= final_risk.final_risk(PAPER, SGD, moved)


def test_what_autodrop_realises_is_above_the_oracle():
    """Algorithm 1 with its defaults from 0.06: twice the risk of the oracle under that cap."""
    loop = closed_loop.run(
        PAPER,
        SGD,
        rules.uai2024(window=1),
        learning_rate=0.06,
        iterations=2000,
        trajectories=2,
        seed=0,
    )
    for b in range(2):
        schedule = loop.schedule(b)
        risk = final_risk.final_risk(PAPER, SGD, schedule)
        best = oracle.optimal_schedule(PAPER, SGD, 2000, 25, max(schedule.rates)).risk
        assert 1.9 < risk / best < 2.2


def test_a_rule_that_sees_the_iterate_is_not_bounded():
    """Rate ½ until |x_t| < 0.02, then none: far below the oracle, which is for fixed schedules."""
    problem = NoisyQuadratic([1.0], 0.3, 2.0)
    bound = oracle.lower_bound(problem, SGD, 200, 1.0)
    noise = np.sqrt(0.3) * np.random.default_rng(0).standard_normal((200, 10_000))
    x = np.full(10_000, 2.0)
    for c in noise:
        x = np.where(np.abs(x) < 0.02, x, x - 0.5 * (x - c))
    risk = x**2 / 2
    assert z_scores(risk[None], np.array([bound]))[0] < -critical_z(1)
    assert risk.mean() < 0.5 * bound


# ---- Several horizons ----------------------------------------------------------------------------


@pytest.mark.parametrize("drop_only", [False, True])
def test_one_schedule_for_several_horizons(drop_only):
    problem = SMALL[2]
    found = oracle.horizon_free_schedule(
        problem, SGD, [80, 20, 40], 5, stable(problem, SGD), drop_only=drop_only
    )
    assert found.horizons == (20, 40, 80)
    assert len(found.schedule) == 80
    assert len(found.schedule.rates) == 5
    every = moments.evolve(problem, SGD, found.schedule).risk
    assert found.risks == pytest.approx(every[[20, 40, 80]], rel=ROUNDING)
    ratios = found.risks / [each.risk for each in found.oracles]
    assert (ratios > 1 - ROUNDING).all()
    assert found.ratios == pytest.approx(ratios)
    assert found.mean_ratio == pytest.approx(np.prod(ratios) ** (1 / 3))
    assert found.mean_ratio <= found.restart_ratios[0] * (1 + ROUNDING)
    # A compromise: better on average than the oracle of the longest horizon, and worse there.
    last = found.oracles[-1]
    assert found.risks[-1] > last.risk
    risks = moments.evolve(problem, SGD, last.schedule).risk[[20, 40, 80]]
    oracles = [each.risk for each in found.oracles]
    assert found.mean_ratio < np.prod(risks / oracles) ** (1 / 3)


def test_no_rates_on_a_grid_are_better_for_two_horizons():
    problem, cap = SMALL[1], stable(SMALL[1], NESTEROV)
    found = oracle.horizon_free_schedule(
        problem, NESTEROV, [3, 7], 2, cap, 0.001 * cap, lengths=[2, 5], restarts=8
    )
    axis = np.geomspace(0.001 * cap, cap, 300)
    grid = np.array(list(product(axis, repeat=2)))
    means = np.sqrt(
        every_risk(problem, NESTEROV, grid, [2, 1]) * every_risk(problem, NESTEROV, grid, [2, 5])
    )
    mean = np.sqrt(found.risks.prod())
    assert mean <= means.min() * (1 + ROUNDING)
    assert mean == pytest.approx(means.min(), rel=1e-3)


def test_one_horizon_is_the_oracle():
    cap = stable(SMALL[1], SGD)
    one = oracle.horizon_free_schedule(SMALL[1], SGD, [30], 3, cap, lengths="equal")
    assert one.mean_ratio == pytest.approx(1, rel=1e-9)
    assert one.risks[0] == pytest.approx(optimum(SMALL[1], SGD, T=30, S=3).risk, rel=1e-9)


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"problem": 3.0}, TypeError, "problem must be a NoisyQuadratic, got 3.0"),
        ({"method": 0.9}, TypeError, "method must be a UnifiedMomentum, got 0.9"),
        ({"steps": 0}, ValueError, "steps must be a positive integer, got 0"),
        ({"stages": 2.0}, ValueError, "stages must be a positive integer, got 2.0"),
        ({"stages": 11}, ValueError, "stages must be <= steps = 10, got 11"),
        ({"max_rate": 0.0}, ValueError, "max_rate must be finite and > 0, got 0.0"),
        ({"max_rate": float("nan")}, ValueError, "max_rate must be finite and > 0, got nan"),
        ({"max_rate": "1"}, TypeError, "max_rate must be a real number, got '1'"),
        ({"min_rate": 0.6}, ValueError, "0 <= min_rate <= max_rate = 0.5, got 0.6"),
        ({"min_rate": -0.1}, ValueError, "0 <= min_rate <= max_rate = 0.5, got -0.1"),
        ({"lengths": "short"}, ValueError, "lengths must be 'equal', 'free' or a sequence"),
        ({"lengths": [5, 4]}, ValueError, "2 integers with the sum 10, got 2 with the sum 9"),
        ({"lengths": [5, 4, 1]}, ValueError, "2 integers with the sum 10, got 3 with the sum 10"),
        ({"lengths": [10, 0]}, ValueError, "every length must be a positive integer, got 0"),
        ({"restarts": 0}, ValueError, "restarts must be a positive integer, got 0"),
        ({"starts": [0.1]}, TypeError, "every start must be a StepwiseSchedule, got 0.1"),
        (
            {"starts": [StepwiseSchedule([0.1], [9])]},
            ValueError,
            "every start must have 10 iterations, got 9",
        ),
        (
            {"starts": [StepwiseSchedule([0.1, 0.2, 0.1], [3, 3, 4])], "lengths": "free"},
            ValueError,
            "a start must have <= 2 stages, got 3",
        ),
    ],
)
def test_bad_input(change, error, message):
    arguments = {
        "problem": SMALL[1],
        "method": SGD,
        "steps": 10,
        "stages": 2,
        "max_rate": 0.5,
    } | change
    with pytest.raises(error, match=message):
        oracle.optimal_schedule(**arguments)


@pytest.mark.parametrize("horizons", [[], [10, 10]])
def test_horizons_are_distinct(horizons):
    with pytest.raises(ValueError, match="horizons must be distinct and at least one"):
        oracle.horizon_free_schedule(SMALL[1], SGD, horizons, 2, 0.5)


def test_a_floor_that_diverges():
    with pytest.raises(OverflowError, match=r"min_rate \* max curvature is 20.0, stable is < 2"):
        oracle.optimal_schedule(SMALL[1], SGD, 2000, 2, 20.0, 10.0)


# ---- Planted mistakes ----------------------------------------------------------------------------


def plant_late_adjoint(monkeypatch):
    right = final_risk.StageRisks.gradient

    def gradient(self, weights=None):
        by_rate, by_length = right(self, weights)
        return final_risk.Gradient(np.roll(by_rate, 1), by_length)

    monkeypatch.setattr(final_risk.StageRisks, "gradient", gradient)


def plant_noise(monkeypatch):
    right = final_risk._one_iteration

    def one_iteration(*arguments):
        maps = right(*arguments)
        return maps._replace(c=2 * maps.c, dc=2 * maps.dc)

    monkeypatch.setattr(final_risk, "_one_iteration", one_iteration)


def plant_no_cap(monkeypatch):
    right = schedule_search.Limits.rates
    monkeypatch.setattr(schedule_search.Limits, "rates", lambda self, x: 1.5 * right(self, x))


def plant_unordered(monkeypatch):
    right = oracle.Limits
    monkeypatch.setattr(oracle, "Limits", lambda floor, cap, _: right(floor, cap, False))


def check_a_grid():
    test_no_rates_on_a_grid_are_better(SMALL[2], SGD, [1, 2, 4], False)


def check_a_cap():
    test_one_mode_under_limits_is_greedy(0.2, 0.0)


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (plant_late_adjoint, check_a_grid),
        (plant_noise, check_a_grid),
        (plant_no_cap, check_a_grid),
        (plant_no_cap, check_a_cap),
        (plant_unordered, test_rates_that_rise_are_found_and_forbidden),
    ],
)
def test_planted_mistakes_are_seen(plant, check, monkeypatch):
    plant(monkeypatch)
    with pytest.raises((AssertionError, ValueError)):
        check()
