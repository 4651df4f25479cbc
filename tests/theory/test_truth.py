"""Times of saturation against every iteration of a long run, and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.strategies import examples, methods, problems, stable_rates
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, saturation
from theory.one_rate import at_one_rate, moments_at_stages
from theory.truth import angle_settled, risk_settled, stage_truth

SGD = UnifiedMomentum.sgd()
PAPER = NoisyQuadratic.paper()


def last_outside(distance, tolerance):
    """1 + the last index at which it is larger; 0 if it never is."""
    outside = np.flatnonzero(distance > tolerance)
    return int(outside[-1]) + 1 if outside.size else 0


@given(st.data(), problems(), methods(), st.integers(1, 4))
@examples(0.4)
def test_against_every_time_of_a_long_run(data, problem, method, k):
    """The recursion over windows knows nothing of limits, deviations or searches.

    `long` iterations decide when all modes have by then forgotten their start to rounding.
    """
    rates = [data.draw(stable_rates(problem, method), label="rate") for _ in range(2)]
    before = k * data.draw(st.integers(1, 8), label="windows before")
    fraction = data.draw(st.sampled_from([0.5, 0.05, 0.01]), label="fraction")
    eta = data.draw(st.sampled_from([2.0, 0.5, 0.1]), label="eta")
    long = 12_000
    schedule = StepwiseSchedule(rates, [before, k * (long // k)])
    found = stage_truth(problem, method, schedule, window=k, fraction=fraction, eta=eta)[1]
    run = moments.evolve(problem, method, schedule, k)
    angle = run.ratio_angle[before // k :]
    # Where a mode has not forgotten its start, the long run does not know the limit.
    settled = math.exp(-saturation.saturation_rate(problem, rates[1], method) * long) < 1e-12
    limit = np.arccos(np.clip(saturation.cosine_ratio(problem, rates[1], method, k), -1, 1))
    event(f"forgotten: {settled}")
    slack = 1e-9  # of rounding: a time may fall on either side of it
    for tolerance, time in (
        (fraction * abs(angle[0] - limit), found.angle_saturated),
        (found.deviation, found.angle_resolved),
        (found.mean_deviation, found.mean_resolved),
    ):
        if settled and tolerance > 1e-5:
            early, late = (
                k * (last_outside(np.abs(angle - limit), tolerance * (1 + sign * slack)) + 3)
                for sign in (1, -1)
            )
            assert early <= time <= late
    risk = moments.evolve(problem, method, schedule).risk[before:]
    way = fraction * abs(risk[0] - found.floor)
    for distance, tolerance, time in (
        (risk - found.floor, eta * found.floor, found.risk_at_floor),
        (np.abs(risk - found.floor), way, found.risk_saturated),
    ):
        if settled and tolerance > 1e-5 * found.floor:
            early, late = (
                last_outside(distance, tolerance * (1 + sign * slack)) for sign in (1, -1)
            )
            assert early <= time <= late


@pytest.mark.parametrize("h", [0.7, 0.02, 1e-4, 1e-8])
@pytest.mark.parametrize("eta", [0.1, 3.0])
def test_the_risk_of_one_mode(h, eta):
    """φ^{2t}(x_0² − V) ≤ ηV: t = ⌈log((x_0² − V)/(ηV))/(−2 log φ)⌉, up to 10⁹ iterations."""
    problem = NoisyQuadratic([2.0], 0.3, 5.0)
    V = h * 0.3 / (2 - h)
    want = math.log((25 - V) / (eta * V)) / (-2 * math.log1p(-h))
    (found,) = stage_truth(problem, SGD, StepwiseSchedule([h / 2], [3]), eta=eta)
    assert found.floor == pytest.approx(V, rel=1e-14)
    # 1 − h is rounded: an error of 1e-16 in h.
    rounding = 2e-16 / h + 1e-12
    assert want * (1 - rounding) <= found.risk_at_floor <= want * (1 + rounding) + 1
    way = math.log(1 / 0.05) / (-2 * math.log1p(-h))
    assert way * (1 - rounding) <= found.risk_saturated <= way * (1 + rounding) + 1


@pytest.mark.parametrize("h", [0.7, 0.02, 1e-4])
def test_the_angle_of_one_mode(h):
    """k = 1: the first t with √-free |E ss'/√(E s² E s'²) + h/2| ≤ ε for all later ones.

    With q = E x², E s_t² = h²(q + v) and E s_t s_{t+1} = h²[(1 − h)q − hv], eq. (18) and (20).
    """
    v, start = 0.3, 5.0
    problem = NoisyQuadratic([1.0], v, start)
    stage = at_one_rate(problem, SGD, h)
    D = stage.from_moments(problem.start[None] ** 2)
    t = np.arange(int(30 / h))
    V = h * v / (2 - h)
    q = V + (1 - h) ** (2.0 * t) * (start**2 - V)
    ratio = ((1 - h) * q - h * v)[:-1] / np.sqrt((q[:-1] + v) * (q[1:] + v))
    off = np.abs(np.arccos(ratio) - np.arccos(-h / 2))
    for tolerance in (0.3, 0.01, 1e-4):
        assert angle_settled(stage, D, tolerance) == last_outside(off, tolerance)


def test_two_events():
    """a = (1, …, 1, 10⁻⁴): the angle cannot be told from saturated long before the risk falls."""
    problem = NoisyQuadratic([1.0] * 10 + [1e-4], 0.01, [0.0] * 10 + [50.0])
    schedule = StepwiseSchedule.constant(0.01, 1000)
    (found,) = stage_truth(problem, SGD, schedule)
    assert found.angle_resolved == 3  # from its first angle on
    assert found.mean_resolved < 10
    assert found.inside(found.risk_at_floor) is None
    assert found.inside(found.angle_resolved) == 3
    # η floor = φ^{2t} a x_0²/2, but for the fast modes, which are at their floor
    slow = 1e-6
    V = slow * 0.01 / (2 - slow)
    fast = 10 * 0.01 * 0.01 / 1.99 / 2
    gone = math.log((2500 - V) * 1e-4 / 2 / (0.1 * (fast + 1e-4 * V / 2)))
    assert found.risk_at_floor == pytest.approx(gone / (-2 * math.log1p(-slow)), rel=1e-6)


def test_a_stage_that_begins_settled():
    """From the law that the first stage leaves, the second at the same rate is settled at once."""
    schedule = StepwiseSchedule([0.06, 0.06], [5000, 10])
    first, second = stage_truth(PAPER, SGD, schedule, window=4)
    assert first.angle_saturated > 12
    assert first.risk_at_floor > 0
    assert second.angle_saturated == second.angle_resolved == 12  # its first three windows
    assert second.risk_at_floor == 0
    assert (second.start, second.length, second.rate) == (5000, 10, 0.06)


def test_the_risk_that_starts_below_its_floor():
    problem = NoisyQuadratic([1.0, 3.0], 0.1, 0.0)
    (found,) = stage_truth(problem, SGD, StepwiseSchedule([0.1], [10]))
    assert found.risk_at_floor == 0
    assert found.risk_saturated > 0


def test_on_the_papers_problem_windows_see_late():
    """Window 64 cannot see the angle saturate before 192 iterations, the risk has by 30."""
    (one,) = stage_truth(PAPER, SGD, StepwiseSchedule.constant(0.06, 200), window=1)
    (many,) = stage_truth(PAPER, SGD, StepwiseSchedule.constant(0.06, 200), window=64)
    assert one.risk_at_floor == many.risk_at_floor == 30
    assert one.angle_saturated == 14
    assert many.angle_saturated == 9 * 64
    assert many.limit_angle == pytest.approx(math.radians(119.30), abs=1e-4)


def test_monotone_in_tolerance_and_time_in_units():
    stage = at_one_rate(PAPER, SGD, 0.01, 4)
    D = stage.from_moments(moments_at_stages(PAPER, SGD, StepwiseSchedule([0.06], [40]))[-1])
    times = [angle_settled(stage, D, tolerance) for tolerance in (1e-1, 1e-2, 1e-3, 1e-6, 1e-10)]
    assert times == sorted(times)
    assert times[0] < times[-1]
    later = stage.moved(D, 4 * 5)
    assert angle_settled(stage, later, 1e-3) == times[2] - 5
    assert risk_settled(stage, stage.moved(D, 3), 0.01) == risk_settled(stage, D, 0.01) - 3


def test_modes_that_hardly_move():
    problem = NoisyQuadratic([1.0, 1e-17], 0.1, 1.0)
    with pytest.raises(OverflowError, match="nothing has settled within"):
        stage_truth(problem, SGD, StepwiseSchedule([0.1], [10]), eta=1e-17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be a positive integer, got 0"),
        ({"fraction": 1.0}, "fraction must satisfy 0 < fraction < 1, got 1.0"),
        ({"eta": 0.0}, "eta must be finite and > 0, got 0.0"),
        ({"average": 0}, "average must be a positive integer, got 0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        stage_truth(PAPER, SGD, StepwiseSchedule([0.01], [100]), **options)


def test_tolerances_and_rates_out_of_range():
    stage = at_one_rate(PAPER, SGD, 0.01)
    D = stage.from_moments(PAPER.start[None] ** 2)
    for settled in (angle_settled, risk_settled):
        with pytest.raises(ValueError, match="tolerance must be > 0, got 0"):
            settled(stage, D, 0)
    with pytest.raises(ValueError, match="must be < 2"):
        stage_truth(PAPER, SGD, StepwiseSchedule([0.11], [100]))


def test_the_exact_expected_cosine_crosses_with_the_ratio():
    """n_eff ≈ 100: arccos E cos, by its double integral, is within 5 % at the same window.

    With n_eff = 2.5 (i^−1.5, n = 40, α = 0.06 after 0.12) it is 7 windows of 31 later.
    """
    schedule = StepwiseSchedule.constant(0.03, 30)
    (found,) = stage_truth(PAPER, SGD, schedule)
    window = found.angle_saturated - 3
    run = moments.evolve(PAPER, SGD, schedule)
    first, before, here = np.arccos(run.expected_cosine([0, window - 1, window], tolerance=1e-6))
    limit = math.acos(saturation.expected_cosine(PAPER, 0.03, tolerance=1e-6))
    assert abs(before - limit) > 0.05 * abs(first - limit) >= abs(here - limit)


def test_a_risk_that_leaves_after_a_long_time():
    """f − floor = e^{−2h₂t} − e^{−2h₁t} stays below 0.2 for 1100 iterations, and is above for 10⁶.

    Nothing that is seen in between says so: only the bound on what the modes may still do.
    """
    h = np.array([1e-4, 1e-6])
    stage = at_one_rate(NoisyQuadratic([1.0, 0.01], 0.1, 0.0), SGD, h[0])
    D = np.array([[-2.0, 200.0]])  # a D/2 = −1, 1
    inside = stage.risk(D, 0, 1, 1000) - stage.floor
    assert inside.max() < 0.2
    # The other exponential is gone by then.
    want = math.log(5) / (-2 * math.log1p(-h[1]))
    assert risk_settled(stage, D, 0.2) == pytest.approx(want, rel=1e-9, abs=1)
