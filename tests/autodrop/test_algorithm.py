"""The array loop against the literal loop, batches against single trajectories."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autodrop import DropPolicy, Rule, rules, run
from autodrop.detectors import ThresholdSaturation
from tests.autodrop import reference

N = 6
CURVATURE = np.linspace(0.2, 1.0, N)


class Quadratic:
    """Noisy gradient descent with momentum ½ on Σ a x²/2, the same noise for the same seeds."""

    def __init__(self, seeds=(0,), convert=np.asarray):
        self.convert = convert
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.start = np.stack([g.standard_normal(N) for g in self.generators])
        self.x = self.start.copy()
        self.velocity = np.zeros_like(self.x)

    def update(self, t, learning_rate):
        noise = np.stack([g.standard_normal(N) for g in self.generators])
        self.velocity = 0.5 * self.velocity + CURVATURE * (self.x - 0.3 * noise)
        self.x = self.x - np.asarray(learning_rate) * self.velocity
        return self.convert(self.x)

    def assign(self, x):
        self.x = np.asarray(x).reshape(self.x.shape).copy()

    def alone(self):
        """`update` for a single trajectory of shape (n,)."""
        return lambda t, learning_rate: self.update(t, learning_rate)[0]


RULES = {
    "uai": (rules.uai2024(3, 0.8, 0.05), lambda a: reference.uai_drops(a)),
    "uai, by value, two-sided": (
        rules.uai2024(2, 0.8, 0.05, threshold=2.0, buffer=5, smoothing="value", test="absolute"),
        lambda a: reference.uai_drops(a, 2.0, 5, "value", "absolute"),
    ),
    "section 3": (
        rules.nqm2024(min_lr=0.01, threshold=0.5),
        lambda a: reference.nqm_drops(a, 0.5),
    ),
    "waiting": (
        Rule(4, ThresholdSaturation(3.0), DropPolicy(0.5, 0.01, 4, 20.0)),
        lambda a: reference.arxiv_drops(a, 3.0, 20.0, 0.5, 4),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_loop_is_the_literal_loop(name):
    rule, decide = RULES[name]
    T, rate = 300, 0.4
    ours, theirs = Quadratic(), Quadratic()
    got = run(ours.alone(), ours.start[0], rate, T, rule)
    rates, angles, drops = reference.train(
        lambda t, α: theirs.update(t, α)[0].tolist(),
        theirs.start[0].tolist(),
        rate,
        T,
        rule.window,
        decide,
        rule.policy.factor,
        rule.policy.min_lr,
    )
    assert len(drops) >= 3
    assert got.angles.shape == (1, T // rule.window - 2)
    # Window sums of entries of order 1 round by about k·eps, and steps are > 1e-3 long.
    assert got.angles[0] == pytest.approx(angles, abs=1e-9)
    assert got.learning_rates[0].tolist() == rates
    assert [(e.step, e.old_lr[0], e.new_lr[0]) for e in got.drops[0]] == drops
    for event in got.drops[0]:
        assert event.step == (event.window + 1) * rule.window
        assert event.angle == got.angles[0, event.window - 2]
    np.testing.assert_array_equal(got.end, ours.x[0])


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_arxiv_rule_is_the_epoch_loop(k, average):
    rule = rules.arxiv2021(k, 0.5, 0.01, threshold=4.0, max_threshold=30.0, wait=3, average=average)
    epochs, rate = 100, 0.4
    ours, theirs = Quadratic(), Quadratic()
    got = run(ours.alone(), ours.start[0], rate, epochs * k, rule, assign=ours.assign)
    rates, angles, drops, end = reference.train_by_epochs(
        lambda t, α: theirs.update(t, α)[0].tolist(),
        theirs.assign,
        theirs.start[0].tolist(),
        rate,
        epochs,
        k,
        0.5,
        0.01,
        4.0,
        30.0,
        3,
        average,
    )
    assert len(drops) >= 3
    # Averages are rounded in another order; the steps after them are > 1e-3 long.
    assert got.angles[0][~np.isnan(got.angles[0])] == pytest.approx(angles, abs=1e-9)
    assert got.learning_rates[0].tolist() == rates
    assert [(e.step, e.old_lr[0], e.new_lr[0]) for e in got.drops[0]] == drops
    assert got.end == pytest.approx(end, abs=1e-12)
    # Each average ends the tracking: the next two snapshots have no angle.
    assert np.isnan(got.angles).any() == average


def test_average_by_hand():
    """One coordinate pair on a line x = t: wait 2 weighs the iterates 1 : 2."""
    assigned = []
    x = np.zeros(2)

    def update(t, learning_rate):
        x[:] += (1.0, 0.0)
        return x

    def assign(value):
        assigned.append(value.copy())
        x[:] = value

    rule = rules.arxiv2021(2, 0.5, wait=2, average=True)
    got = run(update, x.copy(), 1.0, 10, rule, assign=assign)
    # Snapshots at t = 1, 3, 5, 7: angles 0, 0, armed at t = 7, x_8 = 8 and x_10 = 10 averaged.
    assert [value.tolist() for value in assigned] == [[(8.0 + 2 * 10.0) / 3, 0.0]]
    assert [e.step for e in got.drops[0]] == [10]
    assert got.end.tolist() == assigned[0].tolist()


def test_windows_by_hand():
    """y = (1, 0), (4, 0), (4, 3): one right angle, at T = 6 and not before.

    Without x_0, or with windows moved by one, the means are others; the angle between the last two
    positions is 36.9°.
    """
    path = [(0, -1), (2, 1), (3, -2), (5, 2), (2, 1), (6, 5), (100, -50), (7, 7)]
    path = np.array(path, dtype=float)
    seen = {}
    for T in range(len(path)):
        seen[T] = run(
            lambda t, α: path[t + 1], path[0], 0.1, T, Rule(2, ThresholdSaturation())
        ).angles[0]
    assert [len(seen[T]) for T in range(8)] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert seen[7].tolist() == [90.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_origin_does_not_matter(seed, k):
    path = np.random.default_rng(seed).standard_normal((5 * k + 1, 3))
    rule = Rule(k, ThresholdSaturation())
    a, b = (
        run(lambda t, α, p=p: p[t + 1], p[0], 0.1, 5 * k, rule).angles
        for p in (path, path + np.array([100.0, -300.0, 50.0]))
    )
    # Sums of k entries of 300 round by k·300·eps against steps that may be as short as 1e-3.
    assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_a_batch_is_its_trajectories(name):
    rule, _ = RULES[name]
    seeds, rates, T = (1, 2, 3, 4), np.array([0.4, 0.3, 0.2, 0.1]), 200
    together = Quadratic(seeds)
    batch = run(together.update, together.start, rates, T, rule)
    assert len({len(d) for d in batch.drops}) > 1
    for b, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        problem = Quadratic((seed,))
        alone = run(problem.alone(), problem.start[0], rate, T, rule)
        np.testing.assert_array_equal(batch.angles[b], alone.angles[0])
        np.testing.assert_array_equal(batch.learning_rates[b], alone.learning_rates[0])
        assert batch.drops[b] == alone.drops[0]
        np.testing.assert_array_equal(batch.end[b], alone.end)


def test_a_batch_averages_each_trajectory_on_its_own():
    rule = rules.arxiv2021(3, 0.5, 0.01, threshold=4.0, max_threshold=30.0, wait=3, average=True)
    seeds, T = (1, 2, 3), 180
    together = Quadratic(seeds)
    batch = run(together.update, together.start, 0.4, T, rule, assign=together.assign)
    assert len({tuple(e.step for e in d) for d in batch.drops}) == 3
    for b, seed in enumerate(seeds):
        problem = Quadratic((seed,))
        alone = run(problem.alone(), problem.start[0], 0.4, T, rule, assign=problem.assign)
        np.testing.assert_array_equal(batch.angles[b], alone.angles[0])
        assert batch.drops[b] == alone.drops[0]
        np.testing.assert_array_equal(batch.end[b], alone.end)


@pytest.mark.parametrize("name", RULES)
def test_torch_equals_numpy(name):
    rule, _ = RULES[name]
    ours, theirs = Quadratic((1, 2)), Quadratic((1, 2), torch.from_numpy)
    a = run(ours.update, ours.start, 0.4, 200, rule)
    b = run(theirs.update, torch.from_numpy(theirs.start), 0.4, 200, rule)
    # The two libraries sum products in different orders.
    np.testing.assert_allclose(a.angles, b.angles, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(a.learning_rates, b.learning_rates)
    assert isinstance(b.end, torch.Tensor)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_gets_rates_like_the_start(library, dtype):
    start = np.ones((2, 3), dtype=dtype)
    start = torch.from_numpy(start) if library == "torch" else start
    seen = []

    def update(t, learning_rate):
        seen.append(learning_rate)
        return start + t + 1

    run(update, start, [0.1, 0.2], 1, Rule())
    assert type(seen[0]) is type(start)
    assert seen[0].dtype == start.dtype
    assert tuple(seen[0].shape) == (2, 1)
    scalar = run(lambda t, α: seen.append(α) or start[0], start[0], 0.1, 1, Rule())
    assert type(seen[1]) is float
    assert scalar.learning_rates.tolist() == [[0.1]]


def test_an_iterate_updated_in_place_is_copied():
    g = np.random.default_rng(5)
    noise, x = g.standard_normal((12, 4)), np.zeros(4)

    def in_place(t, α):
        x[:] += noise[t]
        return x

    path = np.vstack([np.zeros(4), np.cumsum(noise, axis=0)])
    rule = Rule(2, ThresholdSaturation())
    a = run(in_place, x, 0.1, 12, rule)
    b = run(lambda t, α: path[t + 1], path[0], 0.1, 12, rule)
    assert a.angles == pytest.approx(b.angles, abs=1e-12)


def test_windows_without_an_angle_are_warned_of_and_tracking_recovers():
    g = np.random.default_rng(6)
    path = g.standard_normal((2, 15, 3))
    path[0, 4] = path[0, 5]  # the step into window 5 is zero
    path[1, 7, 0] = np.inf

    def walk():
        return run(
            lambda t, α: path[:, t + 1] if t < 14 else path[:, 14],
            path[:, 0],
            0.1,
            14,
            Rule(1, ThresholdSaturation()),
        )

    with pytest.warns(RuntimeWarning) as caught:
        got = walk()
    words = [str(w.message) for w in caught]
    assert len(words) == 2
    assert "update 6 is without movement for trajectories [0]" in words[0]
    assert "update 8 is not finite for trajectories [1]" in words[1]
    # angles[i] belongs to window i + 2; a window lost at j returns an angle at j + 3.
    assert np.flatnonzero(np.isnan(got.angles[0])).tolist() == [3, 4, 5]
    assert np.flatnonzero(np.isnan(got.angles[1])).tolist() == [5, 6, 7]
    for b, i in ((0, 6), (1, 8)):
        expected = reference.velocity(path[b, i + 2], path[b, i + 1], path[b, i])
        assert got.angles[b, i] == pytest.approx(expected, abs=1e-11)


def test_each_streak_of_lost_windows_is_warned_of_once():
    path = np.random.default_rng(7).standard_normal((2, 15, 3))
    path[0, 2:5] = path[0, 10] = path[1, 3:] = np.nan

    with pytest.warns(RuntimeWarning) as caught:
        run(
            lambda t, α: path[:, t + 1],
            path[:, 0],
            0.1,
            14,
            Rule(1, ThresholdSaturation()),
        )
    words = [str(w.message) for w in caught]
    assert len(words) == 3
    assert "update 3 is not finite for trajectories [0]" in words[0]
    assert "update 4 is not finite for trajectories [1]" in words[1]
    assert "update 11 is not finite for trajectories [0]" in words[2]
    assert {w.filename for w in caught} == {__file__}


def still(t, α):
    return np.ones(3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"iterations": -1}, ValueError, "iterations must be an integer >= 0, got -1"),
        ({"iterations": 2.0}, ValueError, "iterations .* got 2.0"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be .* got 0.0"),
        ({"learning_rate": [0.1, 0.2]}, ValueError, "a number or 1 numbers"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate .* got nan"),
        ({"start": np.ones(3, dtype=int)}, TypeError, "start must be real floating point"),
        ({"start": np.ones((2, 2, 2))}, ValueError, r"start must have shape .* got \(2, 2, 2\)"),
        ({"start": np.ones(0)}, ValueError, r"start must have shape .* got \(0,\)"),
        ({"start": np.ones(4)}, ValueError, r"start's shape \(4,\), got \(3,\)"),
        ({"start": torch.ones(3)}, TypeError, "must be a Tensor, got ndarray"),
        (
            {"rule": rules.arxiv2021(2, average=True)},
            ValueError,
            "assign is needed to write averages",
        ),
        ({"rule": rules.uai2024(2, min_lr=(0.1, 0.2))}, ValueError, "2 floors for 1 groups"),
    ],
)
def test_bad_input(arguments, error, words):
    given = {"start": np.ones(3), "learning_rate": 0.1, "iterations": 3, "rule": Rule(2)}
    with pytest.raises(error, match=words):
        run(still, **{**given, **arguments})


def test_the_same_rule_serves_runs_of_any_length():
    rule = RULES["uai"][0]
    problem, longer = Quadratic(), Quadratic()
    a = run(problem.alone(), problem.start[0], 0.4, 100, rule)
    b = run(longer.alone(), longer.start[0], 0.4, 200, rule)
    np.testing.assert_array_equal(a.learning_rates, b.learning_rates[:, :100])
    empty = run(still, np.ones(3), 0.1, 0, rule)
    assert empty.angles.shape == (1, 0)
    assert empty.learning_rates.shape == (1, 0)
