"""The test bed's engine against the array loop, exact moments, and itself."""

import numpy as np
import pytest

from autodrop import algorithm, rules
from tests.theory.chance import critical_z
from theory import NoisyQuadratic, UnifiedMomentum, final_risk
from theory.schedules import StepwiseSchedule
from theory.testbed import engine, open_loop, published, suite, worlds
from theory.testbed.contenders import Constant

SGD = UnifiedMomentum.sgd()
METHODS = [SGD, UnifiedMomentum.heavy_ball(0.9), UnifiedMomentum.nesterov(0.9)]
PROBLEM = NoisyQuadratic(np.arange(1, 13) / 10, 0.02, 2.0)
WORLD = worlds.Quadratic(PROBLEM)
RATE = 0.1

PAIRS = [
    (published.Gaussian(k, ρ, floor), rules.uai2024(k, ρ, floor))
    for k, ρ, floor in ((1, 0.95, 0.0), (4, 0.5, 1e-3), (16, 0.9, 0.0))
] + [
    (
        published.Gaussian(2, 0.8, threshold=1.0, buffer=4),
        rules.uai2024(2, 0.8, threshold=1.0, buffer=4),
    ),
    (published.MovingAverage(), rules.nqm2024()),
    (published.MovingAverage(0.8, 0.0, 0.05, 5), rules.nqm2024(0.8, 0.0, threshold=0.05, length=5)),
    (
        published.Snapshots(8, 0.5, 0.0, 2.0, 20.0, 4),
        rules.arxiv2021(8, 0.5, 0.0, threshold=2.0, max_threshold=20.0, wait=4),
    ),
    (
        published.Snapshots(2, 0.5, 1e-3, 2.0, 20.0, 3),
        rules.arxiv2021(2, 0.5, 1e-3, threshold=2.0, max_threshold=20.0, wait=3),
    ),
]


def array_loop(rule, method, iterations, trajectories, seed):
    """`algorithm.run` on the samples that the engine draws."""
    rng = np.random.default_rng([seed, 0])
    chunks = -(-iterations // 64)
    sizes = [64] * (chunks - 1) + [iterations - 64 * (chunks - 1)]
    samples = np.concatenate([WORLD.draw(rng, size, trajectories) for size in sizes])
    β, s = float(method.momentum), float(method.s)
    start = np.tile(WORLD.start + WORLD.minimiser, (trajectories, 1))
    x, ys = start - WORLD.minimiser, start - WORLD.minimiser

    def update(t, α):
        nonlocal x, ys
        G = PROBLEM.gradient(x, samples[t])
        before, ys = ys, x - s * α * G
        x = x - α * G + β * (ys - before)
        return x + WORLD.minimiser

    return algorithm.run(update, start, RATE, iterations, rule)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize(("contender", "rule"), PAIRS, ids=lambda each: getattr(each, "name", ""))
def test_published_rules_drop_when_the_package_does(contender, rule, method):
    T, S = 1200, 6
    scalar = published.Scalar(rule)
    runs = engine.simulate(
        WORLD, method, [contender, scalar], learning_rate=RATE, horizons=[T], trajectories=S, seed=3
    )
    loop = array_loop(rule, method, T, S, 3)
    expected = [[(drop.step, drop.new_lr[0]) for drop in drops] for drops in loop.drops]
    assert sum(map(len, expected)) >= 2 * S  # the comparison is not about nothing
    for run in runs:
        for s in range(S):
            at, rate = run.drops.of(s)
            assert at.tolist() == [step for step, _ in expected[s]]
            np.testing.assert_allclose(rate, [lr for _, lr in expected[s]], rtol=1e-12)
        np.testing.assert_allclose(
            run.rate[:, 0], np.array([d[-1][1] for d in expected]), rtol=1e-12
        )


class Pauses:
    """A random walk that stands still in some stretches of iterations."""

    start = minimiser = np.zeros(5)

    def draw(self, rng, steps, trajectories):
        return rng.standard_normal((steps, trajectories, 5))

    def samples(self, rng, steps, trajectories):
        drawn = [self.draw(rng, min(64, steps - t), trajectories) for t in range(0, steps, 64)]
        return np.concatenate(drawn)

    def gradient(self, x, sample, out):
        # Standing still is decided by the sample, so that it does not depend on the iteration.
        moves = abs(sample[:, :1]) > 0.8
        out[...] = np.where(moves, sample, 0.0)
        return out

    def risk(self, x):
        return (x * x).sum(axis=-1)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("which", ["uai2024", "arxiv2021"])
def test_windows_that_stand_still_are_handled_as_in_the_package(which, k):
    world, T, S = Pauses(), 500, 3
    if which == "uai2024":
        contender = published.Gaussian(k, threshold=5.0, buffer=2)
        rule = rules.uai2024(k, threshold=5.0, buffer=2)
    else:
        contender = published.Snapshots(k + 1, 0.5, 0.0, 20.0, 30.0, 2)
        rule = rules.arxiv2021(k + 1, 0.5, 0.0, threshold=20.0, max_threshold=30.0, wait=2)
    runs = engine.simulate(
        world, SGD, [contender, published.Scalar(rule)], learning_rate=RATE, horizons=[T],
        trajectories=S, seed=3,
    )  # fmt: skip
    samples = world.samples(np.random.default_rng([3, 0]), T, S)
    x = np.zeros((S, 5))

    def update(t, α):
        nonlocal x
        x = x - α * world.gradient(x, samples[t], np.empty_like(x))
        return x

    with pytest.warns(RuntimeWarning, match="without movement"):
        loop = algorithm.run(update, x, RATE, T, rule)
    assert np.isnan(loop.angles).sum() > 20
    expected = [[drop.step for drop in drops] for drops in loop.drops]
    assert sum(map(len, expected)) >= 2 * S
    for run in runs:
        assert [run.drops.of(s)[0].tolist() for s in range(S)] == expected


def test_a_threshold_that_is_off_drops_elsewhere():
    """The comparison above notices a threshold that is wrong by a tenth."""
    right, wrong = published.Gaussian(1), published.Gaussian(1, threshold=0.11)
    a, b = engine.simulate(
        WORLD, SGD, [right, wrong], learning_rate=RATE, horizons=[1200], trajectories=6, seed=3
    )
    assert a.drops.iteration.tolist() != b.drops.iteration.tolist()


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("shape", open_loop.SHAPES, ids=lambda shape: shape.name)
def test_expected_risks_are_those_of_the_moments(shape, method):
    rates = np.array([shape.rates(RATE, 300, p) for p in shape.grid])
    found = open_loop.expected_risks(WORLD, method, rates, [1, 100, 300])
    for row, α in zip(found, rates, strict=True):
        for risk, T in zip(row, (1, 100, 300), strict=True):
            schedule = StepwiseSchedule.from_rates(α[:T].tolist())
            assert risk == pytest.approx(
                final_risk.final_risk(PROBLEM, method, schedule), rel=1e-11
            )


LEAST_SQUARES = worlds.LeastSquares(np.array([1.0, 0.3, 0.1]), 0.2, np.full(3, 2.0))


@pytest.mark.parametrize(
    ("world", "method", "rate"),
    [*((WORLD, each, RATE) for each in METHODS), (LEAST_SQUARES, SGD, 0.4)],
    ids=["sgd", "heavy ball", "nesterov", "least squares"],
)
def test_mean_risks_are_the_expected_ones(world, method, rate):
    """Means of 4000 trajectories; false-alarm probability 1e-6 over the three horizons.

    For least squares, with few heavy-tailed risks, the normal law is a rough approximation.
    """
    shares = np.geomspace(1, 0.05, 120)
    S, horizons = 4000, [3, 20, 120]
    (run,) = engine.simulate(
        world, method, [open_loop.Clock(shares, "clock")], learning_rate=rate, horizons=horizons,
        trajectories=S, seed=1,
    )  # fmt: skip
    exact = open_loop.expected_risks(world, method, rate * shares[None], horizons)[0]
    z = (run.risk.mean(axis=0) - exact) / (run.risk.std(axis=0, ddof=1) / np.sqrt(S))
    assert (abs(z) < critical_z(3)).all(), z
    # The control: rates that are 10 % larger are noticed at one of the horizons.
    other = open_loop.expected_risks(world, method, 1.1 * rate * shares[None], horizons)[0]
    z = (run.risk.mean(axis=0) - other) / (run.risk.std(axis=0, ddof=1) / np.sqrt(S))
    assert (abs(z) > critical_z(3)).any(), z


def test_contenders_meet_the_same_noise_whoever_is_beside_them():
    first, second = published.Gaussian(1), published.MovingAverage()
    options = {"learning_rate": RATE, "horizons": [50, 300], "trajectories": 60, "seed": 5}
    both = engine.simulate(WORLD, SGD, [first, second, first, Constant()], **options)
    alone = engine.simulate(WORLD, SGD, [first], **options)
    for run in (both[0], both[2]):
        np.testing.assert_array_equal(run.risk, alone[0].risk)
        np.testing.assert_array_equal(run.drops.iteration, alone[0].drops.iteration)
    assert not np.array_equal(both[0].risk[:, 1], both[3].risk[:, 1])
    seeds = engine.simulate(WORLD, SGD, [first], **(options | {"seed": 6}))
    assert not np.array_equal(seeds[0].risk, alone[0].risk)


def test_the_schedule_of_a_trajectory_is_the_one_that_was_used():
    (run,) = engine.simulate(
        WORLD, SGD, [published.Gaussian(1)], learning_rate=RATE, horizons=[400], trajectories=52,
        seed=5,
    )  # fmt: skip
    for s in (0, 51):
        schedule = run.schedule(s)
        assert len(schedule) == 400
        assert len(schedule.rates) == 1 + (run.drops.of(s)[0] < 400).sum()
        assert run.drops.of(s)[0].tolist() == sorted(run.drops.of(s)[0])
        rates = np.asarray(schedule)
        assert rates[0] == RATE
        assert (np.diff(rates) <= 0).all()
    assert (np.diff(run.drops.iteration) >= 0).all()  # over the blocks of trajectories
    assert set(run.drops.trajectory) == set(range(52))
    assert run.rate[51, 0] == run.drops.of(51)[1][-1]


class _Halves:
    name = "halves"

    def start(self, weights, rates):
        return lambda seen: np.full(len(weights), 0.5)


def test_rates_do_not_underflow():
    """2000 halvings are 1e-602; the schedule stays one, and what does not lower is no drop."""
    (run,) = engine.simulate(
        WORLD, SGD, [_Halves()], learning_rate=RATE, horizons=[2000], trajectories=2, seed=0
    )
    assert run.rate[0, 0] == pytest.approx(1e-30 * RATE)
    assert len(run.drops.of(0)[0]) == 100  # 2⁻¹⁰⁰ < 1e-30 < 2⁻⁹⁹
    assert len(run.schedule(1)) == 2000


class _Rises:
    name = "rises"

    def start(self, weights, rates):
        return lambda seen: np.full(len(weights), 1.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"learning_rate": 0.0},
            ValueError,
            "learning_rate must be one or 1 numbers, finite and > 0, got 0.0",
        ),
        ({"horizons": [20, 10]}, ValueError, "horizons must ascend"),
        ({"trajectories": 0}, ValueError, "trajectories must be a positive integer, got 0"),
        ({"contenders": []}, ValueError, "contenders must be at least one"),
        (
            {"contenders": [_Rises()]},
            ValueError,
            r"rises must return None or 2 factors in \(0, 1\]",
        ),
        ({"learning_rate": 1e200}, OverflowError, "a risk is not finite"),
    ],
)
def test_errors_name_what_is_wrong(changes, error, message):
    options = {
        "contenders": [Constant()], "learning_rate": RATE, "horizons": [10], "trajectories": 2,
        "seed": 0,
    } | changes  # fmt: skip
    with pytest.raises(error, match=message):
        engine.simulate(WORLD, SGD, **options)


def test_every_instance_runs_and_learns():
    every = (
        *suite.quadratic_instances(),
        *suite.multiplicative_instances(),
        *suite.convex_instances(),
    )
    names = [each.name for each in every]
    assert len(set(names)) == len(names)
    quadratic = suite.quadratic_instances()
    held_out = {each.spectrum for each in quadratic if each.held_out}
    assert len(held_out) == 4
    assert not held_out & {each.spectrum for each in quadratic if not each.held_out}
    for each in every:
        (run,) = engine.simulate(
            each.world, SGD, [Constant()], learning_rate=each.rate(SGD), horizons=[100],
            trajectories=4, seed=0,
        )  # fmt: skip
        assert run.risk.mean() < each.world.risk(each.world.start)
