"""Sections 12 and 5.4: every verdict, and mistakes in the bounds that take it away.

Exact worst cases and simulations are computed once and remembered: no mistake below is made there.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import wraps
from typing import Any

import numpy as np
import pytest
import sympy

from paper_checks import symbolic
from paper_checks.claim import Check, Context, Verdict
from paper_checks.claims import section5_4_sharper as sharper
from paper_checks.claims import section12_0_proof as proof
from paper_checks.claims import section12_3_rates as rates_claims
from paper_checks.outcome import execute
from tests.paper_checks.plants import Plant, returning
from theory import StepwiseSchedule, UnifiedMomentum, bounds, designs, multipliers, simulate_convex
from theory.potential import potential

EXPECTED = {
    proof.eq_24_25: Verdict.HOLDS,
    proof.step_before_31: Verdict.REFUTED,
    proof.eq_31: Verdict.HOLDS,
    proof.eq_32_34: Verdict.CORRECTED,
    rates_claims.eq_40: Verdict.CORRECTED,
    rates_claims.thm_5_1_rate: Verdict.CORRECTED,
    rates_claims.thm_5_2_stated: Verdict.REFUTED,
    rates_claims.thm_5_2_proved: Verdict.CORRECTED,
    sharper.theorem_a: Verdict.HOLDS,
    sharper.theorem_b: Verdict.HOLDS,
    sharper.theorem_c: Verdict.HOLDS,
    sharper.drops_for_the_best_iterate: Verdict.REFUTED,
}


@dataclass(frozen=True)
class Few(Context):
    """One in `share` of the quick level's cases, and the first of its sizes."""

    share: int = 3

    def pick(self, quick: Any, full: Any) -> Any:
        if isinstance(quick, tuple):
            return quick[:1]
        return quick // self.share if type(quick) is int and quick > 6 else quick


CONTEXTS = {  # fewer cases where there are many exact worst cases, or 30 000 steps
    rates_claims.thm_5_2_stated: Few(seed=1, share=2),
    sharper.theorem_a: Few(seed=1, share=5),
    sharper.theorem_b: Few(seed=1),
    sharper.theorem_c: Few(seed=1),
    sharper.drops_for_the_best_iterate: Few(seed=1),
}


def context_of(check: Check) -> Context:
    """Another seed than the report's."""
    return CONTEXTS.get(check, Context(seed=1))


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    values: dict[str, Any] = {}

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        listed = [a.tolist() if isinstance(a, np.ndarray) else a for a in args]
        key = repr((listed, sorted(options.items())))
        if key not in values:
            values[key] = function(*args, **options)
        return values[key]

    return call


@pytest.fixture(scope="module", autouse=True)
def expensive_values_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("worst_case", "noise_tree_worst_case", "coordinate_witness", "witness"):
            once: Callable[..., Any] | None = None
            for module in (proof, rates_claims, sharper):
                if hasattr(module, name):
                    once = once or remembered(getattr(module, name))
                    patch.setattr(module, name, once)
        patch.setattr(simulate_convex, "run", remembered(simulate_convex.run))
        yield


@pytest.mark.parametrize("check", EXPECTED, ids=lambda check: check.__name__)
def test_verdict_at_another_seed(check: Check) -> None:
    outcome = check(context_of(check))
    assert outcome.failed == ()
    assert outcome.verdict is EXPECTED[check]
    assert outcome.counterexample is not None or outcome.verdict is not Verdict.REFUTED
    if outcome.counterexample is not None:
        assert len(outcome.counterexample.splitlines()) < 10
        execute(outcome.counterexample)


def given(**wrong: Any) -> Callable[[Any], Any]:
    """A maker that passes these keyword arguments, whatever the caller passes."""
    return lambda right: lambda *args, **kwargs: right(*args, **{**kwargs, **wrong})


def form_for(asked: str, answered: str) -> Callable[[Any], Any]:
    """A maker of a bound that answers with another of its forms."""

    def make(right: Any) -> Any:
        def bound(*args: Any, form: str = "unified", **options: Any) -> Any:
            return right(*args, form=answered if form == asked else form, **options)

        return bound

    return make


def _without_momentum_factor(right: Any) -> Any:
    """2sβ + 1 → 1."""
    return lambda rates, method, **options: right(
        rates, UnifiedMomentum(method.momentum, 0.0), **options
    )


def _repaired_with_first_powers(right: Any) -> Any:
    """α_t² → α_t."""

    def repaired(rates: Any, method: UnifiedMomentum, **options: Any) -> float:
        α = np.asarray(rates, float)
        V = options["subgradient"] ** 2 + options.get("noise", 0.0) ** 2
        excess = V * float(np.sum(α - α**2)) / (2 * (1 - method.momentum) * α.sum())
        return float(right(rates, method, **options)) + excess

    return repaired


def _summed_by_parts_with_the_other_sign(right: Any) -> Any:
    """Σ(α_t + α_{t+1})F_t in place of Σ(α_t − α_{t+1})F_t: F_0(α_1 + 2Σ_{t≥2}α_t)."""

    def repaired(rates: Any, method: UnifiedMomentum, **options: Any) -> float:
        α, β = np.asarray(rates, float), method.momentum
        lost = 2 * β / (1 - β) * options["distance"] * options["subgradient"] * α[2:].sum()
        return float(right(rates, method, **options) + lost / α.sum())

    return repaired


def _at_the_rates_themselves(right: Any) -> Any:
    """η_t = α_t, without the 1/(1 − β)."""
    return lambda rates, method, **options: right(
        [rate * (1 - method.momentum) for rate in rates], method, **options
    )


def _without_squares(right: Any) -> Any:
    """½Ση_t² lost, for SGD."""
    return lambda rates, method, **options: (
        right(rates, method, **options) - float(np.sum(np.square(rates)) / np.sum(rates)) / 2
    )


def _with_first_weight_exchanged(right: Any) -> Any:
    """e = max(0, −W_0) with W_0 = η_0 − r Σ_{τ≥1} η_τ(1−q)^{τ−1}: q and r exchanged; R = G = 1."""

    def unified(
        rates: Any, method: UnifiedMomentum, *, noise: float = 0.0, **options: Any
    ) -> float:
        form = potential(method, [float(rate) for rate in rates])
        η, q = np.array(form.steps, float), form.extrapolation[-1]
        e = max(0.0, form.r * float(np.sum(η[1:] * (1 - q) ** np.arange(len(η) - 1))) - η[0])
        return float((0.5 + e + (1 + noise**2) * np.sum(η**2) / 2) / (η.sum() + e))

    return unified


def _with_potential_exchanged(right: Any) -> Any:
    """q ↔ r in `theory.potential`, for Theorem B only: `unified` would see a negative weight."""

    def exchanged(*args: Any) -> Any:
        form = potential(*args)
        q = (0, *(form.r for _ in form.extrapolation[1:]))
        return replace(form, extrapolation=q, r=form.extrapolation[-1])

    def theorem_b(*args: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bounds, "potential", exchanged)
            return right(*args, **options)

    return theorem_b


def _no_extrapolation(right: Any) -> Any:
    """θ = 0: Cauchy–Schwarz for all of z_t − x_t; R = G = 1."""

    def theorem_b(rates: Any, method: Any, **options: Any) -> float:
        form = potential(method, rates)
        η, κ = np.array(form.steps), np.array(form.kernel)
        return float((0.5 + 0.5 * np.sum(η**2) + np.sum(η * κ)) / np.sum(η))

    return theorem_b


def _any_growth(right: Any) -> Any:
    """The hypothesis of Theorem C taken for granted: every ζ_j, and ζ_0 too, is large enough."""
    return lambda form, v: (np.ones(v.shape[1], dtype=bool), np.full(v.shape[1], -np.inf))


PLANTS = {
    "momentum term twice": Plant(
        proof.eq_24_25,
        symbolic,
        "induction_step",
        lambda right: lambda factor=1: right(factor=2),
        "(25): one step",
    ),
    "a control that changes nothing": Plant(
        proof.eq_24_25,
        symbolic,
        "induction_step",
        lambda right: lambda factor=1: right(),
        "a doubled momentum term",
    ),
    "noise of mean −½": Plant(
        proof.step_before_31,
        proof,
        "product",
        lambda right: lambda values, repeat: right((-1, 0), repeat=repeat),
        "E f along two-point noise",
    ),
    "rates that increase": Plant(
        proof.step_before_31,
        proof,
        "sorted",
        lambda right: lambda values, reverse: right(values),
        "≤ α_1F_0",
    ),
    "(31) without 2sβ + 1": Plant(
        proof.eq_31, bounds, "printed_31", _without_momentum_factor, "(31) / repaired bound"
    ),
    "(31) without F_0": Plant(
        proof.eq_31, bounds, "printed_31", given(gap=0.0), "(31) / repaired bound"
    ),
    "(31) of half the size": Plant(
        proof.eq_31,
        bounds,
        "printed_31",
        returning(lambda bound: bound / 2),
        "SGD: exact worst case ≤ (31)",
    ),
    "(31) without noise": Plant(
        proof.eq_31, bounds, "printed_31", given(noise=0.0), "worst two-point noise"
    ),
    "repaired bound with α_t for α_t²": Plant(
        proof.eq_31, bounds, "repaired", _repaired_with_first_powers, "(31) / repaired bound"
    ),
    "summation by parts with the other sign": Plant(
        proof.eq_31,
        bounds,
        "repaired",
        _summed_by_parts_with_the_other_sign,
        "(31) / repaired bound",
    ),
    "sums that start at i = 1": Plant(
        proof.eq_32_34, np, "cumsum", returning(lambda sums: sums - 1), "(34) at n = 1"
    ),
    "twice Euler's constant": Plant(
        proof.eq_32_34, sympy, "limit", returning(lambda value: 2 * value), "lim (H_n − log n)"
    ),
    "(40) with the corrected logarithms": Plant(
        rates_claims.eq_40,
        bounds,
        "theorem_5_1",
        form_for("printed", "corrected"),
        "exact worst case / (40)",
    ),
    "corrected form with the printed logarithms": Plant(
        rates_claims.eq_40,
        bounds,
        "theorem_5_1",
        form_for("corrected", "printed"),
        "exact ≤ corrected form",
    ),
    "a witness of half its value": Plant(
        rates_claims.eq_40,
        rates_claims,
        "witness",
        given(subgradient=Fraction(1, 2)),
        "an explicit function in rationals",
    ),
    "Theorem A's form with 2sβ + 1": Plant(
        rates_claims.thm_5_1_rate,
        bounds,
        "theorem_5_1",
        form_for("unified", "corrected"),
        "unified: n/(1 + log n)",
    ),
    "a bound that falls like 1/√n": Plant(
        rates_claims.thm_5_1_rate,
        bounds,
        "theorem_5_1",
        lambda right: (
            lambda schedule, *args, **options: (
                right(schedule, *args, **options) * math.sqrt(len(schedule.rates))
            )
        ),
        "corrected: n/(1 + log n)",
    ),
    "a bound that falls like 1/n²": Plant(
        rates_claims.thm_5_1_rate,
        bounds,
        "theorem_5_1",
        lambda right: (
            lambda schedule, *args, **options: (
                right(schedule, *args, **options) / len(schedule.rates)
            )
        ),
        "simulated min F",
    ),
    "hypotheses that never fail": Plant(
        rates_claims.thm_5_2_stated,
        bounds,
        "stages",
        returning(lambda found: replace(found, failures=())),
        "(10) fails",
    ),
    "sums over a stage for means": Plant(
        rates_claims.thm_5_2_stated,
        rates_claims,
        "_stage_means",
        lambda right: lambda mean, schedule: right(mean, schedule) * schedule.lengths,
        "stated: slope",
    ),
    "gaps of half the size": Plant(
        rates_claims.thm_5_2_stated,
        simulate_convex,
        "run",
        returning(lambda sample: replace(sample, mean=sample.mean / 2, average=sample.average / 2)),
        "(G^2+δ^2)Σα_t^2",
    ),
    "Theorem 5.2 with n² for n": Plant(
        rates_claims.thm_5_2_proved,
        bounds,
        "theorem_5_2",
        lambda right: (
            lambda schedule, *args, **options: (
                right(schedule, *args, **options) / len(schedule.rates)
            )
        ),
        "simulated min F",
    ),
    "Theorem 5.2 with √n for n": Plant(
        rates_claims.thm_5_2_proved,
        bounds,
        "theorem_5_2",
        lambda right: (
            lambda schedule, *args, **options: (
                right(schedule, *args, **options) * math.sqrt(len(schedule.rates))
            )
        ),
        "does not grow",
    ),
    "Theorem 5.2 of half the size": Plant(
        rates_claims.thm_5_2_proved,
        bounds,
        "theorem_5_2",
        returning(lambda bound: bound / 2),
        "exact worst case ≤ the bound",
    ),
    "q and r exchanged in the identity": Plant(
        sharper.theorem_a,
        symbolic,
        "theorem_a_identity",
        lambda right: lambda T, exchange=False: right(T, exchange=True),
        "Gram identity",
    ),
    "an exchange without effect": Plant(
        sharper.theorem_a,
        symbolic,
        "theorem_a_identity",
        lambda right: lambda T, exchange=False: right(T),
        "with q and r exchanged",
    ),
    "an average of another step": Plant(
        sharper.theorem_a,
        symbolic,
        "induction_step",
        lambda right: lambda factor=1: right(factor=2),
        "x = (1−σ)u + σz",
    ),
    "certificate of twice the distance": Plant(
        sharper.theorem_a,
        sharper,
        "from_theorem_a",
        given(distance=2),
        "proof = witness",
    ),
    "Theorem A without 1 − β": Plant(
        sharper.theorem_a,
        bounds,
        "unified",
        _at_the_rates_themselves,
        "exact worst case / Theorem A at",
    ),
    "q and r exchanged in Theorem A": Plant(
        sharper.theorem_a,
        bounds,
        "unified",
        _with_first_weight_exchanged,
        "exact worst case / Theorem A at",
    ),
    "Theorem A without noise": Plant(
        sharper.theorem_a, bounds, "unified", given(noise=0.0), "two-point noise"
    ),
    "Theorem A with 2 % to spare": Plant(
        sharper.theorem_a,
        bounds,
        "unified",
        returning(lambda bound: 1.02 * bound),
        "exact worst case / Theorem A at",
    ),
    "Theorem B without Cauchy–Schwarz": Plant(
        sharper.theorem_b,
        bounds,
        "potential",
        returning(lambda form: replace(form, kernel=(0.0,) * len(form.kernel))),
        "T = 16: Theorem B 0.25891",
    ),
    "q and r exchanged in Theorem B": Plant(
        sharper.theorem_b,
        bounds,
        "theorem_b",
        _with_potential_exchanged,
        "linear programme ≤ closed form",
    ),
    "Theorem B with θ = 0": Plant(
        sharper.theorem_b, bounds, "theorem_b", _no_extrapolation, "linear programme ≤ closed form"
    ),
    "Theorem B of 1 % more": Plant(
        sharper.theorem_b,
        bounds,
        "theorem_b",
        returning(lambda bound: 1.01 * bound),
        "T = 16: Theorem B 0.25891",
    ),
    "D of the other sign": Plant(
        sharper.theorem_c,
        symbolic,
        "theorem_c_identity",
        lambda right: lambda N, swap_parts=False: right(N, swap_parts=True),
        "identity at N",
    ),
    "a sign without effect": Plant(
        sharper.theorem_c,
        symbolic,
        "theorem_c_identity",
        lambda right: lambda N, swap_parts=False: right(N),
        "with the other sign of D",
    ),
    "the hypothesis of Theorem C ignored": Plant(
        sharper.theorem_c,
        multipliers,
        "_signs",
        _any_growth,
        "momentum: exact worst case / Theorem C",
    ),
    "Theorem C lowered by 1 %": Plant(
        sharper.theorem_c,
        multipliers,
        "last_iterate",
        returning(lambda bound: 0.99 * bound),
        "momentum: exact worst case / Theorem C",
    ),
    "Theorem C raised by 1 %": Plant(
        sharper.theorem_c,
        multipliers,
        "last_iterate",
        returning(lambda bound: 1.01 * bound),
        "share of cases",
    ),
    "Theorem C without noise": Plant(
        sharper.theorem_c, multipliers, "last_iterate", given(noise=0.0), "SGD with noise"
    ),
    "linear decay that ends at 0": Plant(
        sharper.theorem_c,
        multipliers,
        "last_iterate_rates",
        returning(lambda rates: rates - rates[-1] / 2),
        "linear decay corrected",
    ),
    "Theorem A without its squares": Plant(
        sharper.drops_for_the_best_iterate,
        bounds,
        "unified",
        _without_squares,
        "Theorem A of a schedule",
    ),
    "best gaps that are equal": Plant(
        sharper.drops_for_the_best_iterate,
        designs,
        "best_gaps",
        lambda right: (
            lambda rates, T, *args, **options: StepwiseSchedule(
                rates, [T // len(rates)] * len(rates)
            )
        ),
        "last iterate: linear decay",
    ),
    "best gaps in the reverse order": Plant(
        sharper.drops_for_the_best_iterate,
        designs,
        "best_gaps",
        returning(lambda found: StepwiseSchedule(found.rates, found.lengths[::-1])),
        "exact worst case of the best gaps",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_planted_mistake_turns_the_check_red(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(plant.owner, plant.name, None) or getattr(builtins, plant.name)
    monkeypatch.setattr(plant.owner, plant.name, plant.make(right), raising=False)
    outcome = plant.check(context_of(plant.check))
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(plant.fact in fact.name for fact in outcome.failed), outcome.reason


def test_every_claim_has_a_planted_mistake() -> None:
    assert {plant.check for plant in PLANTS.values()} == set(EXPECTED)
