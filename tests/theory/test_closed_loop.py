"""A rule in the loop: literal eq. (9), realised schedules, and the law of the angles."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from autodrop import DropPolicy, Rule, rules
from tests.theory import brute_force
from tests.theory.chance import critical_z, detectable, z_scores
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, closed_loop, moments

EPS = np.finfo(float).eps
PROBLEM = NoisyQuadratic([0.3, 1.0, 4.0], [0.5, 0.2, 0.1], [2.0, -1.0, 0.5])
METHOD = UnifiedMomentum(0.6, 0.8)


@dataclass(frozen=True)
class Scripted:
    """Saturated at the angles of these indices, whatever they are."""

    at: frozenset = field(default_factory=frozenset)

    def init(self):
        return 0

    def update(self, state, angle):
        return state + 1, state in self.at


def scripted(window, *at, factor=0.5):
    return Rule(window, Scripted(frozenset(at)), DropPolicy(factor))


def literal(run, seed, window):
    """Iterates (T + 1, B, n) of a loop over eq. (9) at the rates of the run; angles in degrees."""
    B, T = run.learning_rates.shape
    rng = np.random.default_rng(seed)
    a, v = PROBLEM.curvature, PROBLEM.noise_variance
    x = ys = np.tile(PROBLEM.start, (B, 1))
    path = [x]
    for t in range(T):
        sample = np.sqrt(v) * rng.standard_normal(x.shape)
        rate = run.learning_rates[:, [t]]
        x, ys = brute_force.update(x, ys, a * (x - sample), rate, METHOD)
        path.append(x)
    path = np.stack(path)
    windows = T // window
    means = path[: windows * window].reshape(windows, window, B, -1).mean(axis=1)
    u, v = np.diff(means, axis=0)[:-1], np.diff(means, axis=0)[1:]
    u, v = (part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (u, v))
    angles = 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))
    return path, np.degrees(angles)


@pytest.mark.parametrize(
    "rule",
    [
        scripted(5),
        scripted(5, 2, 4),
        rules.uai2024(window=3, factor=0.5, buffer=2),
        rules.nqm2024(factor=0.8, threshold=5.0, length=3),
    ],
    ids=["never", "scripted", "uai2024", "nqm2024"],
)
def test_iterates_obey_eq_9_literally(rule):
    run = closed_loop.run(
        PROBLEM, METHOD, rule, learning_rate=0.2, iterations=121, trajectories=4, seed=8
    )
    path, angles = literal(run, 8, rule.window)
    a = PROBLEM.curvature
    rounding = 100 * EPS * np.abs(path).max() ** 2 * a.sum()
    np.testing.assert_allclose(run.risk.T, (a * path**2).sum(-1) / 2, rtol=0, atol=rounding)
    # An angle of unit vectors, from window means that differ in their last digits: 1e-9 degrees.
    np.testing.assert_allclose(run.angles.T, angles, rtol=0, atol=1e-9)
    assert run.angles.shape == (4, 121 // rule.window - 2)
    assert run.risk.shape == (4, 122)


@pytest.mark.parametrize("rule", [scripted(5, 2, 4), rules.nqm2024(0.8, threshold=5.0, length=3)])
def test_rates_fall_at_the_drops_and_nowhere_else(rule):
    run = closed_loop.run(
        PROBLEM, METHOD, rule, learning_rate=0.2, iterations=121, trajectories=4, seed=8
    )
    for b in range(4):
        assert run.drops[b]
        expected = np.full(121, 0.2)
        for drop in run.drops[b]:
            assert drop.step == rule.window * (drop.window + 1)
            assert drop.old_lr[0] == expected[drop.step]
            assert drop.angle == pytest.approx(run.angles[b, drop.window - 2], abs=1e-9)
            expected[drop.step :] = drop.new_lr[0]
        assert (run.learning_rates[b] == expected).all()
        assert (np.asarray(run.schedule(b)) == run.learning_rates[b]).all()
        assert len(run.schedule(b).rates) == 1 + len(run.drops[b])


def test_scripted_drops():
    """Saturated at angles 2 and 4: the windows 4 and 6 end with updates 25 and 35."""
    run = closed_loop.run(
        PROBLEM,
        METHOD,
        scripted(5, 2, 4),
        learning_rate=0.2,
        iterations=50,
        trajectories=2,
        seed=0,
    )
    expected = StepwiseSchedule([0.2, 0.1, 0.05], [25, 10, 15])
    assert run.schedule(0) == run.schedule(1) == expected
    assert run.schedule() == expected
    assert (run.risk[0] != run.risk[1])[1:].all()


def test_a_rule_that_never_fires():
    run = closed_loop.run(
        PROBLEM, METHOD, scripted(4), learning_rate=0.2, iterations=40, trajectories=3, seed=0
    )
    assert run.drops == ((), (), ())
    assert all(run.schedule(b) == StepwiseSchedule.constant(0.2, 40) for b in range(3))


def test_statistics_are_the_exact_moments():
    """Risk and cosine at every window of 20 000 paths, whose drops are scripted, hence equal."""
    k, T = 4, 48
    run = closed_loop.run(
        PROBLEM,
        METHOD,
        scripted(k, 1, 5),
        learning_rate=0.2,
        iterations=T,
        trajectories=20_000,
        seed=4,
    )
    exact = moments.evolve(PROBLEM, METHOD, run.schedule(), k)
    cosine = np.cos(np.radians(run.angles.T))
    risk = run.risk.T[k::k]
    z = np.append(z_scores(risk, exact.risk[1:]), z_scores(cosine, exact.expected_cosine()))
    bound = critical_z(len(z))
    assert np.abs(z).max() <= bound
    assert (detectable(risk, len(z)) < 0.1 * exact.risk[1:]).all()
    assert (detectable(cosine, len(z)) < 0.05).all()
    # Without the drops, and with the ratio for the cosine, it must fail.
    constant = moments.evolve(PROBLEM, METHOD, StepwiseSchedule.constant(0.2, T), k)
    assert np.abs(z_scores(risk, constant.risk[1:])).max() > bound
    assert np.abs(z_scores(cosine, exact.ratio)).max() > bound


def test_reproducible():
    arguments = {"learning_rate": 0.1, "iterations": 20, "trajectories": 2}
    rule = scripted(4)
    first, again, other = (
        closed_loop.run(PROBLEM, METHOD, rule, seed=seed, **arguments) for seed in (1, 1, 2)
    )
    assert (first.risk == again.risk).all()
    assert (first.risk[:, 1:] != other.risk[:, 1:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectories": 0}, "trajectories must be a positive integer, got 0"),
        ({"iterations": 0}, "iterations must be a positive integer, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and > 0, got nan"),
    ],
)
def test_bad_input(change, message):
    arguments = {"learning_rate": 0.1, "iterations": 20, "trajectories": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        closed_loop.run(PROBLEM, METHOD, scripted(4), **arguments)
