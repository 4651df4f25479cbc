"""Sections 1, 4 and 8: every check gives its verdict, and a planted mistake takes it away."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from autodrop import algorithm
from autodrop.detectors import GaussianSaturation
from paper_checks import algorithm1
from paper_checks.claim import Check, Context, Verdict
from paper_checks.claims import (
    section1,
    section4_1_printed,
    section4_2_behaviour,
    section4_3_ablation,
    section8,
)
from paper_checks.outcome import execute
from tests.paper_checks.plants import Plant, returning
from theory import moments, saturation

EXPECTED = {
    section1.eq_2_operator: Verdict.HOLDS,
    section1.eq_2_epsilon: Verdict.REFUTED,
    section1.eq_2_float32: Verdict.REFUTED,
    section4_1_printed.alg1_positions: Verdict.REFUTED,
    section4_1_printed.alg1_smoothing: Verdict.REFUTED,
    section4_1_printed.alg1_sigma: Verdict.CORRECTED,
    section4_1_printed.alg1_undefined: Verdict.CORRECTED,
    section4_2_behaviour.alg1_one_sided: Verdict.REFUTED,
    section4_2_behaviour.alg1_senses_saturation: Verdict.REFUTED,
    section4_2_behaviour.alg1_drop_count: Verdict.HOLDS,
    section4_3_ablation.ablation_size: Verdict.REFUTED,
    section8.sec8_derivative: Verdict.HOLDS,
    section8.sec8_sign: Verdict.CORRECTED,
    section8.sec8_loss_stops: Verdict.REFUTED,
    section8.sec8_less_oscillation: Verdict.CORRECTED,
}


@pytest.mark.parametrize("check", EXPECTED, ids=lambda check: check.__name__)
def test_verdict_at_another_seed(check: Check) -> None:
    outcome = check(Context(seed=1))
    assert outcome.failed == ()
    assert outcome.verdict is EXPECTED[check]
    if outcome.counterexample is not None:
        execute(outcome.counterexample)


def _between_positions(right: Any) -> Any:
    def close(self: Any, y: Any, t: int) -> np.ndarray:
        known = self.known.copy()
        position = self.previous.copy()
        ω = right(self, y, t)
        ready = known == 2
        ω[ready] = algorithm.angle_between(y[ready], position[ready])
        return ω

    return close


def _sums_the_last(right: Any) -> Any:
    return lambda self, angles: angles[-1]


def _half_emptied(right: Any) -> Any:
    # A drop leaves the five youngest angles in the buffer.
    def update(self: Any, state: Any, angle: float) -> Any:
        after, saturated = right(self, state, angle)
        if saturated:
            after = type(state)((*state.angles, angle)[5:])
        return after, saturated

    return update


def _never(right: Any) -> Any:
    return lambda self, state, angle: (right(self, state, angle)[0], False)


PLANTS = {
    "angle without its factor 2": Plant(
        section1.eq_2_operator, section1, "angle_between", returning(lambda ω: ω / 2), "2·atan2"
    ),
    "planar angle of the wrong side": Plant(
        section1.eq_2_operator, section1, "planar_angle", returning(lambda ω: math.pi - ω), "planar"
    ),
    "exact cosine squared": Plant(
        section1.eq_2_operator,
        section1,
        "exact_angle",
        returning(lambda ω: math.acos(math.cos(ω) ** 2)),
        "planar atan2 = exact",
    ),
    "ε added to each norm": Plant(
        section1.eq_2_epsilon,
        section1,
        "damped_cosine",
        lambda right: lambda c, N, ε: c * N / (N + 2 * ε),
        "read 60°",
    ),
    "ε forgotten": Plant(
        section1.eq_2_epsilon,
        section1,
        "printed_angle",
        lambda right: lambda u, v, epsilon=0.0: right(u, v),
        "float64 = exact",
    ),
    "angle_between by float32 arccos": Plant(
        section1.eq_2_float32,
        section1,
        "angle_between",
        lambda right: lambda u, v: np.radians(section1.printed_angle(u, v).astype(float)),
        "2·atan2 in float64",
    ),
    "printed angle in float64": Plant(
        section1.eq_2_float32,
        section1,
        "printed_angle",
        lambda right: lambda u, v: right(u.astype(float), v.astype(float)),
        "every positive reading of numpy",
    ),
    "autodrop measures positions": Plant(
        section4_1_printed.alg1_positions,
        algorithm._Windows,
        "close",
        _between_positions,
        "the origin does not matter",
    ),
    "positions are steps": Plant(
        section4_1_printed.alg1_positions,
        section4_1_printed,
        "position_angles",
        lambda right: section4_1_printed.step_angles,
        "the printed angle moves",
    ),
    "autodrop sums x_t": Plant(
        section4_1_printed.alg1_smoothing,
        GaussianSaturation,
        "smooth",
        _sums_the_last,
        "`autodrop`, smoothing over time",
    ),
    "printed formula sums x_{t+i}": Plant(
        section4_1_printed.alg1_smoothing,
        algorithm1,
        "gaussian_as_printed",
        lambda right: lambda x, t, σ, exp=math.exp: sum(x) / len(x),
        "the printed y_t is x_t",
    ),
    "printed kernel falls": Plant(
        section4_1_printed.alg1_smoothing,
        algorithm1,
        "kernel",
        lambda right: lambda x, y, σ, exp=math.exp, sign=1: right(x, y, σ, exp, -sign),
        "the printed kernel grows",
    ),
    "width without its bound": Plant(
        section4_1_printed.alg1_sigma,
        algorithm1,
        "width",
        lambda right: lambda B, unit=1.0: float(np.std(B)) * unit,
        "the formula in floating point",
    ),
    "width blind to the unit": Plant(
        section4_1_printed.alg1_sigma,
        algorithm1,
        "width",
        lambda right: lambda B, unit=1.0: right(B),
        "drops with σ in radians",
    ),
    "completion that keeps nothing": Plant(
        section4_1_printed.alg1_undefined,
        section4_1_printed.KeepsSmoothed,
        "update",
        lambda right: GaussianSaturation.update,
        "C_{i−1} kept",
    ),
    "buffer half emptied": Plant(
        section4_1_printed.alg1_undefined,
        GaussianSaturation,
        "update",
        _half_emptied,
        "shortest wait between drops, two C",
    ),
    "one-sided test made absolute": Plant(
        section4_2_behaviour.alg1_one_sided,
        algorithm1,
        "drops",
        lambda right: lambda angles, **options: right(angles, **(options | {"absolute": True})),
        "pseudo-code: the same drops",
    ),
    "a detector that never fires": Plant(
        section4_2_behaviour.alg1_drop_count,
        GaussianSaturation,
        "update",
        _never,
        "both rules drop",
    ),
    "gain of the mean instead of its change": Plant(
        section4_2_behaviour.alg1_senses_saturation,
        section4_2_behaviour,
        "change_gain",
        lambda right: lambda: 1 / math.sqrt(10),
        "chance at the first window",
    ),
    "one window too few in the bound": Plant(
        section4_2_behaviour.alg1_drop_count,
        section4_2_behaviour,
        "most_drops",
        lambda right: lambda t, k=1, m=10: right(t - 1, k, m),
        "drops so far ≤ bound",
    ),
    "bound of 10 windows": Plant(
        section4_2_behaviour.alg1_drop_count,
        section4_2_behaviour,
        "most_drops",
        lambda right: lambda t, k=1, m=10: right(t, k, m - 1),
        "attains the bound",
    ),
    "points are relative": Plant(
        section4_3_ablation.ablation_size,
        section4_3_ablation,
        "points",
        lambda right: section4_3_ablation.relative,
        "points",
    ),
    "relative to the new error": Plant(
        section4_3_ablation.ablation_size,
        section4_3_ablation,
        "relative",
        lambda right: lambda error, default: 100 * (1 - Fraction(default) / Fraction(error)),
        "relative",
    ),
    "derivative of the wrong sign": Plant(
        section8.sec8_derivative, section8, "hypergradient", returning(lambda x: -x), "all cubics"
    ),
    "derivative without its factor": Plant(
        section8.sec8_derivative,
        section8,
        "rate_derivative",
        returning(lambda x: x / 2),
        "plain SGD",
    ),
    "sign of I* lost": Plant(
        section8.sec8_sign, saturation, "inner_product_limit", returning(lambda x: -x), "SGD: E"
    ),
    "2 − αa became 2 + αa": Plant(
        section8.sec8_sign,
        section8,
        "gradient_product",
        lambda right: lambda h, β: right(-h, β) * -1,
        "three routes",
    ),
    "momentum's sign change misplaced": Plant(
        section8.sec8_sign,
        section8,
        "gradient_sign_change",
        lambda right: lambda β: (2 * β - 1) / β,
        "gradients change sign",
    ),
    "window law of shifted windows": Plant(
        section8.sec8_sign,
        saturation,
        "window_cosine",
        lambda right: lambda h, k: right(h, k + 1),
        "window law = moment recursion",
    ),
    "transient with half its rate": Plant(
        section8.sec8_loss_stops,
        saturation,
        "transient_step_moments",
        lambda right: lambda problem, α, t: right(problem, α, t // 2),
        "angle: two routes",
    ),
    "a slow mode that is not slow": Plant(
        section8.sec8_loss_stops,
        section8,
        "blind_problem",
        lambda right: lambda: section8.NoisyQuadratic([1.0] * 101, 0.01, 0.1),
        "risk over its limit",
    ),
    "risk twice too large": Plant(
        section8.sec8_less_oscillation,
        section8,
        "stationary_spread",
        returning(lambda found: found | {"risk": tuple(2 * x for x in found["risk"])}),
        "risk: std of the draws",
    ),
    "expected angle of twice the rate": Plant(
        section8.sec8_less_oscillation,
        saturation,
        "expected_angle",
        lambda right: lambda problem, α, **options: right(problem, 1.3 * α, **options),
        "angle: mean of the simulation",
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


def test_a_mistake_in_the_recursion_turns_the_section_red(monkeypatch: pytest.MonkeyPatch) -> None:
    # The noise of the third window enters v with the covariance's sign flipped.
    right = moments._pair_map

    def flipped(*maps: Any) -> Any:
        pair = right(*maps)
        Q = pair.Q.copy()
        Q[:, 0, 1] *= -1
        Q[:, 1, 0] *= -1
        return pair._replace(Q=Q)

    monkeypatch.setattr(moments, "_pair_map", flipped)
    for check in (section8.sec8_sign, section8.sec8_loss_stops):
        assert check(Context()).verdict is Verdict.UNDECIDED


def test_the_tables_are_transcribed_in_full() -> None:
    rows = [row for rows in section4_3_ablation.TABLES.values() for row in rows]
    assert len(rows) == 32
    for rows_of_model in section4_3_ablation.TABLES.values():
        settings = [(row.parameter, row.value) for row in rows_of_model]
        assert settings == [
            *(("m", m) for m in ("5", "20", "30", "50")),
            *(("ρ", ρ) for ρ in ("0.5", "0.8", "0.9", "0.99")),
        ]
        assert all(0 < float(row.deviation) < 1 for row in rows_of_model)


def test_the_rule_written_out_refuses_nothing_and_needs_eleven_angles() -> None:
    assert algorithm1.drops([90.0] * 10) == []
    assert algorithm1.drops([90.0] * 11) == [algorithm1.Drop(10, 0.0)]
    assert [d.at for d in algorithm1.drops([90.0] * 40, buffer=3)] == list(range(3, 40, 4))
