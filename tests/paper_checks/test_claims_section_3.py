"""Each check of Section 3 must notice a wrong formula: negative controls, one planted at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from paper_checks.claim import Context, Outcome, Verdict
from paper_checks.claims import section3_1_theorem as theorem
from paper_checks.claims import section3_2_properties as properties
from paper_checks.claims import section3_3_windows as windows
from theory import NoisyQuadratic, closed_loop, linear, moments, saturation, simulate

Check = Callable[[Context], Outcome]


def plus_for_minus(power: int, factor: int) -> Callable[[NoisyQuadratic, Any], Any]:
    """(4) and (20) with 2 + αa where 2 − αa belongs."""

    def limit(problem: NoisyQuadratic, learning_rate: Any) -> Any:
        a, v, α = problem.curvature, problem.noise_variance, learning_rate
        return factor * α**power * (a**power * v / (2 + α * a)).sum()

    return limit


def scaled(function: Callable[..., Any], factor: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: factor * function(*args, **kwargs)


def shifted(function: Callable[..., Any], by: float) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **kwargs) + by


def flipped_inner(*args: Any, **kwargs: Any) -> moments.Evolution:
    run = _evolve(*args, **kwargs)
    return dataclasses.replace(run, inner=-run.inner)


def other_rate(problem: Any, method: Any, schedule: Any, **kwargs: Any) -> simulate.Ensemble:
    rates = [rate / 2 for rate in schedule.rates]
    return _simulate(problem, method, type(schedule)(rates, schedule.lengths), **kwargs)


def windows_shifted_by_one(*args: Any, **kwargs: Any) -> closed_loop.ClosedLoop:
    loop = _closed_loop(*args, **kwargs)
    return dataclasses.replace(loop, angles=np.roll(loop.angles, -1, axis=1))


_evolve, _simulate, _closed_loop = moments.evolve, simulate.run, closed_loop.run
_pairs = theorem.stationary_pairs

CONTROLS: list[tuple[str, Check, Any, str, Any]] = [
    ("gradient doubled", theorem.nqm, NoisyQuadratic, "gradient",
     lambda self, x, c: 2 * self.curvature * (x - c)),
    ("stationary covariance doubled", theorem.eq_13, linear, "stationary_covariance",
     scaled(linear.stationary_covariance, 2)),
    ("(4): 2 + αa", theorem.eq_4, theorem, "inner_product_limit", plus_for_minus(3, -1)),
    ("(4): sign flipped", theorem.eq_4, theorem, "inner_product_limit",
     scaled(saturation.inner_product_limit, -1)),
    ("(20): factor 2 lost", theorem.eq_20, theorem, "squared_norm_limit",
     lambda p, α: saturation.squared_norm_limit(p, α) / 2),
    ("(20): 2 + αa", theorem.eq_20, theorem, "squared_norm_limit", plus_for_minus(2, 2)),
    ("covariance's sign flipped", theorem.eq_4, moments, "evolve", flipped_inner),
    ("E cos replaced by the ratio", theorem.eq_5, saturation, "expected_cosine",
     lambda problem, rate, tolerance=0.0: saturation.cosine_ratio(problem, rate)),
    ("bound without the ½", theorem.eq_6, saturation, "cosine_ratio",
     scaled(saturation.cosine_ratio, 1.2)),
    ("angle clipped to the claimed range", theorem.range_as_stated, saturation, "expected_angle",
     lambda problem, rate: min(2 * np.pi / 3, _angle(problem, rate))),
    ("angle off by 0.6°", theorem.range_in_expectation, saturation, "expected_angle",
     shifted(saturation.expected_angle, 0.01)),
    ("pairs at another rate", theorem.range_pathwise, theorem, "stationary_pairs",
     lambda rate, *rest: _pairs(rate / 2, *rest)),
    ("transient one step late", properties.p1_saturation, saturation, "transient_step_moments",
     lambda p, α, t: _transient(p, α, t + 1)),
    ("curvatures too large", properties.p1_slow_down, moments, "evolve",
     lambda p, m, s: _evolve(NoisyQuadratic(1.5 * p.curvature, p.noise_variance, p.start), m, s)),
    ("ratio too negative", properties.p2_i, saturation, "cosine_ratio",
     scaled(saturation.cosine_ratio, 1.2)),
    ("supplement of the angle", properties.p2_ii, saturation, "expected_angle",
     lambda p, α, **kwargs: np.pi - _angle(p, α, **kwargs)),
    ("exponent of the largest curvature", properties.p2_iii, saturation, "saturation_rate",
     lambda p, α: -2 * np.log(np.abs(1 - α * p.curvature).min())),
    ("offset at α → 0", properties.p2_iv, saturation, "expected_angle",
     shifted(saturation.expected_angle, 0.001)),
    ("simulation at another rate", properties.figure_1, simulate, "run", other_rate),
    ("a lower floor", properties.figure_2, properties.rules, "nqm2024",
     lambda: dataclasses.replace(_nqm, policy=dataclasses.replace(_nqm.policy, min_lr=1e-4))),
    ("window law: 2 + h", windows.window_law, saturation, "window_cosine",
     lambda h, k: _window_cosine(h, k) * (2 - h) / (2 + h)),
    ("reset: 1 + 2ρ", windows.reset_after_drop, saturation, "inner_product_after_drop",
     lambda p, α, ρ: _after_drop(p, α, ρ) * (1 + 2 * ρ)),
    ("windows shifted by one", windows.angles_seen, closed_loop, "run", windows_shifted_by_one),
]  # fmt: skip

_angle, _transient = saturation.expected_angle, saturation.transient_step_moments
_window_cosine, _after_drop = saturation.window_cosine, saturation.inner_product_after_drop
_nqm = properties.rules.nqm2024()


@pytest.mark.parametrize(
    ("check", "module", "name", "wrong"),
    [pytest.param(*rest, id=planted) for planted, *rest in CONTROLS],
)
def test_a_wrong_formula_turns_the_claim_red(
    check: Check, module: ModuleType, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    outcome = check(Context())
    assert outcome.verdict is Verdict.UNDECIDED
    assert any(not fact.ok for fact in outcome.facts)
