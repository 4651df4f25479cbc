"""The symbolic proofs: what must vanish does, wrong versions do not, and the numbers agree."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sympy import QQ
from sympy.polys.fields import field

from paper_checks import symbolic
from tests.theory import convex_reference as reference
from theory import UnifiedMomentum
from theory.potential import potential

NAMES = ("β", "s", "α_0", "α_1", "α_2", "α_3")
T = len(NAMES) - 2
_, *VARIABLES = field(NAMES, QQ)


def at(element: Any, point: list[Fraction]) -> Fraction:
    """A rational function of β, s, α_0, …, α_3 at a point."""
    numbers = [QQ(value.numerator, value.denominator) for value in point]
    above, below = (
        part.evaluate(list(zip(part.ring.gens, numbers, strict=True)))
        for part in (element.numer, element.denom)
    )
    value = above / below
    return Fraction(int(value.numerator), int(value.denominator))


def points(count: int) -> list[list[Fraction]]:
    """β, s, α_0, …: 0 < β < 1, 0 ≤ (1−β)s ≤ 1, rates in any order."""
    rng = np.random.default_rng(31)
    found = []
    for _ in range(count):
        β, σ = Fraction(int(rng.integers(1, 20)), 20), Fraction(int(rng.integers(0, 13)), 12)
        rates = [Fraction(int(rng.integers(1, 30)), int(rng.integers(1, 30))) for _ in range(T)]
        found.append([β, σ / (1 - β), *rates])
    return found


# ---- The induction -------------------------------------------------------------------------------


def test_the_recursions_pass_from_one_step_to_the_next() -> None:
    step = symbolic.induction_step()
    assert (step.eq_24, step.eq_25, step.average) == (0, 0, 0)


@pytest.mark.parametrize("factor", [-1, 0, 2])
def test_another_momentum_term_breaks_every_recursion(factor: int) -> None:
    step = symbolic.induction_step(factor)
    assert step.eq_24 != 0
    assert step.eq_25 != 0
    assert step.average != 0


# ---- Theorem A -----------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 3, 4])
def test_theorem_a_identity(T: int) -> None:
    assert symbolic.theorem_a_identity(T) == {}


@pytest.mark.parametrize("T", [2, 3, 4])
def test_theorem_a_with_q_and_r_exchanged(T: int) -> None:
    """Products of x and g are left over, and from T = 3 on also some F_t."""
    left = symbolic.theorem_a_identity(T, exchange=True)
    assert any(isinstance(key, tuple) for key in left)
    assert any(isinstance(key, int) for key in left) == (T > 2)


def _shorter_steps(run: Any) -> Any:
    return replace(run, η=[step / 2 for step in run.η])


def _other_start(run: Any) -> Any:
    return replace(run, z=[run.x[1], *run.z[1:]], x=[run.x[1], *run.x[1:]])


def _late_average(run: Any) -> Any:
    return replace(run, u_weights=[run.u_weights[0], *run.u_weights[:-1]])


def _momentum_lost(run: Any) -> Any:
    return replace(run, x=run.z)


@pytest.mark.parametrize("spoil", [_shorter_steps, _other_start, _late_average, _momentum_lost])
def test_a_spoiled_run_breaks_theorem_a(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = symbolic._run
    monkeypatch.setattr(symbolic, "_run", lambda *args: spoil(right(*args)))
    assert symbolic.theorem_a_identity(3) != {}


# ---- Theorem C -----------------------------------------------------------------------------------


@pytest.mark.parametrize("N", [1, 2, 3])
def test_theorem_c_identity(N: int) -> None:
    assert symbolic.theorem_c_identity(N) == {}


@pytest.mark.parametrize("N", [1, 2])
def test_theorem_c_with_the_other_sign_of_the_summation_by_parts(N: int) -> None:
    left = symbolic.theorem_c_identity(N, swap_parts=True)
    assert set(left) == set(range(N + 1))  # every weight W_j, and nothing else


@pytest.mark.parametrize("spoil", [_shorter_steps, _other_start])
def test_a_spoiled_run_breaks_theorem_c(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its identity has z and the averages apart; `test_z_is_extrapolated…` is what joins them."""
    right = symbolic._run
    monkeypatch.setattr(symbolic, "_run", lambda *args: spoil(right(*args)))
    assert symbolic.theorem_c_identity(2) != {}


# ---- The numbers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> Any:
    β, s, *α = VARIABLES
    return symbolic._run(β, s, α)


def test_z_is_extrapolated_from_the_average(run: Any) -> None:
    """z_t = x_t + q(x_t − u_{t−1}), coefficient by coefficient, and u_t averages x_0 … x_t."""
    for t in range(1, T + 1):
        average = run.u_weights[t - 1]
        assert sum(average) == 1
        for i in range(T + 1):
            u = sum(weight * x[i] for weight, x in zip(average, run.x, strict=True))
            assert run.z[t][i] == run.x[t][i] + run.q * (run.x[t][i] - u)


def test_the_symbolic_potential_at_rational_points_is_that_of_theory(run: Any) -> None:
    for point in points(25):
        β, s, *rates = point
        form = potential(UnifiedMomentum(β, s), rates)
        assert [at(step, point) for step in run.η] == list(form.steps)
        assert at(run.q, point) == form.extrapolation[-1]
        assert at(run.r, point) == form.r


def test_the_symbolic_weights_at_rational_points_are_those_of_theory(run: Any) -> None:
    """W_j = Σ_tη_t ∂z_t/∂x_j from the field, from `theory.potential`, from a triangular system."""
    W = [run.η[j] * (1 + run.q * (j > 0)) for j in range(T)]
    for t in range(1, T):
        for j in range(t):
            W[j] -= run.η[t] * run.q * run.u_weights[t - 1][j]
    for point in points(25):
        β, s, *rates = point
        form = potential(UnifiedMomentum(β, s), rates)
        values = [at(weight, point) for weight in W]
        assert values == form.weights(form.steps)
        dense = reference.dense_potential(UnifiedMomentum(β, s), rates)
        assert values == list(dense.Z[:T, :T].T @ np.array(dense.steps, dtype=object))


def test_the_symbolic_iterates_at_rational_points_are_those_of_eq_9(run: Any) -> None:
    for point in points(10):
        β, s, *rates = point
        moved = -reference.displacements(UnifiedMomentum(β, s), rates)
        for x, row in zip(run.x, moved, strict=True):
            assert [at(c, point) for c in x] == [1, *row]
