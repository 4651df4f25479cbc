"""Lag, saved states, restarts and lost windows of `AngularVelocity`, for each way to keep sums."""

import copy
import io
import math

import pytest
import torch

from autodrop import AngularVelocity
from tests.autodrop.reference import Float64Angles

FLOAT32, FLOAT64, BFLOAT16 = [torch.float32], [torch.float64], [torch.bfloat16]
# dtypes of the parameters, options of the tracker; windows are of 4 updates.
VARIANTS = {
    "plain": (FLOAT64, {}),
    "plain float32": (FLOAT32, {"accumulation": "plain"}),
    "half precision": (BFLOAT16, {}),
    "anchored": (FLOAT32, {}),
    "anchored, bfloat16 direction": (FLOAT32, {"direction": torch.bfloat16}),
    "mixed": (FLOAT32 + FLOAT64 + BFLOAT16, {}),
    "snapshots": (FLOAT64, {"observation": "snapshot"}),
    "snapshots, anchored": (FLOAT32, {"observation": "snapshot"}),
    "stride": (FLOAT64, {"stride": 2}),
    "stride, anchored": (FLOAT32, {"stride": 2}),
}
K = 4
LAGS = [0, 1, 3]
T = 6 * K
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_lag = pytest.mark.parametrize("lag", LAGS)


def path_of(variant, steps=T):
    """x_t for t = 0 … steps, each a list of tensors."""
    g = torch.Generator().manual_seed(1)
    dtypes, _ = VARIANTS[variant]
    path = [[torch.randn(9, generator=g).to(dtype) for dtype in dtypes]]
    for _ in range(steps):
        path.append([p + torch.randn(9, generator=g).to(p.dtype) for p in path[-1]])
    return path


def tracker(params, variant, lag=0):
    return AngularVelocity(params, K, lag=lag, **VARIANTS[variant][1])


def assign(params, values):
    for p, value in zip(params, values, strict=True):
        p.copy_(value)


def copies(values):
    return [value.clone() for value in values]


def run(velocity, params, path, start=0):
    """The angles (radians, by update) from x_start on."""
    seen = {}
    for t in range(start + 1, len(path)):
        assign(params, path[t])
        angle = velocity.update()
        if angle is not None:
            seen[t] = angle
    return seen


def follow(variant, path, lag=0):
    params = copies(path[0])
    return run(tracker(params, variant, lag), params, path)


def exact_angles(variant, path):
    """Degrees, by update, in float64."""
    options = VARIANTS[variant][1]
    params = copies(path[0])
    exact = Float64Angles(
        params, K, options.get("observation", "mean"), stride=options.get("stride", 1)
    )
    seen = {}
    for t, values in enumerate(path[1:], start=1):
        assign(params, values)
        angle = exact.update()
        if angle is not None:
            seen[t] = angle
    return seen


# A bfloat16 direction: 2⁻⁹ of its length in the worst case, across the plane of the angle or in it.
DEGREES = math.degrees(2**-9)


@every_variant
def test_every_variant_has_the_angles_of_float64(variant):
    path = path_of(variant)
    exact = exact_angles(variant, path)
    angles = follow(variant, path)
    assert len(exact) >= 4
    assert list(angles) == list(exact)
    for t, angle in angles.items():
        assert math.degrees(angle) == pytest.approx(exact[t], abs=DEGREES)


@every_variant
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_a_lag_delays_the_same_angles(variant, lag):
    path = path_of(variant)
    at_once = follow(variant, path)
    assert follow(variant, path, lag) == {
        t + lag: angle for t, angle in at_once.items() if t + lag <= T
    }


@every_variant
@every_lag
def test_resuming_anywhere_changes_nothing(variant, lag):
    path = path_of(variant)
    whole = follow(variant, path, lag)
    pending = 0
    for cut in range(T):
        params = copies(path[0])
        first = tracker(params, variant, lag)
        run(first, params, path[: cut + 1])
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        pending += bool(state["pending"])
        second = tracker(params, variant, lag)
        assign(params, path[0])
        second.update()  # what it has seen must not matter
        assign(params, path[cut])
        second.load_state_dict(state)
        assert second.angle == first.angle
        assert run(second, params, path, cut) == {t: a for t, a in whole.items() if t > cut}
    assert (pending > 0) == (lag > 0)


@every_variant
def test_a_state_is_a_copy_both_when_saved_and_when_loaded(variant):
    path = path_of(variant)
    params = copies(path[0])
    velocity = tracker(params, variant)
    run(velocity, params, path[: 2 * K + 2])
    state = velocity.state_dict()
    before = copy.deepcopy(state)
    run(velocity, params, path, 2 * K + 1)
    other = tracker(params, variant)
    other.load_state_dict(state)
    run(other, params, path, 2 * K + 1)
    assert state.keys() == before.keys()
    for name, tensors in before["copies"].items():
        assert state["copies"][name].keys() == tensors.keys()
        assert all(torch.equal(state["copies"][name][key], then) for key, then in tensors.items())
    moved = velocity.state_dict()["copies"]
    assert all(
        not torch.equal(moved[name][key], then)
        for name, tensors in before["copies"].items()
        if "residual" not in name  # snapshots are exact: theirs stays 0
        and not (name.endswith("sum") and "snap" in variant)  # 0 after each
        for key, then in tensors.items()
    )


def test_a_state_shares_no_storage():
    """torch.save would write the whole storage of a view."""
    p = torch.ones(6)
    velocity = AngularVelocity([p], 2)
    live = {
        tensor.untyped_storage().data_ptr()
        for sums in velocity._sums
        for name in sums.copies
        for tensor in getattr(sums, name)
    }
    copies = velocity.state_dict()["copies"]
    saved = [t for tensors in copies.values() for t in tensors.values()]
    assert not live & {t.untyped_storage().data_ptr() for t in saved}
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in saved)


@every_variant
@every_lag
def test_restart_forgets_a_pending_angle_and_takes_only_whole_windows(variant, lag):
    path = path_of(variant, 8 * K)
    exact = exact_angles(variant, path)
    params = copies(path[0])
    velocity = tracker(params, variant, lag)
    cut = 3 * K + 1  # with a lag the angle of t = 3k, or with snapshots 3k + 1, is pending
    run(velocity, params, path[: cut + 1])
    velocity.restart()
    seen = run(velocity, params, path, cut)
    # Means: window 3 is broken, 4, 5, 6 end at 7k. Snapshots: 4, 5, 6 are at 4k + 1 … 6k + 1.
    first = 6 * K + 1 if "snapshots" in variant else 7 * K
    assert list(seen) == [t + lag for t in exact if t >= first and t + lag <= 8 * K]
    for t, angle in seen.items():
        assert math.degrees(angle) == pytest.approx(exact[t - lag], abs=DEGREES)


def test_restart_follows_other_parameters():
    path = path_of("anchored")
    params, others = copies(path[0]), copies(path[0])
    velocity = AngularVelocity(params, K)
    velocity.restart([*params, *others])
    assert velocity.params == (*params, *others)


@every_variant
@every_lag
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_angles_are_right_again_with_the_third_clean_window(variant, lag, value, everywhere):
    path = path_of(variant, 9 * K)
    lost = 4 * K + 1  # in window 4; for snapshots it is the snapshot
    for p in path[lost]:
        p[... if everywhere else slice(2, 3)] = value
    exact = exact_angles(variant, path)
    params = copies(path[0])
    velocity = tracker(params, variant, lag)
    seen = {}
    closed = lost if "snapshots" in variant else 5 * K
    strided_over = VARIANTS[variant][1].get("stride", 1) > 1
    for t in range(1, len(path)):
        assign(params, path[t])
        if t == closed + lag and not strided_over:
            with pytest.warns(RuntimeWarning, match="are not finite"):
                assert velocity.update() is None
            continue
        angle = velocity.update()
        if angle is not None:
            seen[t] = angle
    assert list(seen) == [t + lag for t in exact if t + lag <= 9 * K]
    if not strided_over:
        assert closed not in exact
        assert closed + 2 * K not in exact
        assert closed + 3 * K in exact
    for t, angle in seen.items():
        assert math.degrees(angle) == pytest.approx(exact[t - lag], abs=DEGREES)


def test_plain_and_anchored_sums_weigh_the_same():
    """Two tensors, one of each kind, that step alike: the angle of either one alone."""
    path = path_of("plain")
    single = [[x[0].float().double()] for x in path]
    both = [[x[0].float(), x[0].clone()] for x in single]
    assert list(follow("mixed", both).values()) == pytest.approx(
        list(follow("plain", single).values()), abs=1e-6
    )
    # Steps in one tensor only: 0 in the other. A right angle between equal steps in each.
    wide, narrow = torch.zeros(1, dtype=torch.float64), torch.zeros(1)
    velocity = AngularVelocity([wide, narrow], K)
    for t in range(1, 3 * K + 1):
        (wide if t <= 2 * K - 1 else narrow).fill_(1.0 if t >= K else 0.0)
        velocity.update()
    # Means (0, 0), (1, 0), (1, 1).
    assert math.degrees(velocity.angle) == pytest.approx(90.0, abs=1e-6)


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "every other column": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
}


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("after", LAYOUTS)
def test_a_state_goes_into_any_memory_layout(before, after):
    """The tensors of a state have the parameter's shape: elements stay with their indices."""
    g = torch.Generator().manual_seed(0)
    path = [torch.randn(3, 4, 2, 2, generator=g) for _ in range(10)]

    def follow(p, velocity, values):
        angles = []
        for value in values:
            p.copy_(value)
            angles.append(velocity.update())
        return angles

    p = LAYOUTS[before](path[0])
    first = AngularVelocity([p], 2)
    whole = follow(p, first, path[1:6])
    state = first.state_dict()
    assert [t.shape for t in state["copies"]["AnchoredSums.sum"].values()] == [p.shape]
    whole += follow(p, first, path[6:])
    q = LAYOUTS[after](path[5])
    second = AngularVelocity([q], 2)
    second.load_state_dict(state)
    # Products are summed in the order of the storage.
    assert follow(q, second, path[6:]) == [
        None if angle is None else pytest.approx(angle, abs=1e-12) for angle in whole[5:]
    ]
    assert sum(angle is not None for angle in whole[5:]) == 2


def test_a_state_without_tensors_restarts_with_the_next_whole_window():
    path = path_of("anchored", 8 * K)
    params = copies(path[0])
    velocity = tracker(params, "anchored")
    cut = 3 * K + 1
    run(velocity, params, path[: cut + 1])
    state = velocity.state_dict(light=True)
    assert "copies" not in state
    other = tracker(copies(path[cut]), "anchored")
    other.load_state_dict(state)
    assert other.updates == cut
    seen = run(other, list(other.params), path, cut)
    exact = exact_angles("anchored", path)
    assert list(seen) == [7 * K, 8 * K]  # windows 4, 5, 6 and 5, 6, 7
    for t, angle in seen.items():
        assert math.degrees(angle) == pytest.approx(exact[t], abs=DEGREES)


def test_a_memory_layout_that_changes_is_an_error():
    p = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    velocity = AngularVelocity([p], 1)
    velocity.update()
    p.data = p.data.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="memory layout of parameter '0' has changed"):
        velocity.update()
