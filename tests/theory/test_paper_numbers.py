"""The paper's noisy quadratic: exact values, their independence of v, and the error of eq. (5)."""

import math

import numpy as np
import pytest
import torch

from tests.theory.chance import critical_z, detectable, z_scores
from theory import NoisyQuadratic, saturation

RATES = (0.06, 0.03, 0.01, 0.001)
COSINES = (-0.470073, -0.228209, -0.075097, -0.007474)
RATIOS = (-0.47298, -0.22970, -0.07559, -0.00752)
DEGREES = (118.161, 103.25, 94.33, 90.43)


@pytest.fixture(scope="module", params=[0.02, 7.5], ids=lambda v: f"v={v}")
def problem(request):
    """Two constant noise variances: the angle knows neither."""
    return NoisyQuadratic.paper(request.param)


def test_the_instance(problem):
    assert problem.dimension == 200
    assert problem.curvature[[0, 99, 199]].tolist() == [0.1, 10.0, 20.0]
    assert (problem.start == 2).all()


@pytest.mark.parametrize(("rate", "value"), list(zip(RATES, COSINES, strict=True)))
def test_expected_cosine(problem, rate, value):
    assert saturation.expected_cosine(problem, rate) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("rate", "value"), list(zip(RATES, RATIOS, strict=True)))
def test_ratio(problem, rate, value):
    assert saturation.cosine_ratio(problem, rate) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("rate", "value"), list(zip(RATES, DEGREES, strict=True)))
def test_expected_angle(problem, rate, value):
    angle = saturation.expected_angle(problem, rate, tolerance=1e-6)
    assert math.degrees(angle) == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize(
    ("rate", "value"),
    [(0.06, 119.30), (0.03, 118.55), (0.01, 116.10), (1e-3, 95.66), (1e-4, 78.56)],
)
def test_ratio_angles_of_window_64(problem, rate, value):
    ratio = saturation.cosine_ratio(problem, rate, window=64)
    assert math.degrees(math.acos(ratio)) == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize("step", [1e-3, 0.3, 1.0, 1.2, 1.99])
def test_one_mode(step):
    """n = 1: E cos = (2/π) arcsin(−αa/2), E∠ = arccos(−αa/2); αa = 1 gives −1/3, not −1/2."""
    one = NoisyQuadratic([step], 3.0)
    cosine = saturation.expected_cosine(one, 1.0, tolerance=1e-11)
    assert cosine == pytest.approx(2 / math.pi * math.asin(-step / 2), abs=1e-10)
    assert saturation.expected_angle(one, 1.0) == pytest.approx(math.acos(-step / 2), abs=1e-10)


def test_equal_curvatures_pass_120_degrees():
    """Stable but αa = 1.2 > 1: all a = 20 at α = 0.06 gives 126.87°."""
    equal = NoisyQuadratic(np.full(200, 20.0), 0.02)
    assert math.degrees(saturation.expected_angle(equal, 0.06)) == pytest.approx(126.87, abs=5e-3)


def stationary_pairs(problem, rate, pairs, seed):
    """cos∠(s_0, s_1) of independent stationary starts: two literal steps of SGD."""
    a, v = (
        torch.tensor(part, dtype=torch.float32)
        for part in (problem.curvature, problem.noise_variance)
    )
    generator = torch.Generator().manual_seed(seed)
    deviation, spread = v.sqrt(), (rate * a * v / (2 - rate * a)).sqrt()
    cosines = []
    for _ in range(pairs // 5_000):
        x, c0, c1 = (torch.randn((5_000, len(a)), generator=generator) for _ in range(3))
        x *= spread
        s0 = -rate * a * (x - deviation * c0)
        s1 = -rate * a * (x + s0 - deviation * c1)
        products = [torch.linalg.vecdot(p, q).double() for p, q in ((s0, s1), (s0, s0), (s1, s1))]
        cosines.append(products[0] / (products[1] * products[2]).sqrt())
    return torch.cat(cosines).numpy()


def test_a_million_pairs_tell_the_cosine_from_the_ratio():
    """E cos = −0.470073 passes, the ratio −0.47298 that eq. (5) puts for it must be rejected.

    float32 changes a cosine by some 1e-7, far below what 10⁶ pairs can see.
    """
    paper = NoisyQuadratic.paper()
    cosine = stationary_pairs(paper, 0.06, 1_000_000, seed=20240)
    exact, ratio = saturation.expected_cosine(paper, 0.06), saturation.cosine_ratio(paper, 0.06)
    assert abs(z_scores(cosine, exact)) <= critical_z(1)
    assert abs(z_scores(cosine, ratio)) > critical_z(1)
    assert detectable(cosine, 1) < abs(exact - ratio) / 3
    # The angle, and that paths leave the range that its expectation keeps.
    degrees = np.degrees(np.arccos(cosine))
    expected = math.degrees(saturation.expected_angle(paper, 0.06, tolerance=1e-6))
    assert abs(z_scores(degrees, expected)) <= critical_z(1)
    assert (degrees > 120).mean() == pytest.approx(0.37, abs=0.01)
