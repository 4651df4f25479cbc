import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autodrop import angle_between, angle_from_products
from tests.autodrop import reference

EPS = np.finfo(np.float64).eps

entries = st.floats(-1e3, 1e3, allow_subnormal=False, width=32)


@st.composite
def pairs(draw):
    """Two non-zero vectors of one length."""
    n = draw(st.integers(1, 8), label="n")
    vector = st.lists(entries, min_size=n, max_size=n).filter(any)
    return np.array(draw(vector, label="u")), np.array(draw(vector, label="v"))


def rounding(n):
    """The error of an angle: entries of û and v̂ off by a few eps, sums over n terms."""
    return 16 * (n + 2) * EPS


@given(pairs())
def test_angle_is_the_exact_angle(pair):
    u, v = pair
    expected = math.radians(reference.angle(u.tolist(), v.tolist()))
    assert float(angle_between(u, v)) == pytest.approx(expected, abs=rounding(len(u)))


@given(pairs(), st.floats(1e-150, 1e150), st.floats(1e-150, 1e150))
def test_scale_and_order_of_arguments_do_not_matter(pair, a, b):
    u, v = pair
    ω = angle_between(u, v)
    assert angle_between(v, u) == ω
    assert angle_between(a * u, b * v) == pytest.approx(ω, abs=rounding(len(u)))
    assert angle_between(-u, v) == pytest.approx(math.pi - ω, abs=rounding(len(u)))


@given(pairs(), st.integers(0, 2**32 - 1))
def test_rotations_and_permutations_do_not_matter(pair, seed):
    u, v = pair
    n = len(u)
    g = np.random.default_rng(seed)
    Q = np.linalg.qr(g.standard_normal((n, n)))[0]
    order = g.permutation(n)
    ω = angle_between(u, v)
    # Q is orthogonal, and Qu right, to about n·eps each.
    assert angle_between(Q @ u, Q @ v) == pytest.approx(ω, abs=8 * n * rounding(n))
    assert angle_between(u[order], v[order]) == pytest.approx(ω, abs=rounding(n))


@given(pairs())
def test_torch_equals_numpy(pair):
    u, v = pair
    expected = angle_between(u, v)
    got = angle_between(torch.from_numpy(u), torch.from_numpy(v).requires_grad_())
    assert got.dtype == torch.float64
    assert not got.requires_grad
    assert float(got) == pytest.approx(float(expected), abs=rounding(len(u)))


def test_leading_axes_are_a_broadcast_batch():
    g = np.random.default_rng(1)
    u, v = g.standard_normal((4, 1, 7)), g.standard_normal((3, 7))
    ω = angle_between(u, v)
    assert ω.shape == (4, 3)
    assert angle_between(torch.from_numpy(u), torch.from_numpy(v)).shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert ω[i, j] == pytest.approx(angle_between(u[i, 0], v[j]), abs=rounding(7))


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e200, 1e308])
def test_extreme_entries(scale):
    u, v = scale * np.array([1.0, 0.0]), scale * np.array([1.0, 1.0])
    assert angle_between(u, v) == pytest.approx(math.pi / 4, abs=rounding(2))
    assert angle_between(u, -u) == math.pi
    assert angle_between(u, u) == 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8, np.int64])
def test_numpy_dtypes_are_computed_in_float64(dtype):
    # 100² + 100² overflows int8 and uint8, and float16 with the third entry.
    u, v = np.array([100, 100, 0], dtype=dtype), np.array([100, 100, 100], dtype=dtype)
    expected = math.acos(math.sqrt(2 / 3))
    assert angle_between(u, v) == pytest.approx(expected, abs=rounding(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int8])
def test_torch_dtypes_are_computed_in_float64(dtype):
    u, v = torch.tensor([100, 100, 0], dtype=dtype), torch.tensor([100, 100, 100], dtype=dtype)
    assert float(angle_between(u, v)) == pytest.approx(math.acos(math.sqrt(2 / 3)), abs=rounding(3))


def tilted(degrees, n=1_000_000, seed=2):
    """float32 vectors at about that angle, and their exact one in degrees.

    Products of float32 numbers are exact in float64 and fsum rounds once, so that tan² of the angle
    is off by a few eps/θ².
    """
    g = np.random.default_rng(seed)
    a, b = g.standard_normal(n), g.standard_normal(n)
    b -= a * (a @ b) / (a @ a)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    θ = math.radians(degrees)
    u, v = a.astype(np.float32), (math.cos(θ) * a + math.sin(θ) * b).astype(np.float32)
    uu, vv, uv = (
        math.fsum((x.astype(np.float64) * y).tolist()) for x, y in ((u, u), (v, v), (u, v))
    )
    c = uv / math.sqrt(uu * vv)
    return u, v, math.degrees(math.atan2(math.sqrt((1 - c) * (1 + c)), c))


def float32_acos(u, v):
    """What a float32 implementation reads, in degrees: plain sums, then acos."""
    uu, vv, uv = (np.cumsum(x * y, dtype=np.float32)[-1] for x, y in ((u, u), (v, v), (u, v)))
    c = np.float32(uv / (np.sqrt(uu) * np.sqrt(vv)))
    return math.degrees(np.arccos(np.clip(c, np.float32(-1), np.float32(1))))


@pytest.mark.parametrize("degrees", [0.01, 1.0, 60.0, 90.0, 179.99])
def test_a_million_float32_entries_are_right_to_a_hundredth_of_a_degree(degrees):
    u, v, exact = tilted(degrees)
    assert exact == pytest.approx(degrees, abs=1e-3)
    for got in (
        angle_between(u, v),
        angle_between(torch.from_numpy(u), torch.from_numpy(v)),
    ):
        # Far below the 0.01° asked for: c is known to 2⁻⁵⁰, so θ to 2⁻⁵⁰/sin θ radians.
        tolerance = math.degrees(2**-50 / math.sin(math.radians(exact)))
        assert math.degrees(float(got)) == pytest.approx(exact, abs=tolerance + 1e-12)


def test_control_float32_sums_and_acos_are_not():
    for degrees in (0.01, 1.0):
        u, v, exact = tilted(degrees)
        assert abs(float32_acos(u, v) - exact) > 0.009
    assert np.arccos(np.float32(math.cos(math.radians(0.01)))) == 0.0


@given(pairs())
def test_products_give_the_same_angle(pair):
    u, v = pair
    ω = float(angle_between(u, v))
    got = angle_from_products(float(u @ u), float(v @ v), float(u @ v))
    # c is off by about (n+2)·eps =: δ, hence θ by min(δ/sin θ, √(2δ)), and √(2δ) bounds both.
    assert got == pytest.approx(ω, abs=math.sqrt(2 * (len(u) + 4) * EPS))


def test_products_clamp_rounding_only():
    assert angle_from_products(1.0, 1.0, 1.0 + 4 * EPS) == 0.0
    assert angle_from_products(1.0, 1.0, -1.0 - 4 * EPS) == math.pi
    with pytest.raises(ValueError, match=r"\|uv\| <= sqrt\(uu \* vv\), got uu = 1.0"):
        angle_from_products(1.0, 1.0, 1.001)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="uu must be finite and > 0"):
            angle_from_products(bad, 1.0, 0.0)
    with pytest.raises(ValueError, match="uv must satisfy"):
        angle_from_products(1.0, 1.0, math.nan)


@pytest.mark.parametrize("library", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("u", "v", "error", "words"),
    [
        ([0.0, 0.0], [1.0, 0.0], ValueError, "u must not be zero"),
        ([[1.0, 0.0], [0.0, 0.0]], [1.0, 0.0], ValueError, "u must not be zero"),
        ([1.0, 0.0], [math.nan, 0.0], ValueError, "v must be finite"),
        ([1.0, math.inf], [1.0, 0.0], ValueError, "u must be finite"),
        ([1.0, 0.0], [1.0, 0.0, 0.0], ValueError, r"last axes of one length.*\(2,\) and \(3,\)"),
        ([[1.0], [2.0]], [[1.0], [2.0], [3.0]], ValueError, "must broadcast"),
        ([], [], ValueError, "length > 0"),
        (1.0, 2.0, ValueError, "last axes"),
        ([1j], [1.0], TypeError, "u must be real and numeric, got dtype"),
        ([1.0], [True], TypeError, "v must be real and numeric, got dtype"),
    ],
)
def test_bad_input(library, u, v, error, words):
    with pytest.raises(error, match=words):
        angle_between(library(u), library(v))


def test_libraries_do_not_mix():
    with pytest.raises(TypeError, match="both be torch tensors or both be arrays"):
        angle_between(np.ones(2), torch.ones(2))
    with pytest.raises(TypeError, match="real and numeric"):
        angle_between(["a"], ["b"])
