"""The angle as an indicator: every verdict at another seed, and mistakes that take it away."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from paper_checks.claim import Check, Context, Verdict
from paper_checks.claims import section3_5_indicator as indicator
from paper_checks.outcome import execute
from tests.paper_checks.plants import Plant, returning
from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    angle_noise,
    ideal_regrets,
    ideal_rules,
    one_rate,
    reference_schedules,
    saturation,
    simulate,
    truth,
)

EXPECTED = {
    indicator.saturation_indicates_drop: Verdict.CORRECTED,
    indicator.angle_before_loss: Verdict.CORRECTED,
    indicator.harder_saturation_pattern: Verdict.CORRECTED,
    indicator.avoids_short_horizon_bias: Verdict.REFUTED,
}


@pytest.mark.parametrize("check", EXPECTED, ids=lambda check: check.__name__)
def test_verdict_at_another_seed(check: Check) -> None:
    outcome = check(Context(seed=1))
    assert outcome.failed == ()
    assert outcome.verdict is EXPECTED[check]
    if outcome.counterexample is not None:
        assert len(outcome.counterexample.splitlines()) < 10
        execute(outcome.counterexample)


def _later(right: Any) -> Any:
    def angle(self: Any, deviation: Any, first: int = 0, stride: int = 1, count: int = 1) -> Any:
        return right(self, deviation, first + 1, stride, count)

    return angle


def _slower(right: Any) -> Any:
    """Every schedule of half the rates."""

    def run(problem: Any, method: Any, schedule: Any, **options: Any) -> Any:
        rates = [rate / 2 for rate in schedule.rates]
        return right(problem, method, StepwiseSchedule(rates, schedule.lengths), **options)

    return run


def _halved(reference: Any) -> Any:
    schedule = reference.schedule
    rates = [rate / 2 for rate in schedule.rates]
    return type(reference)(
        **{**vars(reference), "schedule": StepwiseSchedule(rates, schedule.lengths)}
    )


def _other_rule(right: Any) -> Any:
    """Whatever the rule, one with windows of 16 in its place."""
    rule = ideal_rules.AngleAtLimit(0.05, 0.5, ideal_rules.Window(16))
    return lambda stages, _, **options: right(stages, rule, **options)


def _windows_of_16(right: Any) -> Any:
    def realised(stages: Any, rule: Any, **options: Any) -> Any:
        if isinstance(rule, ideal_rules.AngleAtLimit):
            rule = dataclasses.replace(rule, window=ideal_rules.Window(16))
        return right(stages, rule, **options)

    return realised


def _noisier(right: Any) -> Any:
    def moments(problem: Any, *rest: Any) -> Any:
        v = 2 * problem.noise_variance
        return right(NoisyQuadratic(problem.curvature, v, problem.start), *rest)

    return moments


PLANTS = {
    "every angle is that of the next window": Plant(
        indicator.saturation_indicates_drop, one_rate.OneRate, "angle", _later, "angle: the rec"
    ),
    "a floor that is twice as high": Plant(
        indicator.saturation_indicates_drop,
        ideal_rules,
        "at_one_rate",
        returning(lambda stage: _with(stage, floor=2 * stage.floor)),
        "risk: the recursion drops",
    ),
    "final risks 1000 times too small": Plant(
        indicator.saturation_indicates_drop,
        ideal_regrets,
        "final_risk",
        returning(lambda risk: risk / 1000),
        "no rule beats",
    ),
    "all windows are of 16": Plant(
        indicator.saturation_indicates_drop,
        ideal_regrets,
        "realised",
        _windows_of_16,
        "geometric mean: angle, k = 1",
    ),
    "simulation at other rates": Plant(
        indicator.saturation_indicates_drop, simulate, "run", _slower, "= simulation"
    ),
    "angles that hardly scatter": Plant(
        indicator.saturation_indicates_drop,
        angle_noise,
        "angle_deviation",
        returning(lambda deviation: deviation / 100),
        "whose mean shows its way",
    ),
    "limit of the squared norm doubled": Plant(
        indicator.angle_before_loss,
        saturation,
        "squared_norm_limit",
        returning(lambda limit: 2 * limit),
        "have less of their way left",
    ),
    "angles that settle a window later": Plant(
        indicator.angle_before_loss,
        truth,
        "angle_settled",
        returning(lambda time: time + 1),
        "finds the same",
    ),
    "angles that have always settled": Plant(
        indicator.angle_before_loss,
        truth,
        "angle_settled",
        returning(lambda _: 0),
        "window 64: it is later",
    ),
    "the loss settles 100 iterations late": Plant(
        indicator.harder_saturation_pattern,
        truth,
        "risk_settled",
        returning(lambda time: time + 100),
        "one mode",
    ),
    "angles as soft as the loss": Plant(
        indicator.harder_saturation_pattern,
        truth,
        "angle_settled",
        lambda right: lambda stage, D, ε: (
            truth.risk_settled(
                stage, D, ε * abs(stage.risk(D)[0] - stage.floor)
                / abs(stage.angle(D)[0] - stage.limit), from_below=True,
            )
        ),
        "Figure 1: the loss is softer",
    ),
    "a greedy schedule of half the rates": Plant(
        indicator.avoids_short_horizon_bias,
        reference_schedules,
        "greedy",
        returning(_halved),
        "its first rate minimises",
    ),
    "another rule than the one asked for": Plant(
        indicator.avoids_short_horizon_bias,
        ideal_rules,
        "realised",
        _other_rule,
        "the rule with ρ = ½, k = 1",
    ),
    "twice the noise": Plant(
        indicator.avoids_short_horizon_bias,
        one_rate,
        "moments_at_stages",
        _noisier,
        "by the recursion over windows",
    ),
}  # fmt: skip


def _with(stage: one_rate.OneRate, **changes: Any) -> one_rate.OneRate:
    return one_rate.OneRate(**{**vars(stage), **changes})


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_a_planted_mistake_turns_the_check_red(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant.owner, plant.name, plant.make(getattr(plant.owner, plant.name)))
    outcome = plant.check(Context())
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(plant.fact in fact.name for fact in outcome.failed), outcome.reason


def test_every_claim_has_a_planted_mistake() -> None:
    assert {plant.check for plant in PLANTS.values()} == set(EXPECTED)
