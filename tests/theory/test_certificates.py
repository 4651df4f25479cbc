"""`certify`: every theorem with its bound or the hypothesis that fails, for rates from anywhere."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from autodrop import AutoDrop
from autodrop.detectors import ThresholdSaturation
from tests.theory.convex_reference import CONSTANTS
from theory import StepwiseSchedule, TorchMomentum, UnifiedMomentum, bounds, multipliers
from theory.certificates import PROGRAMME_ITERATIONS, Certificate, Guarantee, certify
from theory.earlier_iterates import earlier_iterates

SCHEDULE = StepwiseSchedule([1 / 2, 1 / 3, 1 / 4], [3, 4, 5])
HEAVY = UnifiedMomentum(0.5, 0)
CONVEX = {"distance": 2.0, "subgradient": 1.5, "gap": 2.7, "noise": 0.4}

# Each theorem, what it is about, and the function that holds its formula.
THEOREMS = [
    ("(31) as printed", "best iterate", bounds.printed_31),
    ("Theorem 5.1, corrected", "best iterate",
     lambda *given, **named: bounds.theorem_5_1(*given, form="corrected", **named)),
    ("Theorem 5.1 from Theorem A", "best iterate", bounds.theorem_5_1),
    ("Theorem 5.2 from Theorem A", "best iterate", bounds.theorem_5_2),
    ("Theorem A", "best iterate", bounds.unified),
    ("Theorem B", "best iterate", bounds.theorem_b),
    ("Theorem C", "best iterate", multipliers.best_iterate),
    ("earlier iterates (SDP)", "best iterate",
     lambda *given, **named: earlier_iterates(*given, **named).value),
    ("repaired (31)", "average", bounds.repaired),
    ("Theorem A, averaged", "average", bounds.averaged),
    ("Theorem C", "last iterate", multipliers.last_iterate),
    ("length of the path", "last iterate", multipliers.path_length),
]  # fmt: skip


def found(certificate, theorem, about="best iterate"):
    (guarantee,) = [g for g in certificate.guarantees if (g.theorem, g.about) == (theorem, about)]
    return guarantee


def check_values(certificate, rates, method, constants):
    listed = [(g.theorem, g.about) for g in certificate.guarantees]
    assert listed == [(theorem, about) for theorem, about, _ in THEOREMS]
    for theorem, about, formula in THEOREMS:
        guarantee = found(certificate, theorem, about)
        assert guarantee.value == formula(rates, method, **constants), theorem
        assert guarantee.reason == ""


def test_every_theorem_has_its_own_value_and_subject():
    schedule, method = StepwiseSchedule([1 / 2, 1 / 3, 1 / 4], [3, 1, 2]), UnifiedMomentum(0.7, 1)
    constants = {"distance": 5.0, "subgradient": 1.5, "gap": 7.4, "noise": 0.4}
    certificate = certify(schedule, method, **constants)
    check_values(certificate, schedule, method, constants)
    values = [round(g.value, 9) for g in certificate.guarantees]
    assert len(set(values)) == len(values)  # so an exchange of two could not pass


@pytest.mark.parametrize("name", list(CONVEX))
def test_each_constant_reaches_the_theorems(name):
    changed = {**CONVEX, name: 0.9 * CONVEX[name]}
    with pytest.raises(AssertionError):
        check_values(certify(SCHEDULE, HEAVY, **changed), SCHEDULE, HEAVY, CONVEX)


def test_fields():
    certificate = certify(SCHEDULE, HEAVY, **CONVEX)
    assert isinstance(certificate, Certificate)
    assert certificate.schedule == SCHEDULE
    assert certificate.method is HEAVY
    assert [certificate.distance, certificate.gap] == [2.0, 2.7]
    assert [certificate.subgradient, certificate.noise] == [1.5, 0.4]
    assert certificate.kappa_1 == min(3 / 2, 4 / 3, 5 / 4)
    assert certificate.kappa_2 == max(3 / 4, 2 * 4 / 6, 3 * 5 / 12)
    assert certificate.increases == ()
    assert certificate.constant == pytest.approx(
        2 * math.hypot(1.5, 0.4) / math.sqrt(12), rel=1e-15
    )
    with pytest.raises(AttributeError):
        certificate.gap = 0


def test_defaults_are_sgd_in_units_of_gr():
    certificate = certify([0.5, 0.25])
    assert certificate.method == UnifiedMomentum.sgd()
    assert (certificate.distance, certificate.subgradient) == (1, 1)
    assert (certificate.gap, certificate.noise) == (1, 0)
    assert certify([0.5], distance=2, subgradient=3).gap == 6


def test_the_constant_is_theorem_a_at_the_best_constant_rate():
    T, δ = 9, 0.75
    best = math.sqrt(1 / (T * (1 + δ**2)))
    certificate = certify([best] * T, noise=δ)
    assert found(certificate, "Theorem A").value == pytest.approx(certificate.constant, rel=1e-14)


def test_a_theorem_that_fails_says_where():
    certificate = certify([0.6, 0.3, 0.4, 0.2], HEAVY, **CONSTANTS)
    assert certificate.increases == (2,)
    reasons = {(g.theorem, g.about): g.reason for g in certificate.guarantees}
    rise = "rates must not increase, got rates[1] = 0.3 < rates[2] = 0.4"
    for key in [("(31) as printed", "best iterate"), ("repaired (31)", "average"),
                ("Theorem A, averaged", "average")]:  # fmt: skip
        assert reasons[key] == rise
        assert found(certificate, *key).value is None
    stage = "Theorem 5.1 requires α̂_i ≤ 1/(i+2), which fails at stage i = 0"
    assert reasons["Theorem 5.1, corrected", "best iterate"] == stage
    assert reasons["Theorem 5.1 from Theorem A", "best iterate"] == stage
    assert "rates[0] = 1/2, got 0.6" in reasons["Theorem 5.2 from Theorem A", "best iterate"]
    for guarantee in certificate.guarantees:
        assert (guarantee.value is None) == bool(guarantee.reason)
    assert found(certificate, "Theorem B").value == bounds.theorem_b(
        [0.6, 0.3, 0.4, 0.2], HEAVY, **CONSTANTS
    )


def test_theorem_a_fails_by_its_weight():
    certificate = certify([0.1, 0.01, 9.0], UnifiedMomentum(0.9, 0))
    guarantee = found(certificate, "Theorem A")
    assert guarantee.value is None
    assert re.search(r"W_1 = -\d.*theorem_b", guarantee.reason)
    assert found(certificate, "Theorem B").value <= certificate.gap


def test_beyond_gradient_descent_only_some_theorems_apply():
    certificate = certify([0.1] * 3, UnifiedMomentum(0.5, 2.5))
    applies = {g.theorem for g in certificate.guarantees if g.value is not None}
    assert applies == {
        "(31) as printed",
        "Theorem 5.1, corrected",
        "Theorem A",
        "earlier iterates (SDP)",
        "repaired (31)",
    }
    for g in certificate.guarantees:
        if g.value is None and "5.2" not in g.theorem:
            assert g.reason == "s must be <= 1/(1 - momentum) = 2.0, got 2.5"
    with pytest.raises(ValueError, match="no theorem gives a guarantee about the last iterate"):
        certificate.best("last iterate")


def test_previous_rate_reaches_theorem_5_1():
    schedule = StepwiseSchedule([0.4, 0.2], [2, 3])
    with_it = certify(schedule, HEAVY, previous_rate=0.8)
    assert with_it.kappa_2 == max(2 * 0.4 * 0.8, 2 * 3 * 0.2 * 0.4)
    for theorem, formula in (
        ("Theorem 5.1 from Theorem A", bounds.theorem_5_1),
        ("(31) as printed", bounds.printed_31),
    ):
        value = formula(schedule, HEAVY, previous_rate=0.8, **CONSTANTS)
        assert found(with_it, theorem).value == value != formula(schedule, HEAVY, **CONSTANTS)
    reason = found(certify(schedule, HEAVY, previous_rate=1.5), "Theorem 5.1, corrected").reason
    assert "0 < α̂_i < 1" in reason
    assert "i = -1" in reason


def test_the_programme_is_left_out_for_long_schedules():
    guarantee = found(certify([0.1] * (PROGRAMME_ITERATIONS + 1)), "earlier iterates (SDP)")
    assert guarantee.value is None
    assert f"T > {PROGRAMME_ITERATIONS}" in guarantee.reason


def test_best_is_the_sharpest_of_its_kind():
    certificate = certify(SCHEDULE, UnifiedMomentum(0.9, 1))
    for about in ("best iterate", "average", "last iterate"):
        of_kind = [g for g in certificate.guarantees if g.about == about and g.value is not None]
        best = certificate.best(about)
        assert isinstance(best, Guarantee)
        assert best in of_kind
        assert best.value == min(g.value for g in of_kind)
    assert certificate.best() == certificate.best("best iterate")
    assert certificate.best().theorem != "(31) as printed"
    with pytest.raises(ValueError, match="got 'worst iterate'"):
        certificate.best("worst iterate")


def test_the_text_has_every_value_and_every_reason():
    certificate = certify([0.6, 0.6, 0.3, 0.4, 0.2, 0.25], HEAVY, **CONVEX)
    text = str(certificate)
    lines = text.splitlines()
    assert lines[0] == "UnifiedMomentum(momentum=0.5, s=0)"
    assert lines[1] == "T = 6 updates in 5 stages: 0.6 × 2, 0.3 × 1, 0.4 × 1, 0.2 × 1, 0.25 × 1"
    assert lines[2] == (
        "R = 2, F_0 <= 2.7, G = 1.5, delta = 0.4; the rate increases at t = 3 and 1 more times"
    )
    sections = [line for line in lines if line.startswith("E f - f* of the ")]
    assert [line.removeprefix("E f - f* of the ") for line in sections] == [
        "best iterate:", "average:", "last iterate:"
    ]  # fmt: skip
    start = {
        line.removeprefix("E f - f* of the ").rstrip(":"): lines.index(line) for line in sections
    }
    for g in certificate.guarantees:
        value = "does not apply: " + g.reason if g.value is None else f"<= {g.value:.6g}"
        rows = [
            i for i, line in enumerate(lines)
            if line.startswith(f"  {g.theorem} ")
            and line.removesuffix(" (says nothing: F_0 is not larger)").endswith("  " + value)
        ]  # fmt: skip
        assert any(
            max(place for place in start.values() if place < i) == start[g.about] for i in rows
        ), g
    wanted = (
        f"would guarantee {certificate.constant:.6g} for the best iterate at one constant rate."
    )
    assert lines[-1].endswith(wanted)


def test_long_schedules_are_abbreviated():
    text = str(certify([0.9**t for t in range(30)]))
    assert (
        "T = 30 updates in 30 stages: 1 × 1, 0.9 × 1, 0.81 × 1, 0.729 × 1, 0.6561 × 1, …, " in text
    )
    assert "the rate never increases" in text


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, lambda s: [Fraction(r) for r in s]])
def test_rates_may_come_as_anything_that_holds_them(kind):
    listed = np.asarray(SCHEDULE).tolist()
    assert certify(kind(listed), HEAVY) == certify(SCHEDULE, HEAVY)


def test_torch_momentum():
    method, rates = TorchMomentum(0.9), [0.05] * 4 + [0.005] * 3
    certificate = certify(rates, method, **CONSTANTS)
    for theorem, about, formula in THEOREMS:
        guarantee = found(certificate, theorem, about)
        if formula is bounds.unified:
            assert guarantee.value is None
            assert guarantee.reason.startswith("Theorem A needs W_t >= 0 for t >= 1, got W_4 = -")
        elif theorem in ("Theorem B", "Theorem C", "earlier iterates (SDP)", "length of the path"):
            assert guarantee.value == formula(rates, method, **CONSTANTS)
        else:
            assert guarantee.value is None
            assert guarantee.reason == "it is about Unified Momentum"
    assert "TorchMomentum(momentum=0.9, nesterov=False)" in str(certificate)
    with pytest.raises(ValueError, match="no theorem"):
        certify(rates, TorchMomentum(0.9, nesterov=True)).best("last iterate")


def logged_run(updates=240, window=4):
    """The rate of every update of a run of `AutoDrop`: a linear model, absolute deviations."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    targets = features @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    weights = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.5)
    scheduler = AutoDrop(
        optimizer, window=window, factor=0.5, min_lr=1e-3, detector=ThresholdSaturation(60.0)
    )
    rates = []
    for t in range(updates):
        batch = torch.arange(8) + 8 * (t % 8)
        optimizer.zero_grad()
        (features[batch] @ weights - targets[batch]).abs().mean().backward()
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates, scheduler.drops


def test_a_logged_run_of_autodrop():
    rates, drops = logged_run()
    assert drops, "the run must have drops, or it shows nothing"
    method = TorchMomentum(0.5)
    certificate = certify(rates, method, distance=2.3, subgradient=2.0, noise=1.0)
    schedule = certificate.schedule
    assert len(schedule) == 240
    assert np.asarray(schedule).tolist() == rates
    assert schedule.rates[0] == 0.1
    assert schedule.boundaries[1:-1] == tuple(drop.step for drop in drops)
    assert certificate.increases == ()
    best = certificate.best()
    assert certificate.constant * (1 - 1e-12) <= best.value < certificate.gap
    for theorem in ("Theorem A", "Theorem B", "Theorem C"):
        assert found(certificate, theorem).value is not None
    assert f"T = 240 updates in {len(drops) + 1} stages" in str(certificate)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: certify([]), ValueError, "at least one entry"),
        (lambda: certify([0.1, 0.0]), ValueError, r"rates\[1\] = 0.0"),
        (lambda: certify([0.1, float("nan")]), ValueError, r"rates\[1\] = nan"),
        (lambda: certify([0.1], 0.9), TypeError, "method must be a UnifiedMomentum .*, got 0.9"),
        (lambda: certify([0.1], distance=-1.0), ValueError, "distance must be .* got -1.0"),
        (lambda: certify([0.1], noise=float("inf")), ValueError, "noise must be .* got inf"),
        (lambda: certify([0.1], gap=float("nan")), ValueError, "gap must be .* got nan"),
    ],
)
def test_errors_name_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_guarantee_that_is_not_below_f_0_says_so():
    certificate = certify([1e-3] * 5, HEAVY, gap=0.5)
    assert found(certificate, "Theorem A").value > 0.5
    text = str(certificate)
    assert "Theorem A" in text
    assert "(says nothing: F_0 is not larger)" in text


def test_where_the_hypothesis_fails_the_last_iterate_has_its_path_only():
    certificate = certify([0.1] * 10 + [0.01] * 20, TorchMomentum(0.9))
    theorem_c = found(certificate, "Theorem C", "last iterate")
    assert theorem_c.value is None
    assert theorem_c.reason == "no multipliers satisfy its hypothesis"
    assert certificate.best("last iterate").theorem == "length of the path"


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([None], r"rates\[0\] = None"),
        (["0.1"], r"rates\[0\] = '0.1'"),
        ([[0.1], [0.2]], r"rates\[0\] = \[0.1\]"),
        ([True], r"rates\[0\] = True"),
        (0.1, "a schedule or a sequence of numbers"),
        (None, "a schedule or a sequence of numbers"),
    ],
)
def test_what_is_no_sequence_of_rates(rates, message):
    with pytest.raises(TypeError, match=message):
        certify(rates)
