import linecache
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autodrop import AngularVelocity
from tests.autodrop import reference


def follow(path, window=1, groups=None, **options):
    """The angles (degrees, by update) along a path of shape (T+1, n), split into tensors."""
    path = np.asarray(path)
    sizes = groups or [path.shape[1]]
    params = list(torch.from_numpy(path[0].copy()).split(sizes))
    velocity = AngularVelocity(params, window, **options)
    seen = {}
    for t, x in enumerate(path[1:], start=1):
        for p, value in zip(params, torch.from_numpy(x.copy()).split(sizes), strict=True):
            p.copy_(value)
        angle = velocity.update()
        assert angle is None or angle == velocity.angle
        if angle is not None:
            seen[t] = math.degrees(angle)
    return seen


def random_path(seed, T, n=5, dtype=np.float64):
    return np.cumsum(np.random.default_rng(seed).standard_normal((T + 1, n)), axis=0).astype(dtype)


# Angles here are between 1° and 179°, where products know the cosine to n·eps and the angle to
# n·eps/sin 1°; window sums add k·‖x‖·eps over the step. Together below 1e-9 degrees.
TOLERANCE = 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 30))
def test_angles_are_definition_3_3_s(seed, k, T):
    path = random_path(seed, T)
    seen = follow(path, k)
    assert list(seen) == list(range(3 * k, T + 1, k))
    for t, angle in seen.items():
        exact = reference.window_angle(path.tolist(), t // k - 1, k)
        assert angle == pytest.approx(exact, abs=TOLERANCE)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(0, 30))
def test_snapshots_are_the_first_iterates_of_epochs(seed, k, T):
    path = random_path(seed, T)
    seen = follow(path, k, observation="snapshot")
    assert list(seen) == list(range(2 * k + 1, T + 1, k))
    for t, angle in seen.items():
        exact = reference.velocity(path[t], path[t - k], path[t - 2 * k])
        assert angle == pytest.approx(exact, abs=TOLERANCE)


def test_windows_by_hand():
    """Means (1, 0), (4, 0), (4, 3): a right angle after update 6. Without x_0, or with windows
    moved by one, the means are others; between positions the angle is 36.9°."""
    path = [(0, -1), (2, 1), (3, -2), (5, 2), (2, 1), (6, 5), (100, -50), (7, 7)]
    assert follow(np.array(path, dtype=float), 2) == {6: 90.0}


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_origin_scale_and_rotation_do_not_matter(seed, k):
    path = random_path(seed, 6 * k)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))[0]
    expected = follow(path, k)
    for moved in (path + np.arange(5) * 100.0, 1e-3 * path, path @ Q):
        got = follow(moved, k)
        assert list(got) == list(expected)
        # Sums of k entries of 400 round by k·400·eps ≈ 4e-13, steps are of order 1.
        assert list(got.values()) == pytest.approx(list(expected.values()), abs=1e-8)


@given(st.permutations(range(6)), st.sampled_from([[6], [1, 5], [2, 0, 4], [1] * 6]))
def test_order_and_grouping_of_parameters_do_not_matter(order, sizes):
    path = random_path(3, 12, n=6)
    got = follow(path[:, order], 2, groups=sizes)
    assert list(got.values()) == pytest.approx(list(follow(path, 2).values()), abs=TOLERANCE)


def test_parameters_that_never_move_or_have_no_elements_count_for_nothing():
    path = torch.from_numpy(random_path(10, 12))
    p, frozen, empty = path[0].clone(), torch.full((3,), 1e3), torch.zeros(0)
    velocity = AngularVelocity([frozen, p, empty], 2)
    for x in path[1:]:
        p.copy_(x)
        velocity.update()
    assert math.degrees(velocity.angle) == pytest.approx(follow(path, 2)[12], abs=1e-8)


def still(path):
    path[8:12] = path[4:8]  # y_2 = y_1 for windows of 4


def nan(path):
    path[9, 2] = np.nan


def infinite(path):
    path[9, 2] = np.inf


def huge(path):
    path[8:12] *= 1e160  # the steps to and from here are finite, their squares are not


@pytest.mark.parametrize(
    ("spoil", "words", "first"),
    [
        (still, "did not move", 24),
        (nan, "are not finite", 24),
        (infinite, "are not finite", 24),
        (huge, "are not finite", 28),
    ],
)
def test_a_window_without_an_angle_warns_and_the_third_good_one_has_one(spoil, words, first):
    path = random_path(11, first + 2)
    spoil(path)
    words += ", or moved beyond the float64 range," if words.startswith("are") else ""
    words = f"parameters {words} in the window of 4 updates that ended with update 12"
    with pytest.warns(RuntimeWarning, match=words) as caught:
        seen = follow(path, 4)
    assert len(caught) == 1
    assert list(seen) == [first]
    exact = reference.window_angle(path.tolist(), first // 4 - 1, 4)
    assert seen[first] == pytest.approx(exact, abs=TOLERANCE)


def test_parameters_that_stay_lost_never_give_an_angle():
    path = random_path(12, 20)
    path[3:] = np.nan
    with pytest.warns(RuntimeWarning, match="ended with update 4;") as caught:
        assert follow(path, 2) == {}
    assert len(caught) == 1


def test_each_streak_of_lost_windows_is_warned_of_once():
    path = random_path(12, 20)
    path[2:5] = path[13:15] = np.nan
    with pytest.warns(RuntimeWarning) as caught:
        seen = follow(path, 1)
    # x_i is window i and ends with update i + 1; the third good one has the angle.
    assert list(seen) == [*range(8, 14), *range(18, 21)]
    words = [str(w.message) for w in caught]
    assert len(words) == 2
    assert "update 3;" in words[0]
    assert "update 14;" in words[1]


def test_a_loaded_state_and_a_restart_begin_another_streak():
    p = torch.zeros(2)
    velocity = AngularVelocity([p], 1)
    state = velocity.state_dict()
    p.fill_(math.nan)
    velocity.update()  # closes the window of x_0, which was finite
    with pytest.warns(RuntimeWarning, match="are not finite"):
        velocity.update()
    velocity.update()  # silent: warnings are errors in these tests
    for renew in (velocity.restart, lambda: velocity.load_state_dict(state)):
        renew()
        velocity.update()  # the window that `renew` leaves broken, or that was good when saved
        with pytest.warns(RuntimeWarning, match="are not finite"):
            velocity.update()
        velocity.update()


def test_a_warning_points_at_the_line_that_updates():
    velocity = AngularVelocity([torch.full((2,), math.nan)], 1)
    with pytest.warns(RuntimeWarning, match="are not finite") as caught:
        velocity.update()
    assert caught[0].filename == __file__
    assert "velocity.update()" in linecache.getline(__file__, caught[0].lineno)


def test_restart_takes_only_whole_windows():
    path = torch.from_numpy(random_path(13, 24))
    p = path[0].clone()
    velocity = AngularVelocity([p], 4)
    seen = {}
    for t, x in enumerate(path[1:], start=1):
        p.copy_(x)
        angle = velocity.update()
        if angle is not None:
            seen[t] = math.degrees(angle)
        if t == 6:
            velocity.restart()
    # Window 1, t = 4 … 7, is broken; 2, 3, 4 are whole.
    assert list(seen) == [20, 24]
    assert seen[20] == pytest.approx(reference.window_angle(path.tolist(), 4, 4), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda p: AngularVelocity([p], 3), r"window = 2 \(here 3\)$"),
        (
            lambda p: AngularVelocity([p], 2, accumulation="plain"),
            r"accumulation = 'auto' \(here 'plain'\)$",
        ),
        (
            lambda p: AngularVelocity([p], 2, direction=torch.bfloat16),
            r"direction = None \(here 'torch.bfloat16'\)$",
        ),
        (lambda p: AngularVelocity([p], 2, lag=1), r"lag = 0 \(here 1\)$"),
        (
            lambda p: AngularVelocity([p], 2, stride=2, lag=1),
            r"lag = 0 \(here 1\), stride = 1 \(here 2\)$",
        ),
        (
            lambda p: AngularVelocity([p.double()], 2),
            "PlainSums.sum of the saved state must be 1 tensors of the dtypes",
        ),
        (
            lambda p: AngularVelocity([p], 2, observation="snapshot"),
            r"observation = 'mean' \(here 'snapshot'\)$",
        ),
        (lambda p: AngularVelocity([p, p.clone()], 2), "must be of 2 parameter tensors, got 1"),
        (
            lambda p: AngularVelocity([torch.ones(4)], 2),
            r"parameter 0 of the saved state must have shape \[4\], got \[3\]",
        ),
    ],
)
def test_a_state_of_another_tracker_is_refused(other, words):
    p = torch.ones(3)
    state = AngularVelocity([p], 2).state_dict()
    with pytest.raises(ValueError, match=words):
        other(p).load_state_dict(state)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([], ValueError, "at least one element, got 0 tensors"),
        ([torch.zeros(0)], ValueError, "at least one element, got 1 tensors"),
        (torch.ones(2), TypeError, "iterable of tensors, got a single tensor"),
        ([np.ones(2)], TypeError, "must hold tensors, as model.parameters.. does, got ndarray"),
        (
            torch.nn.Linear(2, 1),
            TypeError,
            r"iterable of tensors, got the module Linear: pass its \.parameters\(\)",
        ),
        (
            torch.nn.Sequential(torch.nn.Linear(2, 1)),
            TypeError,
            r"got the module Sequential: pass its \.parameters\(\)",
        ),
        ({"params": [torch.ones(2)]}, TypeError, "iterable of tensors, got a single dict"),
        ([{"params": [torch.ones(2)]}, torch.ones(2)], TypeError, "all tensors or all dicts"),
        ([(1, torch.ones(2))], TypeError, r"as model\.parameters\(\) does, got tuple"),
        (
            [("w", torch.ones(2)), ("w", torch.zeros(2))],
            ValueError,
            "must have different names, got 'w' twice",
        ),
        (torch.nn.LazyLinear(1).parameters(), TypeError, "must be initialised"),
        ([torch.ones(2, dtype=torch.complex64)], TypeError, "got dtype torch.complex64"),
        ([torch.ones(2, dtype=torch.int64)], TypeError, "got dtype torch.int64"),
        ([torch.ones(2).to_sparse()], TypeError, "must be dense, got layout torch.sparse_coo"),
    ],
)
def test_bad_parameters(params, error, words):
    with pytest.raises(error, match=words):
        AngularVelocity(params)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "window must be an integer >= 1 .* got 0"),
        ({"window": 1.5}, "window must be an integer >= 1 .* got 1.5"),
        ({"window": 1, "observation": "snapshot"}, "window must be an integer >= 2"),
        ({"observation": "last"}, "observation must be .* got 'last'"),
        ({"accumulation": "kahan"}, "accumulation must be one of .* got 'kahan'"),
        ({"direction": torch.float16}, "direction must be .* got torch.float16"),
        ({"lag": -1}, "lag must be an integer >= 0, got -1"),
        ({"lag": 64}, "lag must be < window = 64, got 64"),
        ({"stride": 0}, "stride must be an integer >= 1, got 0"),
        ({"stride": 3}, "stride must divide window = 64, .* got 3"),
        ({"observation": "snapshot", "stride": 2}, "and be 1 for snapshots, got 2"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], got 0.0"),
        ({"fraction": 1.5}, r"fraction must be in \(0, 1\], got 1.5"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        AngularVelocity([torch.ones(2)], **options)


def test_tracking_leaves_gradients_and_versions_alone():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    velocity = AngularVelocity([p], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing moves here
        velocity.update()
    loss.backward()  # an in-place change of p would raise
    assert torch.equal(p.grad, torch.full((3,), 2.0))
