"""The sequence z behind the convergence proofs, against dense exact linear algebra and torch."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st

from tests import strategies
from tests.theory import convex_reference as reference
from theory import TorchMomentum, UnifiedMomentum
from theory import potential as module
from theory.potential import potential, rate_list

F = Fraction
EPS = np.finfo(float).eps


@st.composite
def descent_methods(draw):
    """Unified Momentum with 0 ≤ σ = (1−β)s ≤ 1, ends included, or torch's; exact."""
    β = draw(strategies.fractions(0, "19/20"), label="momentum")
    kind = draw(st.sampled_from(["torch", "any", "heavy ball", "plain"]), label="method")
    event(f"method: {kind}")
    if kind == "torch":
        return TorchMomentum(β)
    σ = {"heavy ball": F(0), "plain": F(1)}.get(kind)
    σ = draw(strategies.fractions(0, 1), label="σ") if σ is None else σ
    return UnifiedMomentum(β, σ / (1 - β))


exact_rates = st.lists(strategies.fractions("1/20", 3), min_size=1, max_size=7)
exact_leading = st.lists(strategies.fractions(-3, 3), min_size=8, max_size=8)


def extrapolated(form, T):
    """Z from z_t = x_t + q_t(x_t − u_{t−1}), u_t = (1 − r)u_{t−1} + r x_t, u_0 = z_0 = x_0."""
    x = np.array([[F(int(i == j)) for j in range(T + 1)] for i in range(T + 1)], dtype=object)
    rows, u = [x[0]], x[0]
    for t in range(1, T + 1):
        rows.append(x[t] + form.extrapolation[t] * (x[t] - u))
        u = (1 - form.r) * u + form.r * x[t]
    return np.array(rows)


def check_potential(method, rates, leading):
    T = len(rates)
    form, dense = module.potential(method, rates), reference.dense_potential(method, rates)
    assert len(form.extrapolation) == T + 1
    assert form.extrapolation[0] == 0
    assert list(form.steps) == dense.steps
    assert list(form.kernel) == dense.kernel
    assert (extrapolated(form, T) == dense.Z).all()
    for D in (leading[:T], leading[: T + 1]):
        n = len(D)
        assert form.weights(D) == list(dense.Z[:n, :n].T @ np.array(D, dtype=object))
        assert sum(form.weights(D)) == sum(D)


@strategies.examples(0.4)
@given(descent_methods(), exact_rates, exact_leading)
def test_equals_back_substitution_exactly(method, rates, leading):
    check_potential(method, rates, leading)


CASE = (
    UnifiedMomentum(F(1, 2), F(1, 3)),
    [F(1, 2), F(1, 3), F(2, 3), F(1, 4)],
    [F(1), F(2), F(3), F(5), F(7)],
)


def planted(change):
    def wrong(method, rates):
        return change(potential(method, rates))

    return wrong


def change_weights(weights):
    """A Potential with other weights; frozen, so a subclass."""

    class Wrong(module.Potential):
        pass

    Wrong.weights = weights
    return lambda form: Wrong(form.steps, form.extrapolation, form.r, form.kernel)


@pytest.mark.parametrize(
    "change",
    [
        lambda form: replace(
            form, r=form.extrapolation[1], extrapolation=(F(0),) + (form.r,) * 4
        ),  # q and r exchanged
        lambda form: replace(form, r=1 - form.r),
        lambda form: replace(form, steps=tuple(step / 2 for step in form.steps)),
        lambda form: replace(form, kernel=(*form.kernel[1:], form.kernel[0])),
        lambda form: replace(form, kernel=tuple(2 * size for size in form.kernel)),
        change_weights(lambda form, D: list(D)),
        change_weights(lambda form, D: module.Potential.weights(form, [*D[1:], D[0]])),
    ],
    ids=["q-r", "1-r", "half", "shift", "double", "no-extrapolation", "order"],
)
def test_planted_errors_are_found(monkeypatch, change):
    check_potential(*CASE)
    monkeypatch.setattr(module, "potential", planted(change))
    with pytest.raises(AssertionError):
        check_potential(*CASE)


@strategies.examples(0.4)
@given(
    st.one_of(
        descent_methods(),
        strategies.methods(exact=True),
        st.builds(TorchMomentum, strategies.fractions(0, "19/20"), st.booleans()),
    ),
    exact_rates,
)
def test_step_matrix_is_the_recursion(method, rates):
    X = reference.displacements(method, rates)
    assert (method.step_matrix(rates) == X[1:]).all()


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]
)
def test_step_matrix_is_torch_sgd(momentum, nesterov):
    rates = [0.7, 0.7, 0.2, 0.9, 0.05, 0.05, 0.3]
    T = len(rates)
    x = torch.nn.Parameter(torch.zeros(T, dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=1.0, momentum=momentum, nesterov=nesterov)
    rows = []
    for t, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        x.grad = torch.eye(T, dtype=torch.float64)[t]
        optimizer.step()
        rows.append(x.detach().numpy().copy())
    H = TorchMomentum(momentum, nesterov).step_matrix(rates)
    # T additions of positive numbers on either side, each with three rounded operations.
    np.testing.assert_allclose(H, -np.array(rows), rtol=6 * T * EPS, atol=0)
    # Unified Momentum is another method once the rate changes, and the same one until then.
    um = UnifiedMomentum(momentum, int(nesterov)).step_matrix(rates)
    np.testing.assert_allclose(H[:2, :2], um[:2, :2], rtol=6 * T * EPS)
    if momentum:
        assert np.abs(H - um).max() > 0.1


def test_z_moves_by_the_gradient_alone():
    """z_{t+1} − z_t = −η_tG_t along a run on f = |x|, for torch's momentum with a drop."""
    rates = [F(1, 2), F(1, 2), F(1, 8), F(1, 8), F(1, 3)]
    method = TorchMomentum(F(9, 10))
    gradients = []

    def sign(t, x):
        gradients.append(1 if x >= 0 else -1)
        return gradients[-1]

    x = reference.iterates(method, rates, sign, F(1))
    form = potential(method, rates)
    z = [x[0]]
    for t in range(1, len(x)):
        z.append(x[t] + form.extrapolation[t] * (x[t] - x[t - 1]))  # r = 1: u_{t−1} = x_{t−1}
    steps = zip(form.steps, gradients, strict=True)
    assert [b - a for a, b in pairwise(z)] == [-η * g for η, g in steps]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: potential(UnifiedMomentum(0.5, 2.5), [0.1]), "s must be <= .* 2.0, got 2.5"),
        (lambda: potential(TorchMomentum(0.5, True), [0.1]), "Nesterov"),
        (lambda: potential(UnifiedMomentum(), []), "at least one entry"),
        (lambda: potential(UnifiedMomentum(), [0.1, 0.0]), r"rates\[1\] = 0.0"),
        (lambda: rate_list([0.1, 0.2, float("nan")]), r"rates\[2\] = nan"),
        (lambda: rate_list([float("inf")]), r"rates\[0\] = inf"),
        (lambda: rate_list([-F(1, 2)]), r"rates\[0\] = -1/2"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rates_may_be_a_schedule_an_array_or_a_sequence():
    schedule = reference.table_schedule(F)
    assert rate_list(schedule) == rate_list(list(np.asarray(schedule))) == [
        F(1, 2), *[F(1, 2)] * 2, *[F(1, 3)] * 4, *[F(1, 4)] * 5
    ]  # fmt: skip
    assert rate_list(np.array([0.25, 0.5])) == [0.25, 0.5]
