"""Rules that see exact expectations, against the recursion over windows and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.strategies import examples, methods, problems
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, saturation
from theory.angle_noise import angle_deviation
from theory.ideal_rules import AngleAtLimit, Clock, RiskAtFloor, Stages, Window, realised

SGD = UnifiedMomentum.sgd()
PAPER = NoisyQuadratic.paper()
SLACK = 1e-9  # a tolerance, of rounding: a distance may be on either side of a threshold


def first_rate(problem, method, share=0.6):
    return share * float(method.max_stable_step) / float(max(problem.curvature))


def limit(problem, rate, method, k):
    return np.arccos(np.clip(saturation.cosine_ratio(problem, rate, method, k), -1, 1))


@given(
    problems(),
    methods(),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(["way", "radians", "deviations"]),
    st.sampled_from([0.3, 0.05]),
)
@example(
    NoisyQuadratic([0.75, 3.0], [0.84375, 1.25], [0.625, 0.0]), SGD, 4, 4, "way", 0.05
)  # the angle gets there with the last window of all
@examples(0.4)
def test_every_drop_is_the_first_angle_within_the_tolerance(problem, method, k, m, unit, tolerance):
    """Windows of `evolve` are counted from 0; so are the rule's, as its stages are whole windows.

    In the last stage, none is before T.
    """
    rule = AngleAtLimit(tolerance, 0.4, Window(k), unit, m)
    rate, T = first_rate(problem, method), 400 * k
    schedule = realised(Stages(problem, method), rule, learning_rate=rate, iterations=T)
    assert len(schedule) == T
    assert list(schedule.rates) == pytest.approx(
        [rate * 0.4**i for i in range(len(schedule.rates))]
    )
    angle = moments.evolve(problem, method, schedule, k).ratio_angle
    for i, (start, own, length) in enumerate(
        zip(schedule.boundaries[:-1], schedule.rates, schedule.lengths, strict=True)
    ):
        assert length % k == 0
        if own * max(problem.curvature) * (T - start) < 1e-5 or length < 3 * k:
            break
        first, count = start // k, length // k - 2
        inside = angle[first : first + count]
        off = inside - limit(problem, own, method, k)
        mean = np.convolve(off, np.full(m, 1 / m), mode="valid") if count >= m else np.array([])
        within = {
            "way": tolerance * abs(off[0]),
            "radians": tolerance,
            "deviations": tolerance * angle_deviation(problem, own, method, k, m),
        }[unit]
        if within < 1e-6:
            break
        dropped = i < len(schedule.rates) - 1
        # The last angle is that of the drop, or is seen at T, where a drop would not show.
        assert (np.abs(mean[:-1]) > within * (1 - SLACK)).all()
        if dropped:
            assert abs(mean[-1]) <= within * (1 + SLACK)


@given(problems(), methods(), st.sampled_from([0.05, 0.5, 3.0]))
@examples(0.4)
def test_every_drop_is_the_first_risk_within_1_plus_eta_of_the_floor(problem, method, eta):
    rule, T = RiskAtFloor(eta, 0.4), 500
    rate = first_rate(problem, method)
    schedule = realised(Stages(problem, method), rule, learning_rate=rate, iterations=T)
    assert len(schedule) == T
    risk = moments.evolve(problem, method, schedule).risk
    for i, (start, own, length) in enumerate(
        zip(schedule.boundaries[:-1], schedule.rates, schedule.lengths, strict=True)
    ):
        if own * max(problem.curvature) * (T - start) < 1e-5:
            break
        stationary = moments.evolve(
            problem, method, StepwiseSchedule.constant(own, 3), from_stationary=True
        )
        within = (1 + eta) * stationary.risk[0]
        dropped = i < len(schedule.rates) - 1
        seen = risk[start + 1 : start + length + 1]
        # The last risk is that of the drop, or at T, where a drop would not show.
        assert (seen[: length - 1] > within * (1 - SLACK)).all()
        if dropped:
            assert seen[-1] <= within * (1 + SLACK)


@pytest.mark.parametrize(("eta", "factor"), [(0.1, 0.5), (2.0, 0.25), (0.01, 0.1)])
def test_one_mode_at_its_floor(eta, factor):
    """Stage i lasts ⌈log((q − V)/(ηV))/(−2 log(1 − h))⌉, then q = V + (1 − h)^{2k}(q − V)."""
    v, q, h, T = 0.3, 25.0, 0.5, 10_000
    problem = NoisyQuadratic([1.0], v, 5.0)
    schedule = realised(
        Stages(problem, SGD), RiskAtFloor(eta, factor), learning_rate=h, iterations=T
    )
    for length in schedule.lengths[:-1]:
        V = h * v / (2 - h)
        assert length == max(1, math.ceil(math.log((q - V) / (eta * V)) / (-2 * math.log1p(-h))))
        q = V + (1 - h) ** (2 * length) * (q - V)
        h *= factor
    assert len(schedule.lengths) >= 4


def test_a_rule_does_not_know_the_horizon():
    stages = Stages(PAPER, SGD)
    for rule in (AngleAtLimit(0.1, 0.5, Window(4)), RiskAtFloor(0.3, 0.1), Clock(70, 0.5)):
        long, short = (
            realised(stages, rule, learning_rate=0.06, iterations=T) for T in (2000, 900)
        )
        assert list(short.segments(0, 900)) == list(long.segments(0, 900))


def test_patience_waits_longer_from_the_same_start():
    stages = Stages(PAPER, SGD)
    one, three = (
        realised(stages, RiskAtFloor(0.1, 0.5, patience), learning_rate=0.06, iterations=5000)
        for patience in (1, 3)
    )
    assert three.lengths[0] == 3 * one.lengths[0]
    # At its floor for long, the next stage begins nearer to its own.
    assert three.lengths[1] < 3 * one.lengths[1]
    half = realised(stages, RiskAtFloor(0.1, 0.5, 2.55), learning_rate=0.06, iterations=5000)
    assert half.lengths[0] == math.ceil(2.55 * one.lengths[0]) == 77


def test_windows_by_the_rate():
    assert [Window(16).at(step) for step in (1.2, 1e-3)] == [16, 16]
    assert [Window(4, 0.5).at(step) for step in (1.0, 0.01)] == [4, 40]
    assert [Window(1, 1).at(step) for step in (1.2, 0.25, 0.01)] == [1, 4, 100]
    schedule = realised(
        Stages(PAPER, SGD), AngleAtLimit(0.1, 0.25, Window(1, 1)), learning_rate=0.05,
        iterations=3000,
    )  # fmt: skip
    for rate, length in zip(schedule.rates[:-1], schedule.lengths[:-1], strict=True):
        assert length % Window(1, 1).at(20 * rate) == 0


def test_a_clock():
    schedule = realised(Stages(PAPER, SGD), Clock(300, 0.5), learning_rate=0.06, iterations=1000)
    assert schedule == StepwiseSchedule([0.06, 0.03, 0.015, 0.0075], [300, 300, 300, 100])


def test_rates_that_move_nothing_are_kept():
    """(0.1)ᵏ: without an end to it there would be thousands of stages."""
    schedule = realised(Stages(PAPER, SGD), Clock(1, 0.1), learning_rate=0.06, iterations=100_000)
    assert len(schedule.rates) < 15
    assert 20 * schedule.rates[-1] * schedule.lengths[-1] < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(0), "scale must be finite and > 0, got 0"),
        (lambda: Window(1, -1), "power must be finite and >= 0, got -1"),
        (lambda: AngleAtLimit(0, 0.5), "tolerance must be finite and > 0, got 0"),
        (lambda: AngleAtLimit(0.1, 1.0), "factor must satisfy 0 < factor < 1, got 1.0"),
        (lambda: AngleAtLimit(0.1, 0.5, average=0), "average must be a positive integer, got 0"),
        (lambda: AngleAtLimit(0.1, 0.5, unit="degrees"), "unit must be 'way', 'radians' or"),
        (lambda: RiskAtFloor(-1, 0.5), "eta must be finite and > 0, got -1"),
        (lambda: RiskAtFloor(1, 0.5, 0.5), "patience must be finite and >= 1, got 0.5"),
        (lambda: Clock(0, 0.5), "period must be a positive integer, got 0"),
        (lambda: Clock(10, 0.0), "factor must satisfy 0 < factor < 1, got 0.0"),
    ],
)
def test_bad_rules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_runs():
    stages = Stages(PAPER, SGD)
    with pytest.raises(ValueError, match="must be < 2"):
        realised(stages, Clock(10, 0.5), learning_rate=0.2, iterations=100)
    with pytest.raises(ValueError, match="iterations must be a positive integer, got 0"):
        realised(stages, Clock(10, 0.5), learning_rate=0.06, iterations=0)
    with pytest.raises(TypeError, match="problem must be a NoisyQuadratic"):
        Stages(None, SGD)
    with pytest.raises(TypeError, match="method must be a UnifiedMomentum"):
        Stages(PAPER, None)


@pytest.mark.parametrize(
    "rule",
    [AngleAtLimit(0.1, 0.5, Window(4)), AngleAtLimit(0.1, 0.5, Window(4), average=3),
     RiskAtFloor(0.3, 0.1), Clock(70, 0.5)],
    ids=str,
)  # fmt: skip
def test_an_event_is_seen_when_it_is_over_and_not_before(rule):
    stages = Stages(PAPER, SGD)
    stage = stages.at(0.03, rule.window.at(0.6))
    D = stage.from_moments(PAPER.start[None] ** 2)
    time = rule.event(stages, stage, D, 1000)
    assert 12 < time < 1000
    assert rule.event(stages, stage, D, time) == time
    assert rule.event(stages, stage, D, time - 1) is None
    assert rule.event(stages, stage, D, 1) is None
