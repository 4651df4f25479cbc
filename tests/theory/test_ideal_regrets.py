"""Regrets of ideal rules: what they are made of, and what they may not be."""

import numpy as np
import pytest

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, oracle
from theory.ideal_regrets import (
    angle_rules,
    clocks,
    floor_rules,
    problems_by_spectrum,
    regrets,
)
from theory.ideal_rules import Clock, Stages, Window, realised

SGD = UnifiedMomentum.sgd()
PROBLEMS = {
    "one": NoisyQuadratic([2.0], 0.1, 2.0),
    "three": NoisyQuadratic([1.0, 0.3, 0.05], 0.02, 2.0),
}
FAMILIES = {
    "floor": floor_rules((0.1, 1.0), (0.1, 0.5), (1.0, 3.0)),
    "angle": angle_rules(Window(4), (0.1, 0.01), (0.25, 0.5)),
    "clock": clocks((20, 60), (0.25, 0.5)),
}


@pytest.fixture(scope="module")
def found():
    return regrets(
        PROBLEMS, FAMILIES, (300, 100), stages=8, lengths="free", horizon_free=True, restarts=2
    )


def test_shapes_and_names(found):
    assert found.problems == ("one", "three")
    assert found.horizons == (100, 300)
    assert found.max_step == 1.2
    assert {name: len(rules) for name, rules in found.rules.items()} == {
        "floor": 8, "angle": 4, "clock": 4,
    }  # fmt: skip
    for name, values in found.values.items():
        assert values.shape == (len(FAMILIES[name]), 2, 2)


def test_every_value_is_a_ratio_of_two_exact_risks(found):
    for p, (name, problem) in enumerate(PROBLEMS.items()):
        cap = 1.2 / max(problem.curvature)
        for h, T in enumerate(found.horizons):
            best = oracle.optimal_schedule(problem, SGD, T, 8, cap, lengths="free", restarts=2)
            assert found.oracle[p, h] == found.optima[p][h].risk == best.risk
            assert found.bound[p, h] == best.lower_bound / best.risk
            for family, rules in FAMILIES.items():
                for r, rule in enumerate(rules):
                    schedule = realised(Stages(problem, SGD), rule, learning_rate=cap, iterations=T)
                    risk = moments.evolve(problem, SGD, schedule).risk[-1]
                    assert found.values[family][r, p, h] == pytest.approx(risk / best.risk)
                least = found.best_rule(family, name, T)
                r = FAMILIES[family].index(least)
                assert found.values[family][r, p, h] == found.tuned(family)[p, h]


def test_no_rule_is_below_the_oracle_and_it_not_below_the_bound(found):
    """With free lengths, of as many stages as any rule could use to the end: none had more."""
    assert (found.bound <= 1).all()
    for values in (*found.values.values(), found.drop_only, found.horizon_free):
        assert (values >= 1 - 1e-6).all()


def test_a_schedule_that_knows_the_horizon_is_exposed(found):
    """Negative control: a rule that peeked at T could have regret 1 at T, but not at both."""
    problem, cap = PROBLEMS["three"], 1.2
    best = oracle.optimal_schedule(problem, SGD, 300, 8, cap, lengths="free", restarts=2).schedule
    assert moments.evolve(problem, SGD, best).risk[-1] == pytest.approx(found.oracle[1, 1])
    begun = StepwiseSchedule(*zip(*best.segments(0, 100), strict=True))
    early = moments.evolve(problem, SGD, begun).risk[-1] / found.oracle[1, 0]
    assert early > found.horizon_free[1, 0] > 1


def test_tuned_is_never_above_one_setting(found):
    for row in found.rows():
        rule, one = found.one(row.family)
        assert row.one == rule
        assert (found.tuned(row.family) <= one).all()
        assert row.one_mean == pytest.approx(np.exp(np.log(one).mean()))
        assert row.one_median == pytest.approx(np.median(one))
        assert row.one_largest == one.max()
        means = np.exp(np.log(found.values[row.family]).mean(axis=(1, 2)))
        assert row.one_mean == pytest.approx(means.min())
        assert row.tuned_mean <= row.one_mean


def test_with_momentum():
    method = UnifiedMomentum.heavy_ball(0.9)
    found = regrets(
        {"three": PROBLEMS["three"]}, {"clock": [Clock(50, 0.5)]}, (200,), method=method, stages=4
    )
    assert found.values["clock"].shape == (1, 1, 1)
    assert found.values["clock"] > 1
    assert found.horizon_free is None


def test_problems_by_spectrum():
    suite = problems_by_spectrum(10)
    assert list(suite) == [
        "the paper's", "power law i⁻¹", "power law i^−1.5", "two clusters", "nearly singular",
    ]  # fmt: skip
    for name, problem in suite.items():
        assert problem.dimension == (200 if name == "the paper's" else 10)
        assert (problem.noise_variance == 0.02).all()
        assert (problem.start == 2).all()
    assert max(suite["two clusters"].curvature) == 100 * min(suite["two clusters"].curvature)
    assert (suite["two clusters"].curvature == 1).sum() == 5
    assert suite["nearly singular"].curvature[[0, -1]] == pytest.approx([1, 1e-5])
    assert suite["power law i^−1.5"].curvature[3] == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("problems", "families", "horizons", "message"),
    [
        ({}, FAMILIES, (10,), "problems must hold at least one, got none"),
        (PROBLEMS, {}, (10,), "families must hold at least one, got none"),
        (PROBLEMS, {"empty": []}, (10,), "family 'empty' must hold at least one rule, got none"),
        (PROBLEMS, FAMILIES, (), "horizons must hold at least one, got none"),
        (PROBLEMS, FAMILIES, (0,), "every horizon must be a positive integer, got 0"),
    ],
)
def test_bad_input(problems, families, horizons, message):
    with pytest.raises(ValueError, match=message):
        regrets(problems, families, horizons)
