"""Rational functions that defeat a method: they are accepted, planted errors are not."""

import sys
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import numpy as np
import pytest

from tests.theory import brute_force
from theory import UnifiedMomentum
from theory.exact_problem import InvalidProof
from theory.exact_witnesses import coordinate_witness, witness

HALF = Fraction(1, 2)
TINY = Fraction(1, 10**6)
SHORT = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)]
UNIT = {"distance": 1, "subgradient": 1}
HEAVY = UnifiedMomentum.heavy_ball(HALF)

CASES = {
    "heavy ball": (SHORT, HEAVY),
    "Nesterov": ([HALF, HALF, Fraction(1, 4), Fraction(1, 4)], UnifiedMomentum.nesterov(HALF)),
    "s > 1/(1 - β)": (SHORT, UnifiedMomentum(HALF, 3)),
}


def unified_run(method, rates, initial, oracle):
    """x_0 … x_T of eq. (9) itself, whose gradients the oracle gives."""
    x = ys = np.array(initial, dtype=object)
    path = [x]
    for rate in rates:
        x, ys = brute_force.update(x, ys, np.array(oracle(x), dtype=object), rate, method)
        path.append(x)
    return path


@pytest.mark.parametrize("criterion", ["best", "last"])
@pytest.mark.parametrize("case", CASES)
def test_the_witness_defeats_the_method_as_the_paper_writes_it(case, criterion):
    rates, method = CASES[case]
    found = witness(rates, method, criterion=criterion, distance=2, subgradient=3)
    unused = list(zip(found.slopes, found.offsets, strict=True))

    def oracle(x):
        """Any active piece is a subgradient: the first that was not given yet."""
        for k, (g, c) in enumerate(unused):
            if sum(a * b for a, b in zip(g, x, strict=True)) + c == found(x):
                return unused.pop(k)[0]
        raise AssertionError("no active piece is left")

    if criterion == "best":
        path = unified_run(method, rates, found.initial, oracle)[:-1]
        assert min(map(found, path)) == found.bound
    else:
        path = unified_run(method, rates, found.initial, oracle)
        assert found(path[-1]) == found.bound
    assert found([0] * len(found.initial)) == 0


def with_entry(certificate, name, k, change, **others):
    values = list(getattr(certificate, name))
    values[k] += change
    return replace(certificate, **{name: tuple(values)}, **others)


WITNESSES = {
    "coordinates": coordinate_witness(
        [Fraction(1, 4)] * 4, UnifiedMomentum.heavy_ball(HALF), **UNIT
    ),
    "numerical": witness(SHORT, UnifiedMomentum.heavy_ball(HALF), criterion="last", **UNIT),
}
PLANTED_IN_WITNESS = {
    "a slope": (
        lambda w: replace(w, slopes=((w.slopes[0][0] + 1, *w.slopes[0][1:]), *w.slopes[1:])),
        "g_0.* must be ≤ 1",
    ),
    "the start": (lambda w: with_entry(w, "initial", 0, 1), "x_0 − x.* must be ≤ 1"),
    "a minimum elsewhere": (lambda w: with_entry(w, "offsets", 1, 1), "c_1 must be ≤ 0"),
    "a piece that is not active": (
        lambda w: with_entry(w, "offsets", 1, -TINY),
        "g_1 must be a subgradient at x_1",
    ),
    "a method that gets away": (
        lambda w: replace(w, rates=tuple(-rate for rate in w.rates)),
        "g_1 must be a subgradient",
    ),
    "the bound": (lambda w: replace(w, bound=w.bound + TINY), "the bound must be"),
    "a dimension": (lambda w: replace(w, initial=(*w.initial, 0)), "every slope must have"),
    "iterations": (lambda w: replace(w, rates=w.rates[1:]), "slopes must have . entries"),
}


@pytest.mark.parametrize("name", WITNESSES)
@pytest.mark.parametrize("planted", PLANTED_IN_WITNESS)
def test_a_planted_error_in_a_witness_is_found(planted, name):
    corrupt, message = PLANTED_IN_WITNESS[planted]
    WITNESSES[name].verify()
    with pytest.raises(InvalidProof, match=message):
        corrupt(WITNESSES[name]).verify()


def test_a_witness_can_be_read():
    text = str(WITNESSES["coordinates"])
    assert "started at (1/2, 1/2, 1/2, 1/2)" in text
    assert "⟨(0, 1, 0, 0), x⟩ + 0" in text
    with pytest.raises(FrozenInstanceError):
        WITNESSES["coordinates"].bound = Fraction(0)


def test_a_clear_error():
    with pytest.raises(RuntimeError, match="up to 10, a larger max_denominator may help"):
        witness(SHORT, HEAVY, max_denominator=10, **UNIT)
    with pytest.raises(TypeError, match=r"every rate must be exact .* got 0.5"):
        coordinate_witness([0.5], HEAVY, **UNIT)


def test_without_a_solver_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"autodrop\[checks\]"):
        witness(SHORT, HEAVY, **UNIT)
