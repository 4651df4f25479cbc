"""Sections 5.1 and 5 (reach): every check gives its verdict, a planted mistake takes it away."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from paper_checks import algorithm1
from paper_checks.claim import Check, Context, Verdict
from paper_checks.claims import section5_1_method as method
from paper_checks.claims import section5_3_reach as reach
from paper_checks.outcome import execute
from tests.paper_checks.plants import Plant, returning
from theory import (
    StepwiseSchedule,
    TorchMomentum,
    UnifiedMomentum,
    bounds,
    moments,
    multipliers,
)
from theory.noise_trees import noise_tree_worst_case

EXPECTED = {
    method.eq_9_special_cases: Verdict.HOLDS,
    method.um_against_torch: Verdict.CORRECTED,
    method.thm_5_1_noise: Verdict.CORRECTED,
    method.thm_5_1_kappas: Verdict.CORRECTED,
    method.discrete_needs_new_proofs: Verdict.REFUTED,
    method.constant_rate_floor: Verdict.CORRECTED,
    reach.autodrop_is_covered: Verdict.REFUTED,
    reach.nqm_not_covered: Verdict.REFUTED,
    reach.bounds_on_data: Verdict.HOLDS,
}


@pytest.mark.parametrize("check", EXPECTED, ids=lambda check: check.__name__)
def test_verdict_at_another_seed(check: Check) -> None:
    outcome = check(Context(seed=1))
    assert outcome.failed == ()
    assert outcome.verdict is EXPECTED[check]
    if outcome.counterexample is not None:
        execute(outcome.counterexample)
        assert len(outcome.counterexample.splitlines()) <= 10


def _one_step_late(right: Any) -> Any:
    # Nesterov's extrapolation with the velocity before the update.
    def nesterov(β: Any, rates: Any, oracle: Any, x: Any) -> list[Any]:
        θ, v, path = x, 0 * x, [x]
        for t, α in enumerate(rates):
            before, v = v, β * v - α * oracle(t, θ + β * v)
            θ = θ + v
            path.append(θ + β * before)
        return path

    return nesterov


def _no_look_ahead(right: Any) -> Any:
    return lambda β, look, rates, oracle, x: right(β, False, rates, oracle, x)


def _larger_kappa(found: bounds.Stages) -> bounds.Stages:
    return replace(found, kappa_1=2 * found.kappa_1)


PLANTS = {
    "gradient descent with the rate α": Plant(
        method.eq_9_special_cases, method, "vanilla_rate", lambda right: lambda α, β: α, "s = 1/"
    ),
    "Nesterov one step late": Plant(
        method.eq_9_special_cases, method, "nesterov", _one_step_late, "equal the textbook"
    ),
    "eq. (9) extrapolates backwards": Plant(
        method.eq_9_special_cases,
        method,
        "step_9",
        returning(lambda pair: (2 * pair[1] - pair[0], pair[1])),
        "s = 0: x'",
    ),
    "step matrix of another β": Plant(
        method.eq_9_special_cases,
        UnifiedMomentum,
        "step_matrix",
        returning(lambda H: 2 * H),
        "`step_matrix`",
    ),
    "drift without its factor β": Plant(
        method.um_against_torch,
        method,
        "torch_drift",
        lambda right: lambda β, *rest: right(β, *rest) / β,
        "x_torch − x_UM",
    ),
    "torch without look-ahead": Plant(
        method.um_against_torch, method, "torch_momentum", _no_look_ahead, "Nesterov, constant rate"
    ),
    "torch with the matrix of UM": Plant(
        method.um_against_torch,
        TorchMomentum,
        "step_matrix",
        lambda right: (
            lambda self, rates: UnifiedMomentum(self.momentum, int(self.nesterov)).step_matrix(
                rates
            )
        ),
        "live torch, momentum: x_t",
    ),
    "Theorem B halved": Plant(
        method.um_against_torch, bounds, "theorem_b", returning(lambda b: b / 2), "Theorem B bounds"
    ),
    "(31) three halves as large": Plant(
        method.thm_5_1_noise,
        bounds,
        "printed_31",
        returning(lambda b: b * Fraction(3, 2)),
        "over (31) with δ² = E|n|",
    ),
    "(31) halved": Plant(
        method.thm_5_1_noise, bounds, "printed_31", returning(lambda b: b / 2), "as corrected"
    ),
    "second moment for the first": Plant(
        method.thm_5_1_noise,
        method,
        "moment",
        lambda right: lambda law, order: right(law, 3 - order),
        "E n and E|n|",
    ),
    "law without its last atom": Plant(
        method.thm_5_1_noise,
        method,
        "gaps_by_law",
        lambda right: lambda rates, law, start: right(rates, law[:-1], start),
        "two routes",
    ),
    "κ_1 doubled": Plant(
        method.thm_5_1_kappas, bounds, "stages", returning(_larger_kappa), "κ_1, κ_2"
    ),
    "steps twice as long": Plant(
        method.thm_5_1_kappas,
        method,
        "gradient_descent",
        lambda right: lambda rates, *rest: right([2 * rate for rate in rates], *rest),
        "f(x_t) > ½",
    ),
    "classical bound halved": Plant(
        method.discrete_needs_new_proofs,
        method,
        "classical",
        returning(lambda b: b / 2),
        "over the bound",
    ),
    "worst cases too large": Plant(
        method.discrete_needs_new_proofs,
        method,
        "noise_tree_worst_case",
        lambda right: (
            lambda rates, um, **given: noise_tree_worst_case(
                rates, um, **(given | {"noise": 2 * given["noise"]})
            )
        ),
        "exact worst cases over the bound",
    ),
    "floor without the factor ½": Plant(
        method.constant_rate_floor, method, "floor", returning(lambda x: 2 * x), "no noise: 50 gaps"
    ),
    "floor without the noise": Plant(
        method.constant_rate_floor,
        method,
        "floor",
        lambda right: lambda rate, δ: right(rate, 0),
        "distance from the floor",
    ),
    "travel without the first two windows": Plant(
        reach.autodrop_is_covered,
        reach,
        "travel",
        lambda right: lambda α, k, ρ: k * α * (11 + 11 * ρ / (1 - ρ)),
        "Σα_t of the rule",
    ),
    "pseudo-code with a shorter buffer": Plant(
        reach.autodrop_is_covered,
        algorithm1,
        "drops",
        lambda right: lambda angles: right(angles, buffer=9),
        "pseudo-code",
    ),
    "Theorem C a little lower": Plant(
        reach.autodrop_is_covered,
        multipliers,
        "last_iterate",
        returning(lambda b: 0.999 * b),
        "Theorem C for the last iterate",
    ),
    "(31) a hundred times larger": Plant(
        reach.nqm_not_covered, bounds, "printed_31", returning(lambda b: 100 * b), "min F over (31)"
    ),
    "contraction not squared": Plant(
        reach.nqm_not_covered,
        reach,
        "quadratic_gaps",
        lambda right: (
            lambda a, rates, square: [
                gap / (1 + t) for t, gap in enumerate(right(a, rates, square))
            ]
        ),
        "`theory.moments`",
    ),
    "risks of the recursion doubled": Plant(
        reach.nqm_not_covered,
        moments,
        "evolve",
        returning(lambda found: replace(found, risk=2 * found.risk)),
        "`theory.moments`",
    ),
    "Theorem A halved": Plant(
        reach.bounds_on_data, bounds, "unified", returning(lambda b: b / 2), "largest evidence"
    ),
    "Theorem C divided by twenty": Plant(
        reach.bounds_on_data,
        multipliers,
        "last_iterate",
        returning(lambda b: b / 20),
        "largest evidence",
    ),
    "law on another lattice": Plant(
        reach.bounds_on_data,
        reach,
        "gaps_on_lattice",
        lambda right: lambda step, law, units, T: right(step, law, units + 1, T),
        "exact law",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant.owner, plant.name, plant.make(getattr(plant.owner, plant.name)))
    outcome = plant.check(Context())
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(plant.fact in fact.name for fact in outcome.failed)


def test_weights_of_theorem_a_add_up_to_its_denominator() -> None:
    # Heavy ball: q = β/(1−β), r = 1, so W_0 = η_0 − qη_1 and e = qη_1 − η_0.
    schedule = StepwiseSchedule([0.2, 0.1], [5, 7])
    W = reach.weights_of_theorem_a(UnifiedMomentum.heavy_ball(0.9), schedule)
    η = np.asarray(schedule) / 0.1
    assert W[0] == 0
    assert W.sum() == pytest.approx(η.sum() + 9 * η[1] - η[0], rel=1e-13)  # rounding


def test_logged_schedule_has_the_rates_of_the_rule() -> None:
    problem = reach.problem_of("|x|, noise N(0, 1)", np.random.default_rng(3))
    for um in (UnifiedMomentum.nesterov(0.5), TorchMomentum(0.9)):
        schedule = reach.logged_schedule(problem, um, 0.01, 200, np.random.default_rng(4))
        assert len(schedule) == 200
        ratios = np.divide(schedule.rates[1:], schedule.rates[:-1])
        assert len(ratios) >= 3
        np.testing.assert_allclose(ratios, 0.95, rtol=4 * np.finfo(float).eps)


@pytest.mark.parametrize("name", reach.SCHEDULES)
def test_schedules_have_their_length_and_scale(name: str) -> None:
    rng = np.random.default_rng(5)
    problem = reach.problem_of("|x|, noise ±1", rng)
    rates = np.asarray(reach.schedule_of(name, problem, UnifiedMomentum.sgd(), 150, rng))
    assert len(rates) == 150
    if name != "logged AutoDrop":
        assert rates @ rates == pytest.approx(0.5, rel=1e-12)  # R²/(G² + δ²); rounding
    if name != "constant":
        assert rates[-1] < rates[0]
