"""Multipliers on earlier iterates: proofs in Fractions, never below the truth, nearly tight."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples
from tests.theory.any_runs import UNIT, any_method, any_rates
from theory import UnifiedMomentum
from theory.bounds import theorem_b
from theory.earlier_iterates import earlier_iterates
from theory.exact_certificates import ldl_pivots
from theory.exact_problem import InvalidProof
from theory.methods import TorchMomentum
from theory.noise_trees import noise_tree_worst_case
from theory.virtual_steps import virtual_steps
from theory.worst_case import ACCURACY, worst_case

STAGES = [1 / 2] * 3 + [1 / 3] * 4 + [1 / 4] * 5


def proof(found, rates, method):
    """Σw_tE F_t ≤ τ + Σν + eF_0 from the multipliers alone, R = V = 1: (w, the bound at F_0 = 1).

    In Fractions, to which every float is equal; ValueError if a condition fails.
    """
    T = len(rates)
    H = method.step_matrix([Fraction(rate) for rate in rates])
    a, ν = ([Fraction(x) for x in part] for part in (found.minimizer, found.squares))
    λ = [[Fraction(x) for x in row] for row in found.earlier]
    τ, e = Fraction(found.distance), Fraction(found.gap)
    if min(a + ν + [τ, e] + [x for row in λ for x in row]) < 0:
        raise ValueError("a multiplier is < 0")
    if any(λ[t][j] for t in range(T) for j in range(t, T)):
        raise ValueError("a multiplier belongs to a later iterate")
    x = [[1, *(-H[t - 1, i] if i < t else 0 for i in range(T))] for t in range(T)]
    S = [[Fraction(0)] * (T + 1) for _ in range(T + 1)]
    for k, value in enumerate([τ, *ν]):
        S[k][k] = value
    for t in range(T):
        for k in range(T + 1):
            towards = a[t] * x[t][k] + sum(λ[t][j] * (x[t][k] - x[j][k]) for j in range(t))
            S[t + 1][k] -= Fraction(towards) / 2
            S[k][t + 1] -= Fraction(towards) / 2
    ldl_pivots(S)
    w = [a[t] + sum(λ[t]) - sum(row[t] for row in λ) + e * (t == 0) for t in range(T)]
    return w, τ + sum(ν) + e


@given(method=any_method(exact=True), rates=any_rates(6))
@examples(0.3)
def test_the_floats_are_an_exact_proof(method, rates):
    found = earlier_iterates(rates, method, **UNIT)
    w, bound = proof(found, rates, method)
    # Rounding: T² terms of size ≤ 1 + Σλ, each with an error of a few ε.
    rounding = 40 * len(w) ** 2 * np.finfo(float).eps * (1 + found.earlier.sum())
    np.testing.assert_allclose(found.weights, np.array(w, dtype=float), atol=rounding)
    assert math.isclose(found.weights.sum(), 1, abs_tol=rounding)
    # Where the proof gives more than F_0 ≤ GR, that is the value.
    assert math.isclose(found.value, min(float(bound), 1), abs_tol=rounding)


def test_a_planted_error_is_no_proof():
    rates, method = [1 / 2, 1 / 3, 1 / 4], UnifiedMomentum.nesterov(Fraction(1, 2))
    found = earlier_iterates(rates, method, **UNIT)
    proof(found, rates, method)
    for name in ("squares", "minimizer"):
        altered = getattr(found, name).copy()
        altered[1] += -1e-4 if name == "squares" else 1e-2
        wrong = type(found)(**{**vars(found), name: altered})
        with pytest.raises(InvalidProof, match="positive semidefinite"):
            proof(wrong, rates, method)
    with pytest.raises(ValueError, match="later iterate"):
        proof(type(found)(**{**vars(found), "earlier": found.earlier.T}), rates, method)


@given(method=any_method(), rates=any_rates(7), gap=st.none() | st.floats(0.1, 1))
@examples(0.3)
def test_never_below_the_exact_worst_case(method, rates, gap):
    found = earlier_iterates(rates, method, gap=gap, **UNIT)
    exact = worst_case(rates, method, gap=gap, **UNIT)
    assert found.value >= exact.value - ACCURACY
    assert np.dot(found.weights, exact.gaps) <= found.value + ACCURACY


@given(method=any_method(), rates=any_rates(5), noise=st.floats(0.05, 1))
@examples(0.2)
def test_never_below_a_tree_of_noise(method, rates, noise):
    found = earlier_iterates(rates, method, noise=noise, **UNIT)
    tree = noise_tree_worst_case(rates, method, noise=noise, **UNIT)
    assert found.value >= tree.value - ACCURACY
    assert np.dot(found.weights, tree.gaps) <= found.value + ACCURACY


@given(method=any_method(), rates=any_rates(8), gap=st.none() | st.floats(0.1, 1))
@examples(0.3)
def test_never_above_the_closed_forms(method, rates, gap):
    """Without noise virtual steps and Theorem B are feasible points of its programme."""
    constants = {**UNIT, "gap": gap}
    value = earlier_iterates(rates, method, **constants).value
    assert value <= virtual_steps(rates, method, **constants).value + ACCURACY
    if isinstance(method, UnifiedMomentum) and (1 - method.momentum) * method.s <= 1:
        assert value <= theorem_b(rates, method, **constants) + ACCURACY


@pytest.mark.parametrize(
    ("method", "share"),
    [
        # How much of the bound is exact: all of it but for what later iterates contribute.
        (UnifiedMomentum.heavy_ball(0.9), 1e-6),
        (TorchMomentum(0.9), 1e-6),
        (UnifiedMomentum.heavy_ball(0.7), 1e-6),
        (UnifiedMomentum.nesterov(0.9), 2e-4),
        (TorchMomentum(0.9, nesterov=True), 2e-4),
        (UnifiedMomentum.nesterov(0.7), 5e-4),
        (UnifiedMomentum(0.5, 3), 2e-3),
    ],
)
def test_nearly_exact_where_the_closed_forms_are_not(method, share):
    exact = worst_case(STAGES, method, **UNIT).value
    assert earlier_iterates(STAGES, method, **UNIT).value <= exact * (1 + share) + ACCURACY


@pytest.mark.parametrize("bound", [earlier_iterates, virtual_steps])
def test_noise_left_out_is_found(bound):
    """A planted error: without δ² both bounds fall below a tree of noise, with it they do not."""
    rates, method = [1 / 2, 1 / 3, 1 / 4, 1 / 4], UnifiedMomentum.heavy_ball(0.5)
    tree = noise_tree_worst_case(rates, method, noise=0.5, **UNIT).value
    assert bound(rates, method, **UNIT).value < tree - 0.01
    assert bound(rates, method, noise=0.5, **UNIT).value >= tree - ACCURACY


def test_units_and_trivial_problems():
    method = UnifiedMomentum.nesterov(0.5)
    plain = earlier_iterates([1 / 2, 1 / 4], method, **UNIT)
    scaled = earlier_iterates([5 / 2, 5 / 4], method, distance=10, subgradient=2)
    assert math.isclose(scaled.value, 20 * plain.value, rel_tol=ACCURACY)
    assert earlier_iterates([1.0, 1.0], method, distance=0, subgradient=1).value == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: earlier_iterates([], UnifiedMomentum(), **UNIT), ValueError, "at least one entry"),
        (lambda: earlier_iterates([1], 0.9, **UNIT), TypeError, "step_matrix, got 0.9"),
        (
            lambda: earlier_iterates([1], UnifiedMomentum(), solver="none", **UNIT),
            ValueError,
            "solver must be one of the installed",
        ),
        (
            lambda: earlier_iterates([1], UnifiedMomentum(), noise=-1, **UNIT),
            ValueError,
            "noise must be finite and >= 0, got -1",
        ),
    ],
)
def test_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_a_solver_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"autodrop\[checks\]"):
        earlier_iterates([1.0], UnifiedMomentum(), **UNIT)
