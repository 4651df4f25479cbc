"""Section 5.2 and 12.1, model and Algorithm 2: every verdict, and mistakes that take it away."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy as sp

from paper_checks.claim import Check, Context, Verdict
from paper_checks.claims import section5_2_model as model
from paper_checks.claims import section12_1_algorithm2 as proof
from paper_checks.outcome import execute
from tests.paper_checks.plants import Plant, returning
from theory import StepwiseSchedule, saturation, velocity_model
from theory.velocity_model import Gaps, VelocityModel

EXPECTED = {
    model.eq_12_model: Verdict.HOLDS,
    model.eq_12_fits: Verdict.REFUTED,
    model.eq_12_restart: Verdict.REFUTED,
    model.alg2_senses: Verdict.REFUTED,
    model.alg2_counter: Verdict.CORRECTED,
    proof.eq_12_derivative: Verdict.HOLDS,
    proof.eq_37: Verdict.HOLDS,
    proof.eq_38: Verdict.CORRECTED,
    proof.lemma_12_1: Verdict.CORRECTED,
    proof.thm_5_2_schedule: Verdict.REFUTED,
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
    return lambda self, rate, time, **options: right(self, rate, time + 1, **options)


PLANTS = {
    "model without its factor 1 + εα": Plant(
        model.eq_12_model,
        VelocityModel,
        "angle",
        lambda right: (
            lambda self, rate, time, *, pi=np.pi: (
                pi * self.curvature * rate * time / (2 * (1 + self.curvature * rate * time))
            )
        ),
        "as printed",
    ),
    "level of 2εα": Plant(
        model.eq_12_model,
        VelocityModel,
        "level",
        lambda right: lambda self, rate, *, pi=np.pi: pi * (1 + 2 * self.asymptote * rate) / 2,
        "every level in",
    ),
    "share reached at p/(γα)": Plant(
        model.eq_12_model,
        VelocityModel,
        "time_to_share",
        lambda right: lambda self, rate, share: share / (self.curvature * rate),
        "the share p",
    ),
    "model that starts one iteration late": Plant(
        model.eq_12_model, VelocityModel, "angle", _later, "v_α(0)"
    ),
    "a hull of the wrong factor": Plant(
        model.eq_12_fits,
        model,
        "concave_distance",
        returning(lambda hull: hull._replace(distance=hull.distance * 4)),
        "worst misfit of the fits",
    ),
    "no gap to the hull": Plant(
        model.eq_12_fits,
        model,
        "concave_distance",
        returning(lambda hull: hull._replace(distance=0.0)),
        "one curvature: degrees",
    ),
    "one curvature that starts near its law": Plant(
        model.eq_12_fits,
        model,
        "chord_gap",
        returning(lambda gap: gap / 2),
        "mean angle of a simulation",
    ),
    "transient of half the time": Plant(
        model.eq_12_fits,
        saturation,
        "transient_step_moments",
        lambda right: lambda problem, rate, time: right(problem, rate, time // 2),
        "moment recursion = closed form",
    ),
    "powers exchanged": Plant(
        model.eq_12_fits,
        model,
        "approach_slopes",
        lambda right: lambda flat, times: right("a" if flat != "a" else "a²x_0²", times),
        "distance to the level",
    ),
    "integral with t for 2t": Plant(
        model.eq_12_fits,
        model,
        "beta_integrals",
        lambda right: lambda time: (Fraction(1, time + 1), right(time)[1]),
        "∫",
    ),
    "1 − ρ for 1 − 2ρ": Plant(
        model.eq_12_restart,
        saturation,
        "inner_product_after_drop",
        lambda right: (
            lambda problem, rate, factor: (
                right(problem, rate, factor) * (1 - factor) / (1 - 2 * factor + (factor == 0.5))
            )
        ),
        "E⟨s, s'⟩ after the drop",
    ),
    "an angle that does restart at 0": Plant(
        model.eq_12_restart,
        model,
        "angles_after_drop",
        returning(lambda y: y - y.min()),
        "lowest angle",
    ),
    "stage left at twice the time": Plant(
        model.alg2_senses,
        VelocityModel,
        "gap",
        returning(lambda k: 2 * k),
        "share of the level at v' = γα/2",
    ),
    "loop that leaves at the plateau": Plant(
        model.alg2_senses,
        velocity_model,
        "algorithm_2",
        returning(lambda s: StepwiseSchedule(s.rates, [50 * k for k in s.lengths])),
        "loop: the same",
    ),
    "counter repaired in `theory`": Plant(
        model.alg2_counter,
        velocity_model,
        "algorithm_2",
        returning(lambda s: StepwiseSchedule(s.rates, (max(s.lengths[0] - 1, 1), *s.lengths[1:]))),
        "`theory` = the pseudo-code",
    ),
    "gaps rounded down": Plant(
        model.alg2_counter,
        velocity_model,
        "gaps",
        returning(lambda k: Gaps(k.real, tuple(max(x - 1, 1) for x in k.rounded))),
        "⌈closed form⌉",
    ),
    "written-out loop that counts first": Plant(
        model.alg2_counter,
        model,
        "transcribed",
        lambda right: lambda rates, test, count_first=True: right(rates, test, count_first=True),
        "T = Σ k_i + 1",
    ),
    "derivative without its square": Plant(
        proof.eq_12_derivative,
        proof,
        "printed_derivative",
        lambda right: (
            lambda e, g, a, time, pi: pi * (1 + e * a) / (2 * g * a * (time + 1 / (g * a)))
        ),
        "difference quotients",
    ),
    "derivative of twice the level": Plant(
        proof.eq_12_derivative,
        VelocityModel,
        "derivative",
        returning(lambda x: 2 * x),
        "`theory` − the printed",
    ),
    "gap with + 1/(γα)": Plant(
        proof.eq_12_derivative,
        VelocityModel,
        "gap",
        lambda right: (
            lambda self, rate, threshold, *, pi=np.pi: (
                right(self, rate, threshold, pi=pi) + 2 / (self.curvature * rate)
            )
        ),
        "`theory`'s k",
    ),
    "lower constant of √(4π/3)": Plant(
        proof.eq_37,
        velocity_model,
        "printed_gap_constants",
        returning(lambda κ: κ._replace(lower=float(sp.sqrt(4 * sp.pi / 3) - 1))),
        "real k_i",
    ),
    "gaps an iteration short": Plant(
        proof.eq_37,
        velocity_model,
        "gaps",
        returning(lambda k: Gaps(k.real, tuple(x - 1 for x in k.rounded))),
        "rounded up",
    ),
    "corrected κ_2 without what rounding adds": Plant(
        proof.eq_38,
        velocity_model,
        "gap_constants",
        lambda right: (
            lambda rates, *args, **options: (
                lambda κ: κ._replace(upper=κ.upper - float(max(rates)))
            )(right(rates, *args, **options))
        ),
        "corrected κ_2",
    ),
    "gaps that double": Plant(
        proof.eq_38,
        velocity_model,
        "gaps",
        returning(lambda k: Gaps(k.real, tuple(2 * x for x in k.rounded))),
        "τ_0 ≤ 1/2",
    ),
    "loop of twice the length": Plant(
        proof.eq_38,
        velocity_model,
        "algorithm_2",
        returning(lambda s: StepwiseSchedule(s.rates, [2 * k for k in s.lengths])),
        "for the k_0 + 1 updates",
    ),
    "κn(n + 1)/2": Plant(
        proof.lemma_12_1, proof, "total", lambda right: lambda κ, n: κ * n * (n + 1) / 2, "Σ_{i<n}"
    ),
    "rates 1/(i + 1)": Plant(
        proof.lemma_12_1,
        velocity_model,
        "proved_rates",
        lambda right: lambda n: tuple(Fraction(1, i + 1) for i in range(n)),
        "(35)",
    ),
    "stated rates that are the proved": Plant(
        proof.thm_5_2_schedule,
        velocity_model,
        "stated_rates",
        lambda right: lambda n: tuple(map(float, velocity_model.proved_rates(n))),
        "which should be ≤ 1",
    ),
    "least κ that stays": Plant(
        proof.thm_5_2_schedule,
        proof,
        "least_kappa",
        lambda right: lambda n: [1.0] * (n - 1),
        "needed at n stages",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_planted_mistake_turns_the_check_red(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant.owner, plant.name, plant.make(getattr(plant.owner, plant.name)))
    outcome = plant.check(Context())
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(plant.fact in fact.name for fact in outcome.failed), outcome.reason


def test_every_claim_has_a_planted_mistake() -> None:
    assert {plant.check for plant in PLANTS.values()} == set(EXPECTED)


def test_distance_to_the_concave_sequences() -> None:
    """A notch of depth 2 below a chord is 1 away from concave, and its witness says the same."""
    y = np.array([0.0, 1.0, 2.0, 1.0, 4.0, 4.5])
    witness = (0, 3, 4)
    assert model.concave_distance(y) == model.Hull(1.0, witness)
    assert model.chord_gap(y, witness) == 1.0
    assert model.concave_distance(np.sqrt(np.arange(50.0))).distance == 0.0
