"""Each detector against the literal rule, on arbitrary sequences of angles."""

import math
import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autodrop.detectors import GaussianSaturation, MovingAverageSaturation, ThresholdSaturation
from tests.autodrop import reference

# Angles on a grid and thresholds between its points: the changes that are compared with the
# threshold are then never equal to it in exact arithmetic, where rounding would decide.
GRID = 64


def sequences(max_size=80):
    """Angles in degrees: anything on the grid, or small moves about a level."""
    anywhere = st.integers(0, 180 * GRID)
    level = st.integers(10 * GRID, 170 * GRID)
    wiggle = level.flatmap(lambda a: st.integers(a - 20, a + 20))
    near = level.flatmap(
        lambda a: st.lists(st.integers(a - 20, a + 20), min_size=20, max_size=max_size)
    )
    lists = st.lists(anywhere | wiggle, max_size=max_size) | near
    return lists.map(lambda units: [unit / GRID for unit in units])


def thresholds(divisor=1, least=0):
    return st.integers(least, 60).map(lambda j: (2 * j + 1) / (2 * GRID * divisor))


def saturations(detector, degrees):
    state, found = detector.init(), []
    for i, angle in enumerate(degrees):
        state, saturated = detector.update(state, math.radians(angle))
        if saturated:
            found.append(i)
            if not isinstance(detector, ThresholdSaturation):
                assert state == detector.init()
    return found


smoothings = st.sampled_from(["time", "value"])
tests = st.sampled_from(["signed", "absolute"])


@given(sequences(), thresholds(), st.integers(2, 12), smoothings, tests)
@example([90.0] * 30, 0.1, 10, "time", "signed")
@example([90.0] * 30, 0.1, 10, "value", "absolute")
def test_gaussian_saturation_is_algorithm_1(degrees, threshold, m, smoothing, test):
    detector = GaussianSaturation(threshold, m, smoothing, test)
    expected = reference.uai_drops(degrees, threshold, m, smoothing, test)
    assert saturations(detector, degrees) == expected


@given(st.lists(st.floats(0.0, 180.0), min_size=2, max_size=12), smoothings)
def test_smoothed_angle_is_the_reference_s(degrees, smoothing):
    m = len(degrees)
    # m angles make one C, which stays in the state.
    detector = GaussianSaturation(0.1, m, smoothing)
    state = detector.init()
    for angle in degrees:
        state, _ = detector.update(state, math.radians(angle))
    expected = reference.smoothed(degrees, m, smoothing)
    # An angle is rounded by 180·eps. A weight w(z) multiplies a difference of about zσ and moves
    # by z²·(180·eps/σ)·w, so that each of m terms moves by z³·w(z)·180·eps, z³·w(z) < 2; below
    # 1e-12 the reference takes σ for 0.
    tolerance = 64 * m * 180 * sys.float_info.epsilon + 1e-11
    assert math.degrees(state.smoothed) == pytest.approx(expected, abs=tolerance)


def test_smoothing_by_hand():
    """B = 90, 91 at m = 2: std = ½, so σ = ½; weights e^{-2} and 1 for both readings."""
    w = math.exp(-2.0)
    expected = (90.0 * w + 91.0) / (1.0 + w)
    for smoothing in ("time", "value"):
        got = GaussianSaturation(0.1, 2, smoothing).smooth((math.radians(90.0), math.radians(91.0)))
        # The identity would give 91, the printed sign of the exponent 90.12.
        assert math.degrees(got) == pytest.approx(expected, abs=1e-12)


def test_the_width_is_at_most_half_the_buffer():
    """B = 0, 180 at m = 2: std = 90, so σ = m/2 = 1: over time the weights are e^{-1/2} and 1."""
    w = math.exp(-0.5)
    got = GaussianSaturation(0.1, 2, "time").smooth((0.0, math.pi))
    assert got == pytest.approx(math.pi / (1.0 + w), abs=1e-15)


@pytest.mark.parametrize("smoothing", ["time", "value"])
@pytest.mark.parametrize("angle", [0.0, 1e-300, 0.1, math.pi])
def test_equal_angles_smooth_to_themselves(smoothing, angle):
    assert GaussianSaturation(smoothing=smoothing).smooth((angle,) * 10) == angle


def test_algorithm_1_needs_eleven_angles_each_time():
    assert saturations(GaussianSaturation(), [90.0] * 40) == [10, 21, 32]


def test_the_signed_test_fires_on_a_fall_and_the_absolute_one_does_not():
    falling = [150.0 - i for i in range(11)]
    assert saturations(GaussianSaturation(test="signed"), falling) == [10]
    assert saturations(GaussianSaturation(test="absolute"), falling) == []


@given(sequences(), thresholds())
def test_threshold_saturation_is_the_arxiv_test(degrees, threshold):
    # Without waiting or growth each armed epoch is a drop.
    expected = reference.arxiv_drops(degrees, threshold, max_threshold=threshold, wait=1)
    assert saturations(ThresholdSaturation(threshold), degrees) == expected


@given(sequences(), st.integers(1, 22), st.data(), tests)
def test_moving_average_is_section_3_s_rule(degrees, length, data, test):
    threshold = data.draw(thresholds(length), label="threshold")
    detector = MovingAverageSaturation(threshold, length, test)
    expected = reference.nqm_drops(degrees, threshold, length, test)
    assert saturations(detector, degrees) == expected


def test_moving_average_needs_twenty_one_angles():
    assert saturations(MovingAverageSaturation(), [90.0] * 63) == [20, 41, 62]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianSaturation(threshold=0.0), "threshold must be finite and > 0 .* got 0.0"),
        (lambda: GaussianSaturation(threshold=math.nan), "threshold .* got nan"),
        (lambda: GaussianSaturation(buffer=1), "buffer must be an integer >= 2, got 1"),
        (lambda: GaussianSaturation(buffer=2.5), "buffer must be an integer >= 2, got 2.5"),
        (lambda: GaussianSaturation(smoothing="both"), "smoothing .* got 'both'"),
        (lambda: GaussianSaturation(test="two"), "test must be .* got 'two'"),
        (lambda: ThresholdSaturation(-1.0), "threshold .* got -1.0"),
        (lambda: MovingAverageSaturation(math.inf), "threshold .* got inf"),
        (lambda: MovingAverageSaturation(length=0), "length must be an integer >= 1, got 0"),
        (lambda: MovingAverageSaturation(length=True), "length must be .* got True"),
        (lambda: MovingAverageSaturation(test=""), "test must be .* got ''"),
    ],
)
def test_bad_parameters(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "detector", [GaussianSaturation, ThresholdSaturation, MovingAverageSaturation]
)
@pytest.mark.parametrize("threshold", ["a", None, True, 1j])
def test_a_threshold_that_is_no_number(detector, threshold):
    words = rf"threshold must be a real number, finite and > 0 degrees, got {threshold!r}"
    with pytest.raises(TypeError, match=re.escape(words)):
        detector(threshold=threshold)


def test_numpy_s_numbers_are_numbers():
    assert ThresholdSaturation(np.float32(0.5)) == ThresholdSaturation(0.5)


@pytest.mark.parametrize(
    "detector", [GaussianSaturation(), ThresholdSaturation(), MovingAverageSaturation()]
)
@pytest.mark.parametrize("angle", [math.nan, -0.1, 90.0, math.inf])
def test_angles_that_are_none(detector, angle):
    """90 above all: degrees where radians are meant."""
    with pytest.raises(ValueError, match=r"angle must be in radians, in \[0, π\], got"):
        detector.update(detector.init(), angle)
