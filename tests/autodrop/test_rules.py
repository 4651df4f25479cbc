"""Waiting, growing thresholds, floors and the clock."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodrop import DropPolicy, Rule, rules
from autodrop.detectors import GaussianSaturation, ThresholdSaturation
from tests.autodrop import reference

GRID = 64  # angles on the grid, thresholds between its points: rounding decides nothing
angles = st.lists(
    st.none()
    | st.integers(0, 180 * GRID).map(lambda j: j / GRID)
    | st.integers(90 * GRID - 20, 90 * GRID + 20).map(lambda j: j / GRID),
    max_size=80,
)


def drops(rule, degrees):
    state, found = rule.init(), []
    for i, angle in enumerate(degrees):
        state, decision = rule.advance(state, None if angle is None else math.radians(angle))
        if decision.drop:
            found.append(i)
    return found


@given(angles, st.integers(0, 30), st.integers(1, 25), st.sampled_from([0.5, 0.25]))
def test_arxiv_rule_is_the_epoch_loop(degrees, j, wait, factor):
    # Dividing by ½ or ¼ would put an odd threshold on the grid: at 1/(2·GRID·3) units it stays off.
    threshold = (3 * j + 1) / (3 * GRID)
    top = threshold * 7.0
    rule = rules.arxiv2021(2, factor, threshold=threshold, max_threshold=top, wait=wait)
    assert drops(rule, degrees) == reference.arxiv_drops(degrees, threshold, top, factor, wait)


def test_waiting_counts_the_arming_window_as_the_first():
    rule = rules.arxiv2021(5)
    # Equal angles: armed by the second, index 1; the 20th waiting window is index 20. Index 21
    # arms anew: the memory of angles survives the drop.
    assert drops(rule, [90.0] * 45) == [20, 40]
    for wait in (0, 1):
        at_once = Rule(1, ThresholdSaturation(), DropPolicy(wait=wait))
        assert drops(at_once, [90.0] * 4) == [1, 2, 3]


def test_the_weight_is_the_place_in_the_wait():
    rule = rules.arxiv2021(5, wait=3)
    state, seen = rule.init(), []
    for _ in range(5):
        state, decision = rule.advance(state, 1.0)
        seen.append(tuple(decision))
    assert seen == [(False, 0), (False, 1), (False, 2), (True, 3), (False, 1)]


def test_the_threshold_grows_to_its_ceiling():
    rule = rules.arxiv2021(5, wait=1)
    state, seen = rule.init(), []
    for _ in range(6):
        state, _ = rule.advance(state, 1.0)
        seen.append(state.threshold)
    assert seen == pytest.approx([0.01, 0.05, 0.25, 1.0, 1.0, 1.0], rel=1e-15)
    assert rule.detector.threshold == 0.01
    assert rule.forget(state).threshold == 1.0
    assert rule.forget(state).memory == rule.detector.init()


@given(st.floats(0.0, 1.0), st.floats(1e-6, 2.0), st.floats(0.01, 0.99))
def test_rates_fall_to_the_floor_and_never_rise(floor, rate, factor):
    (new,) = DropPolicy(factor, floor).lowered([rate])
    assert new == (max(floor, factor * rate) if rate > floor else rate)
    assert new <= rate


def test_each_group_has_its_floor():
    policy = DropPolicy(0.5, [0.1, 0.3, 0.9])
    assert policy.lowered([1.0, 0.4, 0.4]) == (0.5, 0.3, 0.4)
    with pytest.raises(ValueError, match="3 floors for 2 groups"):
        policy.lowered([1.0, 1.0])


@pytest.mark.parametrize("k", [1, 2, 3, 64])
def test_clock_of_means(k):
    rule = Rule(k)
    assert [t for t in range(1, 3 * k + 1) if rule.observes(t)] == [k, 2 * k, 3 * k]
    assert [t for t in range(1, 3 * k + 1) if rule.acts(t)] == [k, 2 * k, 3 * k]
    assert [rule.windows(t) for t in (0, k - 1, k, 3 * k)] == [0, 0, 1, 3]


@pytest.mark.parametrize("k", [2, 3, 64])
def test_clock_of_snapshots(k):
    rule = rules.arxiv2021(k)
    assert [t for t in range(1, 2 * k + 3) if rule.observes(t)] == [1, k + 1, 2 * k + 1]
    assert [t for t in range(1, 2 * k + 3) if rule.acts(t)] == [2, k + 2, 2 * k + 2]
    assert [rule.windows(t) for t in (0, 1, k, k + 1, 2 * k + 2)] == [0, 1, 1, 2, 3]


def test_presets_are_the_published_ones():
    assert rules.uai2024() == Rule(
        64, GaussianSaturation(0.1, 10, "time", "signed"), DropPolicy(0.95, 0.0)
    )
    assert rules.arxiv2021(391) == Rule(
        391, ThresholdSaturation(0.01), DropPolicy(0.2, 1e-4, 20, 1.0), "snapshot"
    )
    assert rules.nqm2024().window == 1
    assert rules.nqm2024().policy == DropPolicy(0.5, 0.001)


class Plain:
    """A detector of a user's own, not a dataclass."""

    def init(self):
        return 0

    def update(self, state, angle):
        return state + 1, state % 2 == 1


def test_any_detector_will_do():
    assert drops(Rule(1, Plain()), [90.0] * 5) == [1, 3]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DropPolicy(factor=1.0), ValueError, r"factor must be in \(0, 1\), got 1.0"),
        (lambda: DropPolicy(factor=math.nan), ValueError, "factor .* got nan"),
        (lambda: DropPolicy(min_lr=-1.0), ValueError, "min_lr must be finite and >= 0, got -1.0"),
        (lambda: DropPolicy(min_lr=(0.1, math.inf)), ValueError, "min_lr must be finite"),
        (lambda: DropPolicy(wait=-1), ValueError, "wait must be an integer >= 0, got -1"),
        (lambda: DropPolicy(wait=1.5), ValueError, "wait must be an integer >= 0, got 1.5"),
        (lambda: DropPolicy(max_threshold=0.0), ValueError, "max_threshold must be finite and > 0"),
        (lambda: DropPolicy(average=True), ValueError, "average needs wait >= 2 .* wait = 0"),
        (lambda: Rule(0), ValueError, "window must be an integer >= 1 .* got 0"),
        (lambda: Rule(2.0), ValueError, "window must be an integer >= 1 .* got 2.0"),
        (lambda: rules.arxiv2021(1), ValueError, "window must be an integer >= 2 .* got 1"),
        (lambda: Rule(observation="median"), ValueError, "observation .* got 'median'"),
        (lambda: DropPolicy(factor="a"), TypeError, r"factor must be a .*in \(0, 1\), got 'a'"),
        (lambda: DropPolicy(factor=None), TypeError, "factor must be a real number.* got None"),
        (lambda: DropPolicy(min_lr="a"), TypeError, "min_lr must be a .* >= 0, got 'a'"),
        (lambda: DropPolicy(min_lr=None), TypeError, "min_lr must be a real number.* got None"),
        (lambda: DropPolicy(min_lr=False), TypeError, "min_lr must be a real number.* got False"),
        (lambda: DropPolicy(min_lr=[0.1, "b"]), TypeError, "min_lr must be .* got 'b'"),
        (lambda: DropPolicy(max_threshold="a"), TypeError, "max_threshold must be .* got 'a'"),
        (lambda: DropPolicy(wait=True), ValueError, "wait must be an integer >= 0, got True"),
        (lambda: Rule(detector="gauss"), TypeError, "detector must have init.* got 'gauss'"),
        (
            lambda: Rule(detector=GaussianSaturation),
            TypeError,
            r"must be an instance, such as GaussianSaturation\(\), got the class GaussianSat",
        ),
        (
            lambda: Rule(4, policy=DropPolicy(wait=2, average=True)),
            ValueError,
            "average needs observation = 'snapshot'",
        ),
        (
            lambda: Rule(4, Plain(), DropPolicy(max_threshold=1.0)),
            TypeError,
            "max_threshold needs a detector that is a dataclass",
        ),
        (
            lambda: rules.arxiv2021(4, threshold=2.0),
            ValueError,
            "threshold must be <= max_threshold, got 2.0 > 1.0",
        ),
    ],
)
def test_bad_parameters(make, error, words):
    with pytest.raises(error, match=words):
        make()
