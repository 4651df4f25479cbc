"""Worst cases between two rational numbers: proofs are accepted, planted errors are not.

Their lower ends, and what is planted in them: `test_exact_witnesses`.
"""

import math
import sys
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, fractions
from tests.theory import brute_force
from theory import UnifiedMomentum
from theory.exact_certificates import (
    STAR,
    Multiplier,
    from_theorem_a,
    from_virtual_steps,
    ldl_pivots,
    prove,
)
from theory.exact_problem import InvalidProof
from theory.exact_witnesses import coordinate_witness, witness
from theory.methods import TorchMomentum
from theory.worst_case import ACCURACY, worst_case

HALF, NINE = Fraction(1, 2), Fraction(9, 10)
SHORT = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)]
STAGES = [Fraction(1, 2)] * 3 + [Fraction(1, 3)] * 4 + [Fraction(1, 4)] * 5
UNIT = {"distance": 1, "subgradient": 1}
# Heavy ball at β = 1/2 with the rates SHORT.  μ_20 = 0 leaves b_0 = 1/2 + 3b_1/4 of the steps of
# `from_virtual_steps`; the best b_1 = (28V − 6)/25 and b_2 = V give 74V² + 4V = 29.
HEAVY_BALL_AT_THREE = (5 * math.sqrt(86) - 2) / 74

CASES = {
    "heavy ball": (SHORT, UnifiedMomentum.heavy_ball(HALF)),
    "Nesterov": ([HALF, HALF, Fraction(1, 4), Fraction(1, 4)], UnifiedMomentum.nesterov(HALF)),
    "heavy ball, stages": (STAGES, UnifiedMomentum.heavy_ball(HALF)),
    "Nesterov 0.9, stages": (STAGES, UnifiedMomentum.nesterov(NINE)),
    "torch 0.9, stages": (STAGES, TorchMomentum(NINE)),
    "torch Nesterov": (SHORT, TorchMomentum(HALF, nesterov=True)),
    "s > 1/(1 - β)": (SHORT, UnifiedMomentum(HALF, 3)),
    "increasing rates": (SHORT[::-1], UnifiedMomentum.heavy_ball(HALF)),
}


@pytest.mark.parametrize("criterion", ["best", "last"])
@pytest.mark.parametrize("case", CASES)
def test_two_rational_numbers_enclose_the_worst_case(case, criterion):
    rates, method = CASES[case]
    scale = {"distance": Fraction(3, 2), "subgradient": Fraction(2, 3)}  # GR = 1
    above = prove(rates, method, criterion=criterion, **scale)
    below = witness(rates, method, criterion=criterion, **scale)
    above.verify()
    below.verify()
    assert isinstance(above.bound, Fraction)
    assert isinstance(below.bound, Fraction)
    numerical = worst_case(rates, method, criterion=criterion, **scale).value
    assert below.bound - ACCURACY <= numerical <= above.bound + ACCURACY
    assert below.bound <= above.bound <= below.bound * (1 + Fraction(1, 10**4))


@pytest.mark.parametrize(
    ("method", "value"),
    [
        (UnifiedMomentum.sgd(), 0.3051),
        (UnifiedMomentum.heavy_ball(HALF), 0.4285),
        (UnifiedMomentum.nesterov(HALF), 0.4280),
        (UnifiedMomentum(HALF, 2), 0.4300),
        (UnifiedMomentum.nesterov(NINE), 0.6814),
    ],
)
def test_the_published_exact_values_to_their_last_digit(method, value):
    below, above = witness(STAGES, method, **UNIT), prove(STAGES, method, **UNIT)
    assert round(float(below.bound), 4) == round(float(above.bound), 4) == value


@pytest.mark.parametrize("digits", [4, 6, 8])
def test_denominators_are_what_was_asked_for(digits):
    """λ, weights, τ and ν in units R = G = 1; more digits, a better bound."""
    D = 10**digits
    found = prove(SHORT, UnifiedMomentum.heavy_ball(HALF), max_denominator=D, **UNIT)
    numbers = [*found.weights, *found.bounded, found.start, *(λ for _, _, λ in found.multipliers)]
    assert all((D * number).denominator == 1 for number in numbers)
    # No rounding error of a multiplier is larger than 1/D, and T(T + 1) of them are enough to add
    # up to what τ and ν have to grow by, each of T + 1 numbers.
    assert 0 < found.bound - HEAVY_BALL_AT_THREE < Fraction(12 * 4, D)


def unified_run(method, rates, initial, oracle):
    """x_0 … x_T of eq. (9) itself, whose gradients the oracle gives."""
    x = ys = np.array(initial, dtype=object)
    path = [x]
    for rate in rates:
        x, ys = brute_force.update(x, ys, np.array(oracle(x), dtype=object), rate, method)
        path.append(x)
    return path


CERTIFICATES = {
    "Theorem A": from_theorem_a([Fraction(1, 4)] * 4, UnifiedMomentum.heavy_ball(HALF), **UNIT),
    "virtual steps": from_virtual_steps(
        [Fraction(5, 6), Fraction(4, 9), Fraction(3, 5)],
        SHORT,
        UnifiedMomentum.heavy_ball(HALF),
        **UNIT,
    ),
    "Theorem A with F_0": from_theorem_a(
        [Fraction(1, 2), Fraction(1, 3)], UnifiedMomentum.heavy_ball(NINE), **UNIT
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
@given(data=st.data())
@examples(0.3)
def test_the_identity_holds_for_arbitrary_numbers(name, data):
    """bound − Σw_tF_t is the sum of the slacks and vᵀSv, whether or not an f exists."""
    certificate = CERTIFICATES[name]
    T = len(certificate.rates)
    vectors = st.lists(st.integers(-9, 9), min_size=2, max_size=2)
    g = data.draw(st.lists(vectors, min_size=T, max_size=T), label="subgradients")
    f = data.draw(st.lists(st.integers(-9, 9), min_size=T + 1, max_size=T + 1), label="values, f*")
    initial = data.draw(vectors, label="x_0 - x*")
    answers = iter(g)
    path = unified_run(certificate.method, certificate.rates, initial, lambda _: next(answers))
    x = [*path[:T], [0, 0]]
    g = [*g, [0, 0]]
    slacks = sum(
        λ * (f[j] - f[i] - sum(a * (b - c) for a, b, c in zip(g[i], x[j], x[i], strict=True)))
        for i, j, λ in certificate.multipliers
    )
    slacks += certificate.start * (1 - sum(a * a for a in initial))
    slacks += sum(
        ν * (1 - sum(a * a for a in g_t))
        for ν, g_t in zip(certificate.bounded, g[:-1], strict=True)
    )
    v = np.array([initial, *g[:-1]], dtype=object)
    form = (np.array(certificate.slack_form(), dtype=object) * (v @ v.T)).sum()
    gaps = sum(w * (f_t - f[STAR]) for w, f_t in zip(certificate.weights, f, strict=False))
    assert certificate.bound - gaps == slacks + form


class Altered:
    """Unified Momentum with one entry of H off by 1/1000."""

    def __init__(self, method):
        self.method = method

    def step_matrix(self, rates):
        H = self.method.step_matrix(rates)
        H[1, 0] += Fraction(1, 1000)
        return H


def with_multiplier(certificate, k, change):
    listed = list(certificate.multipliers)
    listed[k] = Multiplier(*listed[k][:2], change(listed[k].value))
    return replace(certificate, multipliers=tuple(listed))


def with_entry(certificate, name, k, change, **others):
    values = list(getattr(certificate, name))
    values[k] += change
    return replace(certificate, **{name: tuple(values)}, **others)


TINY = Fraction(1, 10**6)
PLANTED = {
    "one multiplier": (lambda c: with_multiplier(c, 1, lambda λ: λ + TINY), "coefficients of f_1"),
    "a sign": (lambda c: with_multiplier(c, 2, lambda λ: -λ), "f_0 ≥ f_1 .* must be ≥ 0"),
    "a lost multiplier": (
        lambda c: replace(c, multipliers=c.multipliers[:-1]),
        "coefficients of f_.* must agree",
    ),
    "an index": (
        lambda c: replace(c, multipliers=(*c.multipliers, Multiplier(9, 0, TINY))),
        "no inequality runs from 9 to 0",
    ),
    "a pivot": (
        lambda c: with_entry(c, "bounded", 1, -TINY, bound=c.bound - TINY),
        "positive semidefinite, pivot 2",
    ),
    "the multiplier of R": (
        lambda c: replace(c, start=c.start - TINY, bound=c.bound - TINY),
        "positive semidefinite, pivot 1",
    ),
    "a negative τ": (lambda c: replace(c, start=-c.start), "x_0 − x.*must be ≥ 0"),
    "a negative ν": (lambda c: with_entry(c, "bounded", 0, -1), "g_0.* must be ≥ 0"),
    "an entry of H": (lambda c: replace(c, method=Altered(c.method)), "positive semidefinite"),
    "a rate": (
        lambda c: replace(c, rates=(c.rates[0] - TINY, *c.rates[1:])),
        "positive semidefinite",
    ),
    "another momentum": (
        lambda c: replace(c, method=UnifiedMomentum.heavy_ball(HALF + TINY)),
        "positive semidefinite",
    ),
    "the criterion": (lambda c: replace(c, criterion="last"), "for the criterion 'last'"),
    "fewer iterations": (lambda c: replace(c, rates=c.rates[:-1]), "must have . entries"),
    "a negative weight": (lambda c: with_entry(c, "weights", 0, -1), "weight of f_0 must be ≥ 0"),
    "a weight": (lambda c: with_entry(c, "weights", 1, TINY), "weights must add up to 1"),
    "the bound": (lambda c: replace(c, bound=c.bound - TINY), "the bound must be"),
    "the distance": (lambda c: replace(c, distance=1 + TINY), "the bound must be"),
    "the subgradients": (lambda c: replace(c, subgradient=1 + TINY), "the bound must be"),
}


@pytest.mark.parametrize("name", ["Theorem A", "virtual steps"])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_error_in_a_certificate_is_found(planted, name):
    corrupt, message = PLANTED[planted]
    CERTIFICATES[name].verify()
    with pytest.raises(InvalidProof, match=message):
        corrupt(CERTIFICATES[name]).verify()


def test_a_certificate_for_the_last_iterate_is_none_for_another():
    certificate = prove(SHORT, UnifiedMomentum.heavy_ball(HALF), criterion="last", **UNIT)
    with pytest.raises(InvalidProof, match="for the criterion 'best'"):
        replace(certificate, criterion="best").verify()
    moved = (TINY, 0, 0, 1 - TINY)
    with pytest.raises(InvalidProof, match="needs all weight on f_3"):
        replace(certificate, weights=moved).verify()


@st.composite
def momentum_runs(draw):
    """β, s ≤ 1/(1 − β) and non-increasing rates, T ≤ 5, whatever the sign of W_0."""
    β = draw(fractions(0, "9/10"), label="momentum")
    σ = draw(fractions(0, 1), label="σ")
    first = draw(fractions("1/10", 2), label="α_0")
    ratios = draw(st.lists(fractions("1/10", 1), max_size=4), label="ratios of the rates")
    rates = [first]
    for ratio in ratios:
        rates.append(rates[-1] * ratio)
    return UnifiedMomentum(β, σ / (1 - β)), rates


@st.composite
def runs_without_the_initial_gap(draw):
    """The same with (1 − σ)βη_1 ≤ (1 − β)η_0, by the choice of α_0; so W_0 ≥ 0."""
    method, rates = draw(momentum_runs())
    β, σ = method.momentum, (1 - method.momentum) * method.s
    if len(rates) > 1:
        room = draw(fractions(1, 3), label="room")
        rates[0] = max(rates[1], (1 - σ) * β / (1 - β) * rates[1]) * room
    return method, rates


POSITIVE = fractions("1/10", 4)


@given(run=runs_without_the_initial_gap(), R=POSITIVE, G=POSITIVE)
def test_theorem_a_is_a_certificate_of_rank_one(run, R, G):
    method, rates = run
    found = from_theorem_a(rates, method, distance=R, subgradient=G)
    found.verify()
    η = [α / (1 - method.momentum) for α in rates]
    assert found.bound == (R**2 + G**2 * sum(step**2 for step in η)) / (2 * sum(η))
    assert sum(pivot > 0 for pivot in found.pivots) == 1
    # The multipliers of the closed form are the only ones that carry the steps η.
    assert found == from_virtual_steps(η, rates, method, distance=R, subgradient=G)


@given(run=momentum_runs(), R=POSITIVE, G=POSITIVE)
def test_theorem_a_with_the_initial_gap(run, R, G):
    """W_0 as MATH's Theorem A displays it; F_0 ≤ GR is the only gap that R and G give."""
    method, rates = run
    found = from_theorem_a(rates, method, distance=R, subgradient=G)
    β, σ = method.momentum, (1 - method.momentum) * method.s
    q, r = (1 - σ) * β / (1 - (1 - σ) * β), (1 - β) / (1 - (1 - σ) * β)
    η = [α / (1 - β) for α in rates]
    W_0 = η[0] - q * sum(η[t] * (1 - r) ** (t - 1) for t in range(1, len(η)))
    e = max(0, -W_0)
    assert found.bound == (R**2 / 2 + e * G * R + G**2 * sum(a**2 for a in η) / 2) / (sum(η) + e)
    assert coordinate_witness(rates, method, distance=R, subgradient=G).bound <= found.bound


@given(run=momentum_runs(), criterion=st.sampled_from(["best", "last"]), R=POSITIVE)
@examples(0.1)
def test_the_numerical_proofs_of_random_runs(run, criterion, R):
    method, rates = run
    above = prove(rates, method, distance=R, subgradient=1 / R, criterion=criterion)
    below = witness(rates, method, distance=R, subgradient=1 / R, criterion=criterion)
    above.verify()
    below.verify()
    assert below.bound <= above.bound
    if criterion == "best":
        closed = from_theorem_a(rates, method, distance=R, subgradient=1 / R)
        assert below.bound <= closed.bound


@pytest.mark.parametrize("T", [4, 9, 16])
@pytest.mark.parametrize(
    "method",
    [
        UnifiedMomentum.sgd(),
        UnifiedMomentum.heavy_ball(HALF),
        UnifiedMomentum.nesterov(HALF),
        UnifiedMomentum(HALF, 2),
        UnifiedMomentum.nesterov(Fraction(1, 3)),
        UnifiedMomentum(Fraction(2, 3), Fraction(5, 2)),
    ],
)
def test_the_worst_case_is_exactly_gr_over_root_t(T, method):
    """η = R/(G√T), rational for a square T: both proofs end at the same number."""
    R, G, root = Fraction(5, 3), Fraction(7, 2), math.isqrt(T)
    rates = [(1 - method.momentum) * R / (G * root)] * T
    above = from_theorem_a(rates, method, distance=R, subgradient=G)
    below = coordinate_witness(rates, method, distance=R, subgradient=G)
    above.verify()
    below.verify()
    assert above.bound == below.bound == G * R / root


def test_virtual_steps_prove_more_than_theorem_a():
    method = UnifiedMomentum.heavy_ball(HALF)
    found = CERTIFICATES["virtual steps"]
    assert found.bound == Fraction(18241, 30420)
    assert found.bound < from_theorem_a(SHORT, method, **UNIT).bound
    below = witness(SHORT, method, **UNIT)
    assert below.bound < HEAVY_BALL_AT_THREE < found.bound
    # The steps are within 1/50 of the best ones, where the bound is flat: (1/50)²/2 = 2e-4.
    assert found.bound < HEAVY_BALL_AT_THREE + Fraction(2, 10**4)


@pytest.mark.parametrize("method", [UnifiedMomentum.heavy_ball(NINE), TorchMomentum(NINE)])
def test_large_momentum_is_at_its_worst_after_three_iterations(method):
    """β = 0.9, T = 12: later iterates are left out, and (√1702 − 29)/20 is the worst case.

    At b_2 = V the bound (1 + b_0² + b_1² + V²)/(2(b_0 + b_1 + V)) is V: V² + 2.9V = 2.1525.
    """
    steps = [Fraction(19, 20), Fraction(1, 2), Fraction(49, 80)] + [Fraction(0)] * 9
    found = from_virtual_steps(steps, STAGES, method, **UNIT)
    V = (math.sqrt(1702) - 29) / 20
    assert V < found.bound < V * (1 + 1e-6)
    below = witness(STAGES, method, **UNIT)
    assert below.bound < V < below.bound * (1 + Fraction(1, 10**4))


@given(
    B=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(fractions(-2, 2, 6), min_size=2, max_size=2), min_size=n, max_size=n
        )
    ),
    data=st.data(),
)
def test_the_pivots_tell_semidefinite_matrices(B, data):
    """S = BBᵀ, singular for n > 2, is accepted; S + cvvᵀ with vᵀ(…)v = −1 is not."""
    n = len(B)
    S = [[sum(a * b for a, b in zip(u, v, strict=True)) for v in B] for u in B]
    assert all(pivot >= 0 for pivot in ldl_pivots(S))
    v = data.draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n), label="v")
    v[data.draw(st.integers(0, n - 1), label="nonzero entry")] = 1
    form = sum(v[i] * S[i][j] * v[j] for i in range(n) for j in range(n))
    c = -(1 + form) / Fraction(sum(a * a for a in v)) ** 2
    indefinite = [[S[i][j] + c * v[i] * v[j] for j in range(n)] for i in range(n)]
    with pytest.raises(InvalidProof, match="must be positive semidefinite"):
        ldl_pivots(indefinite)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0, 1], [1, 0]], "pivot 0 is 0 and its row is not"),
        ([[1, 1, 0], [1, 1, 1], [0, 1, 1]], "pivot 1 is 0 and its row is not"),
        ([[1, 2], [2, 3]], "pivot 1 is -1"),
        ([[-1]], "pivot 0 is -1"),
    ],
)
def test_the_pivots_of_an_indefinite_matrix(matrix, message):
    with pytest.raises(InvalidProof, match=message):
        ldl_pivots([[Fraction(entry) for entry in row] for row in matrix])


def test_a_certificate_can_be_read():
    text = str(CERTIFICATES["Theorem A"])
    assert "≤ 1/2" in text
    assert "f_1 ≥ f_2 + ⟨g_2, x_1 − x_2⟩" in text
    assert text.count("× 1/4") == 8  # λ and τ
    assert text.count("× 1/16") == 4  # ν
    assert "pivots of S, to 6 digits: 0.25, 0, 0, 0, 0" in text
    with pytest.raises(FrozenInstanceError):
        CERTIFICATES["Theorem A"].bound = Fraction(0)


HEAVY = UnifiedMomentum.heavy_ball(HALF)


class Still:
    """A method that never moves."""

    def step_matrix(self, rates):
        return np.full((len(rates), len(rates)), Fraction(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prove([0.5], HEAVY, **UNIT), TypeError, "every rate must be exact .* got 0.5"),
        (lambda: prove(SHORT, UnifiedMomentum(0.5), **UNIT), TypeError, "step matrix .* exact"),
        (lambda: prove(SHORT, HEAVY, distance=1.0, subgradient=1), TypeError, "distance must be"),
        (lambda: prove(SHORT, HEAVY, distance=0, subgradient=1), ValueError, "distance .* got 0"),
        (lambda: prove([], HEAVY, **UNIT), ValueError, "at least one entry"),
        (lambda: prove(SHORT, HEAVY, criterion="mean", **UNIT), ValueError, "criterion .*'mean'"),
        (lambda: prove(SHORT, HEAVY, max_denominator=0, **UNIT), ValueError, "max_denominator"),
        (lambda: from_theorem_a(SHORT, TorchMomentum(HALF), **UNIT), TypeError, "UnifiedMomentum"),
        (lambda: from_theorem_a(SHORT, UnifiedMomentum(HALF, 3), **UNIT), ValueError, "s must be"),
        (lambda: from_theorem_a(SHORT, UnifiedMomentum(0.5), **UNIT), TypeError, "momentum must"),
        (lambda: from_theorem_a([HALF, TINY, 5], HEAVY, **UNIT), InvalidProof, "weight of f_1"),
        (lambda: from_virtual_steps([1], SHORT, HEAVY, **UNIT), ValueError, "one entry per rate"),
        (lambda: from_virtual_steps([0] * 3, SHORT, HEAVY, **UNIT), ValueError, "not all 0"),
        (lambda: prove([0, 1], HEAVY, **UNIT), ValueError, "finite and > 0"),
        (lambda: from_virtual_steps([1] * 2, [1] * 2, Still(), **UNIT), ValueError, "own sub"),
        (lambda: from_virtual_steps([TINY, 1, 1], SHORT, HEAVY, **UNIT), InvalidProof, "f_0 ≥ f_1"),
    ],
)  # fmt: skip
def test_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_a_solver_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"autodrop\[checks\]"):
        prove(SHORT, HEAVY, **UNIT)
