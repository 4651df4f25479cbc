"""Angles of stored iterates of any precision, against float64 arithmetic on the same iterates."""

import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autodrop import AngularVelocity, accumulation
from tests.autodrop.reference import Float64Angles

# What the package promises for any model: a hundredth of a degree.
PROMISED = 0.01


def turning(params, step, degrees, window, windows, jitter=0.02, seed=0, **options):
    """(angle, exact) in degrees for windows whose means step by step·‖x‖ and turn by `degrees`.

    x_t = c_i + noise in window i; c_i lies on a polygon in a random plane. What the parameters'
    own rounding makes of it is what both sides see.
    """
    g = torch.Generator().manual_seed(seed)
    sizes = [p.numel() for p in params]
    start = torch.cat([p.detach().double().reshape(-1) for p in params])
    plane = torch.linalg.qr(torch.randn(len(start), 2, generator=g, dtype=torch.float64))[0]
    scale = step * float(start.norm())
    spread = jitter * scale / math.sqrt(len(start))
    velocity = AngularVelocity(params, window, **options)
    exact = Float64Angles(params, window, stride=options.get("stride", 1))
    center, pairs = start.clone(), []
    for t in range(1, window * windows + 1):
        if t % window == 0:
            turn = math.radians(degrees) * (t // window)
            center += scale * (plane @ torch.tensor([math.cos(turn), math.sin(turn)]).double())
        x = center + spread * torch.randn(len(start), generator=g, dtype=torch.float64)
        with torch.no_grad():
            for p, value in zip(params, x.split(sizes), strict=True):
                p.copy_(value.view(p.shape))
        angle, expected = velocity.update(), exact.update()
        assert (angle is None) == (expected is None)
        if angle is not None:
            pairs.append((math.degrees(angle), expected))
    assert len(pairs) == windows - 2
    return pairs


def model(dtype=torch.float32, n=4096, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n // 2, 2, generator=g).to(dtype)]


def worst(pairs):
    return max(abs(angle - exact) for angle, exact in pairs)


@pytest.mark.parametrize("step", [1e-2, 1e-7])
def test_in_batches_as_on_a_gpu(step, monkeypatch):
    monkeypatch.setattr(accumulation, "_ONE_BY_ONE", ())
    monkeypatch.setattr(accumulation, "_CHUNK", 1000)
    monkeypatch.setattr(accumulation, "_BATCH", 1500)
    assert worst(turning(model(), step, 90.0, 64, 5)) <= PROMISED


STEPS = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7]


@pytest.mark.parametrize("degrees", [5.0, 90.0, 175.0])
@pytest.mark.parametrize("step", STEPS)
def test_float32_parameters_that_fluctuate(step, degrees):
    assert worst(turning(model(), step, degrees, 64, 5, jitter=1.0)) <= PROMISED


@pytest.mark.parametrize("degrees", [5.0, 90.0, 175.0])
@pytest.mark.parametrize("step", STEPS)
def test_float32_parameters(step, degrees):
    pairs = turning(model(), step, degrees, 64, 5)
    assert worst(pairs) <= PROMISED
    if step >= 1e-5:  # the noise turns the steps by less than 1°, and so does float32 from here on
        assert [exact for _, exact in pairs] == pytest.approx([degrees] * 3, abs=1.0)


def test_a_small_angle_between_large_steps():
    """1 − cos 0.01° = 1.5e-8 is below the 6e-8 of float32: products need float64."""
    assert worst(turning(model(), 1e-2, 0.01, 64, 5, jitter=0.0)) <= 0.1 * PROMISED


@pytest.mark.parametrize("degrees", [1.0, 5.0, 90.0, 175.0])
@pytest.mark.parametrize("step", STEPS)
def test_a_bfloat16_direction(step, degrees):
    """bfloat16 rounds the direction by η ≤ 2⁻⁹ of its length, across: √(θ² + η²) − θ ≤ 0.0063°
    for θ ≥ 1°."""
    pairs = turning(model(), step, degrees, 64, 5, direction=torch.bfloat16)
    assert worst(pairs) <= PROMISED


@pytest.mark.parametrize("degrees", [1.0, 90.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_bfloat16_direction_of_plain_sums(dtype, degrees):
    pairs = turning(model(dtype), 1e-2, degrees, 64, 5, direction=torch.bfloat16)
    assert worst(pairs) <= PROMISED


def test_control_a_bfloat16_direction_is_rounded():
    pairs = turning(model(), 1e-3, 1.0, 64, 5, direction=torch.bfloat16)
    assert worst(pairs) > 1e-4


@pytest.mark.parametrize("degrees", [5.0, 90.0])
def test_control_plain_float32_sums_are_not_enough(degrees):
    assert worst(turning(model(), 1e-5, degrees, 64, 5, accumulation="plain")) > PROMISED


def test_plain_float32_sums_do_for_large_steps():
    assert worst(turning(model(), 1e-2, 90.0, 64, 5, accumulation="plain")) <= PROMISED


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4])
def test_parameters_of_half_precision(step, dtype):
    """Their own rounding, by up to 2⁻⁹ of x, decides where they go; sums in float32 lose little."""
    pairs = turning(model(dtype), step, 90.0, 64, 5, jitter=1.0)
    assert worst(pairs) <= PROMISED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_partly_frozen_parameters(dtype):
    """A thousand times larger than what moves, and not counted at all."""
    frozen = (1000 * model(torch.float32, seed=2)[0]).to(dtype)
    (moving,) = model(dtype)

    def angles(params):
        moving.copy_(model(dtype)[0])
        velocity, exact = AngularVelocity(params, 16), Float64Angles(params, 16)
        g = torch.Generator().manual_seed(3)
        found = []
        for _ in range(80):
            moving.add_(0.01 * torch.randn(moving.shape, generator=g).to(dtype))
            found.append((velocity.update(), exact.update()))
        return [(math.degrees(a), e) for a, e in found if a is not None]

    with_frozen = angles([frozen, moving])
    assert len(with_frozen) == 3
    assert worst(with_frozen) <= PROMISED
    assert [a for a, _ in with_frozen] == [a for a, _ in angles([moving])]


def test_a_million_parameters():
    g = torch.Generator().manual_seed(5)
    params = [torch.randn(1000, 998, generator=g), torch.randn(2000, generator=g)]
    assert sum(p.numel() for p in params) == 10**6
    assert worst(turning(params, 1e-6, 30.0, 4, 4)) <= PROMISED


@pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="minutes: in the nightly profile"
)
@pytest.mark.parametrize(("direction", "degrees"), [(None, 30.0), (torch.bfloat16, 1.0)], ids=str)
@pytest.mark.parametrize("step", [1e-2, 1e-7])
def test_eleven_million_parameters(step, direction, degrees):
    """As many as ResNet-18 has."""
    g = torch.Generator().manual_seed(5)
    params = [torch.randn(512, 512, 3, 3, generator=g) for _ in range(4)]
    params += [torch.randn(1_734_000, generator=g)]
    assert sum(p.numel() for p in params) > 11 * 10**6
    assert worst(turning(params, step, degrees, 4, 4, direction=direction)) <= PROMISED


LAYOUTS = {
    "contiguous": lambda x: x.reshape(2, 3, 2, 2).clone(),
    "channels last": lambda x: x.reshape(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "transposed": lambda x: x.reshape(4, 6).t().clone(),
    "permuted": lambda x: x.reshape(2, 3, 4).permute(2, 0, 1),
    "every other column": lambda x: torch.stack([x, x], -1).reshape(12, 4)[:, ::2],
    "part of a buffer": lambda x: torch.cat([x, x])[7:31],
    "0-dimensional": lambda x: x[0].clone(),
    "empty": lambda x: x[:0].reshape(0, 3),
}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
tensors = st.tuples(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(DTYPES), st.booleans())


@given(
    parts=st.lists(tensors, max_size=5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
    window=st.sampled_from([1, 2, 3, 4, 6]),
    accumulation_=st.sampled_from(["auto", "plain", "anchored"]),
    observation=st.sampled_from(["mean", "snapshot"]),
    data=st.data(),
)
def test_any_model_and_any_option(parts, dtype, seed, window, accumulation_, observation, data):
    """Layouts, dtypes and frozen tensors mixed, in chunks of 7 elements.

    Steps are near 0.1·‖x‖ or above. Sums of k ≤ 6 float32 terms are off by k·2⁻²⁴·‖x‖ each, the
    step between two of them by 4e-6 of itself or 5e-4 degrees.
    """
    if observation == "snapshot":
        window = max(window, 2)
        stride = 1
    else:
        stride = data.draw(st.sampled_from([r for r in range(1, window + 1) if window % r == 0]))
    lag = data.draw(st.integers(0, window - 1))
    launches_cost = data.draw(st.booleans(), label="as where launches cost")
    direction = data.draw(st.sampled_from([None, torch.float32]), label="direction")
    g = torch.Generator().manual_seed(seed)

    def drawn(layout, dtype):
        return LAYOUTS[layout](torch.randn(24, generator=g).to(dtype))

    # At least one tensor of 24 elements moves.
    params = [drawn("contiguous", dtype)] + [drawn(layout, kind) for layout, kind, _ in parts]
    moves = [True] + [moving for _, _, moving in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulation, "_CHUNK", 7)
        patch.setattr(accumulation, "_BATCH", 11)
        patch.setattr(accumulation, "_ONE_BY_ONE", () if launches_cost else ("cpu",))
        velocity = AngularVelocity(
            params,
            window,
            observation,
            accumulation=accumulation_,
            lag=lag,
            stride=stride,
            direction=direction,
            offload=launches_cost,
        )
        exact = Float64Angles(params, window, observation, stride)
        due = {}
        for t in range(1, 5 * window + 1):
            for p, moving in zip(params, moves, strict=True):
                if moving:
                    p += torch.randn(p.shape, generator=g).to(p.dtype)
            angle, expected = velocity.update(), exact.update()
            if expected is not None:
                due[t + lag] = expected
            assert (angle is None) == (t not in due)
            if angle is not None:
                assert math.degrees(angle) == pytest.approx(due[t], abs=5e-4)
    assert velocity.angle is not None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [1, 3, 4, 64])
@pytest.mark.parametrize("direction", [None, torch.bfloat16], ids=str)
def test_parameters_at_rest_have_no_angle(window, dtype, direction):
    """After real movement: what rounding left in the sums is no step."""
    g = torch.Generator().manual_seed(6)
    p = torch.randn(500, generator=g).to(dtype)
    velocity = AngularVelocity([p], window, direction=direction)
    angles = []
    for t in range(1, 12 * window + 1):
        if t < 6 * window:
            p += 0.01 * torch.randn(500, generator=g).to(dtype)
        # The first window at rest is 6 (5 where k = 1, for x_5 is the last that moves), and the
        # next one has no step.
        if t == (8 * window if window > 1 else 7):
            with pytest.warns(RuntimeWarning, match="did not move"):
                angles.append(velocity.update())
        else:
            angles.append(velocity.update())
    seen = [t // window for t, angle in enumerate(angles, 1) if angle is not None]
    assert seen == ([3, 4, 5, 6, 7] if window > 1 else [3, 4, 5, 6])
