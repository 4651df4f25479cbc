"""A rule on recorded angles: the drops of the run itself, or those that another rule had made."""

import dataclasses
import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st

from autodrop import AutoDrop, DropEvent, DropPolicy, Rule, replay, rules
from autodrop.detectors import GaussianSaturation, MovingAverageSaturation, ThresholdSaturation
from tests.autodrop import reference

F64 = torch.float64


class Training:
    """Six parameters pulled to random targets; in some updates they stay where they are."""

    def __init__(self, lr=0.4, momentum=0.7):
        self.generator = torch.Generator().manual_seed(0)
        self.p = torch.nn.Parameter(torch.zeros(6, dtype=F64))
        self.optimizer = torch.optim.SGD([self.p], lr=lr, momentum=momentum)

    def step(self, rests=False):
        noise = torch.randn(6, generator=self.generator, dtype=F64)
        self.p.grad = self.p.detach() + noise
        before = self.p.detach().clone()
        self.optimizer.step()
        if rests:
            self.p.data.copy_(before)


RULES = {
    "uai": rules.uai2024(3, 0.7, threshold=5.0, buffer=4),
    "uai, by value": rules.uai2024(
        3, 0.7, threshold=9.0, buffer=4, smoothing="value", test="absolute"
    ),
    "uai to a floor": rules.uai2024(3, 0.7, 0.25, threshold=5.0, buffer=3),
    "uai, waiting": Rule(3, GaussianSaturation(5.0, 3), DropPolicy(0.7, wait=3)),
    "arxiv": rules.arxiv2021(3, 0.7, 0.01, threshold=4.0, max_threshold=12.0, wait=3),
    "arxiv of two updates": rules.arxiv2021(
        2, 0.7, 0.01, threshold=8.0, max_threshold=24.0, wait=2
    ),
    "arxiv, averaging": rules.arxiv2021(
        3, 0.7, 0.01, threshold=9.0, max_threshold=40.0, wait=2, average=True
    ),
    "nqm": rules.nqm2024(0.8, 0.05, threshold=0.8, length=5),
    "nqm, signed": rules.nqm2024(0.8, 0.05, threshold=0.4, length=5, test="signed"),
}
# Whole windows without movement: 7 … 9 of three updates, and single ones.
RESTS = {0: (), 1: range(21, 30), 2: (40, 41, 42, 43, 50, 51, 60, 61, 62, 90)}


OTHERS = {
    "uai": RULES["uai"],
    "arxiv": dataclasses.replace(RULES["arxiv"], observation="mean"),
    "nqm": dataclasses.replace(RULES["nqm"], window=3),
}


def recorded(rule, lr=0.4, rests=(), steps=150, **options):
    training = Training(lr)
    scheduler = AutoDrop.from_rule(training.optimizer, rule, **options)
    for t in range(1, steps + 1):
        training.step(t in rests)
        scheduler.step()
    return scheduler


def replayed(scheduler, rule, lr=0.4):
    return list(replay(scheduler.angular_velocities, rule, lr, steps=scheduler.angle_steps))


# Windows without movement are what is tested.
@pytest.mark.filterwarnings("ignore:no angular velocity:RuntimeWarning")
@pytest.mark.parametrize("rests", RESTS)
@pytest.mark.parametrize("name", RULES)
def test_a_run_s_own_rule_makes_its_drops(name, rests):
    scheduler = recorded(RULES[name], rests=RESTS[rests])
    assert len(scheduler.drops) >= 2
    assert replayed(scheduler, RULES[name]) == scheduler.drops


@pytest.mark.parametrize("lag", [1, 2])
def test_it_knows_no_lag(lag):
    rule = RULES["uai"]
    scheduler = recorded(rule, lag=lag)
    late = [dataclasses.replace(e, step=e.step + lag) for e in replayed(scheduler, rule)]
    assert len(late) >= 3
    assert late == scheduler.drops


def test_windows_are_as_many_as_they_were():
    """A wait that ends in a window without an angle, and one of which the record says nothing."""
    rule = Rule(1, ThresholdSaturation(180.0), DropPolicy(0.5, wait=3))
    with pytest.warns(RuntimeWarning, match="did not move"):
        scheduler = recorded(rule, rests=(5,), steps=8)
    # x_5 = x_4 is lost at update 6. Angles at 3, 4, 5 and, from x_6, x_7, x_8 on, at 9 only.
    assert scheduler.angle_steps == [3, 4, 5]
    (event,) = scheduler.drops
    assert (event.step, event.angle) == (6, None)
    assert replayed(scheduler, rule) == []  # the record ends with the angle at 5
    with pytest.warns(RuntimeWarning, match="did not move"):
        longer = recorded(rule, rests=(5,), steps=9)
    assert longer.angle_steps == [3, 4, 5, 9]
    assert replayed(longer, rule) == longer.drops == [event]
    # The control: as if no window had been lost, the wait ends elsewhere.
    (wrong,) = replay(longer.angular_velocities, rule, 0.4)
    assert wrong.step == 5 + 1
    assert wrong.angle is not None


@pytest.mark.parametrize(("tried", "watched"), list(itertools.permutations(OTHERS, 2)))
@pytest.mark.parametrize("rests", [0, 1])
def test_other_rules_tried_offline_are_what_a_dry_run_with_them_records(tried, watched, rests):
    """The same window and observation for both; training does not see which rule watches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without movement
        one = recorded(OTHERS[watched], rests=RESTS[rests], dry_run=True)
        other = recorded(OTHERS[tried], rests=RESTS[rests], dry_run=True)
    assert (len(one.angular_velocities) < 48) == bool(rests)
    assert other.drops
    assert replayed(one, OTHERS[tried]) == other.drops
    assert one.drops != other.drops  # the control


def test_up_to_the_first_difference_another_rule_is_answered_exactly():
    """What comes after a drop that the run did not make is another story."""
    made, tried = RULES["uai"], rules.uai2024(3, 0.5, threshold=2.0, buffer=3)
    one, other = recorded(made), recorded(tried)
    offline = replayed(one, tried)
    first = min(one.drops[0].step, other.drops[0].step)
    assert [e for e in offline if e.step <= first] == [e for e in other.drops if e.step <= first]
    assert offline != other.drops


def rule_of(kind, window, factor, floor, wait, threshold, observation):
    """A rule with two or three parameters that matter, on angles that jump by up to 180°."""
    detector = {
        "gaussian": GaussianSaturation(threshold, 3),
        "moving average": MovingAverageSaturation(threshold / 3, 3),
        "threshold": ThresholdSaturation(threshold),
    }[kind]
    policy = DropPolicy(factor, floor, wait, max_threshold=min(4 * threshold, 170.0))
    return Rule(window, detector, policy, observation)


def by_hand(rule, angles, lost, learning_rate):
    """`rule.advance` window by window; lost: windows without an angle, from the third on."""
    state, rate, drops, angles = rule.init(), learning_rate, [], iter(angles)
    while lost and lost[-1]:
        lost = lost[:-1]  # the record ends with the last angle
    for i, gone in enumerate([True, True, *lost]):
        ω = None if gone else next(angles)
        state, decision = rule.advance(state, None if ω is None else math.radians(ω))
        if decision.drop:
            new = max(rule.policy.min_lr, rule.policy.factor * rate)
            if rate > rule.policy.min_lr and new != rate:
                k = rule.window
                step = (i + 1) * k if rule.observation == "mean" else i * k + 2
                drops.append(DropEvent(step, i, (rate,), (new,), ω, step))
                rate = new
    return drops


@given(
    kind=st.sampled_from(["gaussian", "moving average", "threshold"]),
    window=st.integers(2, 5),
    factor=st.floats(0.1, 0.9),
    floor=st.sampled_from([0.0, 0.05, 0.5, 3.0]),
    wait=st.integers(0, 4),
    threshold=st.floats(1.0, 60.0),
    observation=st.sampled_from(["mean", "snapshot"]),
    windows=st.lists(
        st.none() | st.floats(0.0, 180.0) | st.floats(89.0, 91.0) | st.sampled_from([90.0, 180.0]),
        min_size=8,
        max_size=40,
    ),
    learning_rate=st.floats(0.01, 10.0),
)
def test_it_is_the_rule_window_by_window(
    kind, window, factor, floor, wait, threshold, observation, windows, learning_rate
):
    rule = rule_of(kind, window, factor, floor, wait, threshold, observation)
    first = 3 * window if observation == "mean" else 2 * window + 1
    angles = [ω for ω in windows if ω is not None]
    steps = [first + i * window for i, ω in enumerate(windows) if ω is not None]
    expected = by_hand(rule, angles, [ω is None for ω in windows], learning_rate)
    event(f"drops: {min(len(expected), 3)}")
    assert list(replay(angles, rule, learning_rate, steps=steps)) == expected
    if None not in windows:
        assert list(replay(angles, rule, learning_rate)) == expected


LITERAL = {
    "uai": (
        rules.uai2024(2, 0.5, threshold=3.0, buffer=5),
        lambda a: reference.uai_drops(a, 3.0, 5),
    ),
    "uai, by value": (
        rules.uai2024(2, 0.5, threshold=3.0, buffer=5, smoothing="value", test="absolute"),
        lambda a: reference.uai_drops(a, 3.0, 5, "value", "absolute"),
    ),
    "nqm": (
        rules.nqm2024(0.5, 0.0, threshold=2.0, length=4),
        lambda a: reference.nqm_drops(a, 2.0, 4),
    ),
    "arxiv": (
        rules.arxiv2021(4, 0.5, 0.0, threshold=6.0, max_threshold=30.0, wait=3),
        lambda a: reference.arxiv_drops(a, 6.0, 30.0, 0.5, 3),
    ),
}


@pytest.mark.parametrize("name", LITERAL)
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_literal_rule(name, seed):
    """Against the slow reference, on angles that jump at random: no change is at a threshold."""
    rule, decide = LITERAL[name]
    rng = np.random.default_rng(seed)
    angles = np.clip(90 + 20 * rng.standard_normal(120).cumsum() / 5, 1, 179).tolist()
    angles = [ω + rng.uniform(-8, 8) * (ω > 9) * (ω < 171) for ω in angles]
    drops = replay(angles, rule)
    indices = decide(angles)
    assert len(indices) >= 3
    assert [e.window - 2 for e in drops] == indices
    assert [e.angle for e in drops] == [angles[i] for i in indices]
    assert [e.new_lr for e in drops] == [(0.5**i,) for i in range(1, len(indices) + 1)]


def test_no_angles_make_no_drops():
    assert replay([], rules.uai2024()) == ()
    assert replay([], rules.uai2024(), steps=[]) == ()
    assert replay(np.array([]), rules.nqm2024()) == ()


def test_arrays_will_do():
    scheduler = recorded(RULES["uai"])
    arrays = replay(
        np.array(scheduler.angular_velocities),
        RULES["uai"],
        0.4,
        steps=np.array(scheduler.angle_steps),
    )
    assert list(arrays) == scheduler.drops


MEAN, SNAPSHOT = rules.uai2024(4, 0.5), rules.arxiv2021(4, 0.5)
FROM = "steps must increase from {} on and end windows of 4 updates ({}), got {}"


@pytest.mark.parametrize(
    ("angles", "rule", "options", "error", "words"),
    [
        ([10.0, 181.0], MEAN, {}, ValueError, "in degrees, in [0, 180], got 181.0 at update 16"),
        ([-1.0], SNAPSHOT, {}, ValueError, "in degrees, in [0, 180], got -1.0 at update 9"),
        ([math.nan], MEAN, {}, ValueError, "in degrees, in [0, 180], got nan at update 12"),
        ([1.0], MEAN, {"steps": [12, 16]}, ValueError, "as many as angles = 1, got 2"),
        ([1.0], MEAN, {"steps": [13]}, ValueError, FROM.format(12, "mean", 13)),
        ([1.0], MEAN, {"steps": [8]}, ValueError, FROM.format(12, "mean", 8)),
        ([1.0], SNAPSHOT, {"steps": [12]}, ValueError, FROM.format(9, "snapshot", 12)),
        ([1.0], SNAPSHOT, {"steps": [5]}, ValueError, FROM.format(9, "snapshot", 5)),
        ([1.0] * 2, MEAN, {"steps": [16, 16]}, ValueError, FROM.format(12, "mean", "16 after 16")),
        ([1.0] * 2, MEAN, {"steps": [16, 12]}, ValueError, FROM.format(12, "mean", "12 after 16")),
        ([1.0], MEAN, {"learning_rate": 0.0}, ValueError, "must be finite and > 0, got 0.0"),
        ([1.0], MEAN, {"learning_rate": math.inf}, ValueError, "must be finite and > 0, got inf"),
        ([1.0], MEAN, {"learning_rate": [0.1]}, TypeError, "must be a real number, finite and > 0"),
        (
            [],
            rules.uai2024(4, 0.5, (0.1, 0.2)),
            {},
            ValueError,
            "one floor per parameter group, got 2 floors for 1 groups",
        ),
    ],
)
def test_bad_input(angles, rule, options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        replay(angles, rule, **options)
