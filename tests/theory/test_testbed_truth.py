"""What the test bed holds rules against: truth, equivariance, causality, level, and the regrets.

Each is shown a rule that cheats, and one that does not.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, oracle
from theory.testbed import audit, bench, controls, equivariance, oracles, roster, scores, suite
from theory.testbed.contenders import lowered
from theory.testbed.engine import simulate
from theory.testbed.stages import stage_times
from theory.testbed.worlds import Quadratic

SGD = UnifiedMomentum.sgd()
PROBLEM = NoisyQuadratic(np.linspace(0.1, 1, 10), 0.5, 2.0)


# ---- Drops against the truth ---------------------------------------------------------------------


def test_stage_times_are_those_of_the_exact_moments():
    schedule = StepwiseSchedule([0.5, 0.25, 0.2, 0.01, 0.005], [60, 5, 40, 3, 10])
    found = stage_times(PROBLEM, schedule, eta=0.1)
    risk = moments.evolve(PROBLEM, SGD, schedule).risk
    edges = np.array(schedule.boundaries)
    assert found.length.tolist() == [60, 5, 40, 3]
    for i, α in enumerate(schedule.rates[:-1]):
        v, a = PROBLEM.noise_variance, PROBLEM.curvature
        floor = (α * a**2 * v / (2 - α * a)).sum() / 2
        assert found.excess[i] == pytest.approx(risk[edges[i + 1]] / floor - 1, rel=1e-9)
        before = [(α_j, k) for α_j, k in zip(schedule.rates, schedule.lengths, strict=True)][:i]
        kept = StepwiseSchedule(*zip(*before, (α, int(found.due[i]) + 1), strict=True))
        kept_risk = moments.evolve(PROBLEM, SGD, kept).risk[edges[i] :] / floor
        assert kept_risk[found.due[i]] <= 1.1
        if found.due[i]:
            assert kept_risk[found.due[i] - 1] > 1.1
    assert found.premature.tolist() == [bool(x > 0.1) for x in found.excess]
    assert 0 < found.premature.sum() < 4


def test_no_stage_is_due_where_nothing_moves():
    found = stage_times(PROBLEM, StepwiseSchedule([0.5, 1e-18, 1e-19], [5, 5, 5]))
    assert found.due[1] == 2**40
    assert found.premature.all()


def test_stage_times_refuse_what_has_no_floor():
    with pytest.raises(ValueError, match="a floor needs"):
        stage_times(PROBLEM, StepwiseSchedule([2.5, 1.0], [5, 5]))
    with pytest.raises(ValueError, match="eta must be > 0"):
        stage_times(PROBLEM, StepwiseSchedule([0.5, 0.1], [5, 5]), eta=0.0)


# ---- Equivariance --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FallingSteps:
    """A sensor with no clock: drops when ‖x − x_0‖ exceeds what the relaxation leaves of it."""

    reach: float
    name: str = "distance from the start"

    def start(self, weights, rates):
        origin = weights.copy()

        def observe(seen):
            far = np.linalg.norm(seen.weights - origin, axis=1) > self.reach
            origin[far] = seen.weights[far]
            return lowered(far, 0.8, seen.rates)

        return observe


def measured(*contenders, stretches=(1, 4, 16)):
    return equivariance.measure(
        contenders, PROBLEM, SGD, learning_rate=0.05, iterations=800, stretches=stretches,
        trajectories=16, drops=2,
    )  # fmt: skip


def test_a_sensor_has_slope_one_and_a_clock_dressed_as_one_has_none():
    sensor, clock = measured(FallingSteps(2.0), controls.Pacemaker(100))
    assert 0.9 < sensor.slope < 1.1
    assert sensor.interval[0] <= sensor.slope <= sensor.interval[1]
    assert clock.slope == 0.0
    assert clock.times.tolist() == [[100.0, 200.0]] * 3


def test_a_rule_without_drops_has_no_slope():
    (never,) = measured(FallingSteps(1e6), stretches=(1, 2))
    assert np.isnan(never.slope)
    assert np.isinf(never.times).all()


@pytest.mark.parametrize(("noise", "start"), [(0.5, 0.0), (0.0, 2.0)], ids=["noise", "start"])
def test_stretching_keeps_the_process(noise, start):
    """Variance and mean after c·t steps tend to those after t as αa → 0: off by O(αa)."""
    problem = NoisyQuadratic(PROBLEM.curvature, noise, start)
    for t in (50, 400):
        slow, fast = (
            moments.evolve(each, SGD, StepwiseSchedule.constant(0.01, steps)).risk[-1]
            for each, steps in ((suite.stretched(problem, 50), 50 * t), (problem, t))
        )
        assert abs(50 * slow / fast - 1) < 0.05


# ---- Causality and level -------------------------------------------------------------------------


def leak(build, at=640):
    return audit.first_leaks(
        lambda *known: [build(*known)], Quadratic(PROBLEM), SGD, learning_rate=0.3, at=at
    )[0]


def test_rules_of_the_roster_decide_by_the_past_alone():
    honest = roster.contenders()
    found = audit.first_leaks(
        lambda world, seed, steps: [*honest, controls.Lookahead(world, seed, steps)],
        Quadratic(PROBLEM), SGD, learning_rate=0.3,
    )  # fmt: skip
    assert found[:-1] == [None] * len(honest)
    assert found[-1] is not None


@pytest.mark.parametrize("at", [640, 700])
def test_a_rule_that_peeks_at_the_future_is_exposed(at):
    found = leak(lambda world, seed, steps: controls.Lookahead(world, seed, steps), at)
    assert found is not None
    assert at - 32 <= found <= at


def test_a_rule_that_knows_the_horizon_is_exposed():
    assert leak(lambda world, seed, steps: controls.Pacemaker(steps // 4)) == 320


def test_peeking_pays():
    """Where its first look ahead ends, it is never worse than with the wrong future."""
    world = Quadratic(PROBLEM)
    peeks, blind = simulate(
        world, SGD, [controls.Lookahead(world, seed, 64) for seed in (7, 8)], learning_rate=0.3,
        horizons=[64], trajectories=40, seed=7,
    )  # fmt: skip
    assert (peeks.risk <= blind.risk).all()
    assert (peeks.risk < blind.risk).any()


def test_a_level_that_is_kept_passes_and_a_miscalibrated_one_is_exposed():
    """Nominal 1e-3 a test: exact intervals, 4000 stages of at most 100 tests, all seeded."""
    honest, wrong = audit.false_drops(
        [controls.RandomDrops(1e-3), controls.RandomDrops(3e-3, name="three times")],
        iterations=1000, trajectories=4000, tests=lambda t: t // 10,
    )  # fmt: skip
    assert not honest.exceeds(1e-3, per="test")
    assert honest.per_test[1] < 1e-3 < honest.per_test[2]
    assert wrong.exceeds(1e-3, per="test")
    assert wrong.per_test[1] < 3e-3 < wrong.per_test[2]
    assert wrong.exceeds(1 - (1 - 1e-3) ** 100)
    assert not honest.exceeds(1 - (1 - 1e-3) ** 100)


def test_proportion_intervals_are_exact():
    """Each end is where the binomial tail beyond the count has probability 2.5 %."""
    from scipy.stats import binom

    for count, of in ((0, 20), (3, 20), (20, 20), (7, 1000)):
        low, high = audit.proportion_interval(count, of)
        assert low == 0 if count == 0 else binom.sf(count - 1, of, low) == pytest.approx(0.025)
        assert high == 1 if count == of else binom.cdf(count, of, high) == pytest.approx(0.025)


def test_the_walk_with_drift_moves_as_stated():
    world = audit.Drift(np.full(4, 0.3), 2.0)
    rng = np.random.default_rng(0)
    samples = world.draw(rng, 5000, 3)
    G = world.gradient(np.zeros((2, 3, 4)), samples[0], np.empty((2, 3, 4)))
    np.testing.assert_array_equal(G[1], samples[0] - 0.3)
    assert samples.std() == pytest.approx(2.0, rel=0.02)


# ---- Oracle and regret ---------------------------------------------------------------------------


def test_the_oracle_of_the_bed_is_as_good_as_free_lengths():
    instance = suite.Instance("small", "paper", Quadratic(PROBLEM), 1.0)
    mine = oracles.oracle_risks(instance, SGD, [300])
    free = oracle.optimal_schedule(PROBLEM, SGD, 300, 20, 1.2, lengths="free", restarts=1)
    assert mine.lower_bounds[0] <= mine.risks[0] <= free.risk
    # The control: a quarter of the stages is not enough.
    assert oracles.oracle_risks(instance, SGD, [300], stages=20).risks[0] > free.risk


def test_stage_lengths_add_up():
    for T in (1, 2, 17, 100, 2000):
        lengths = oracles.stage_lengths(T)
        assert sum(lengths) == T
        assert min(lengths) >= 1


def test_nothing_beats_the_oracle_beyond_its_interval():
    """On the quick instances; each of the cells is below by chance with probability 5e-4."""
    for instance in suite.quadratic_instances(quick=True)[:2]:
        outcome = bench.run_instance(
            instance, "sgd", roster.contenders(recommended=True), horizons=(500, 1000),
            trajectories=25, seed=0,
        )  # fmt: skip
        best = np.array(outcome.oracle.risks)
        assert (outcome.open_loop >= best).all()
        for risk in outcome.risk:
            assert not scores.regrets(risk, best, 0).below(1.0).any()
        # The control: an oracle that is too high is beaten.
        assert (outcome.open_loop < 2 * best).any()
        assert any(scores.regrets(risk, 5 * best, 0).below(1.0).any() for risk in outcome.risk)
        assert (np.diff(outcome.oracle.lower_bounds) < 0).all()


def test_regrets_and_their_intervals():
    """Intervals of 95 % by the bootstrap cover the mean in 90–99 % of 300 samples.

    P(outside) < 1e-3 for a binomial with 94 %, what skewness leaves at 100 trajectories.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(300):
        found = scores.summarise([scores.regrets(rng.gamma(4.0, 0.5, (100, 1)), [1.0], i)])
        covered += found.geometric.low <= 2.0 <= found.geometric.high
    assert 0.9 <= covered / 300 <= 0.99


def test_summaries_pool_instances_and_horizons():
    exact = [scores.Regrets.exact([1.0, 4.0]), scores.Regrets.exact([16.0, 2.0])]
    found = scores.summarise(exact)
    assert found.cells == 4
    assert found.geometric.value == pytest.approx(128**0.25)
    assert found.median.value == 3.0
    assert found.geometric.low == pytest.approx(found.geometric.high)
    assert scores.summarise([each.at(1) for each in exact]).median.value == 3.0
    with pytest.raises(ValueError, match="at least one instance"):
        scores.summarise([])
    with pytest.raises(ValueError, match="oracle"):
        scores.regrets(np.ones((3, 2)), [1.0, 0.0], 0)
