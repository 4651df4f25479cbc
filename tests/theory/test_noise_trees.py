"""`noise_tree_worst_case` against the whole tree, written out; and against literal runs."""

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from tests import strategies
from theory import UnifiedMomentum
from theory.methods import TorchMomentum
from theory.noise_trees import noise_tree_worst_case
from theory.worst_case import ACCURACY, worst_case

METHODS = [
    UnifiedMomentum.sgd(),
    UnifiedMomentum.heavy_ball(0.5),
    UnifiedMomentum(0.5, 3.0),
    TorchMomentum(0.9, nesterov=True),
]


def whole_tree(rates, method, *, distance, subgradient, noise, gap=None, criterion="best"):
    """The same programme over all nodes, without any reduction, in PEPit and in its own units."""
    from PEPit import PEP
    from PEPit.functions import ConvexLipschitzFunction

    T = len(rates)
    H = np.asarray(method.step_matrix(rates))
    problem = PEP()
    f = problem.declare_function(ConvexLipschitzFunction, M=subgradient)
    x_star, start = f.stationary_point(), problem.set_initial_point()
    problem.set_initial_condition((start - x_star) ** 2 <= distance**2)
    F = []
    level = [([], start)]
    for t in range(T + 1):
        total, deeper = 0 * f(x_star), []
        for path, x in level:
            g, value = f.oracle(x)
            total = total + (value - f(x_star)) / 2**t
            if t + (criterion != "last") >= T:
                continue  # noise that no iterate that counts can feel
            n = problem.set_initial_point()
            problem.add_constraint(n**2 <= noise**2)
            for sign in (1, -1):
                history = [*path, g + sign * n]
                new = start
                for i, G in enumerate(history):
                    new = new - float(H[t, i]) * G
                deeper.append((history, new))
        F.append(total)
        level = deeper
        if not level:
            break
    if gap is not None:
        problem.add_constraint(F[0] <= gap)
    if criterion == "best":
        for total in F:
            problem.set_performance_metric(total)
    elif criterion == "last":
        problem.set_performance_metric(F[T])
    else:
        weights = rates if criterion == "average" else criterion
        total = 0 * F[0]
        for weight, F_t in zip(weights, F, strict=True):
            total = total + float(weight / sum(weights)) * F_t
        problem.set_performance_metric(total)
    return problem.solve(wrapper="cvxpy", solver="CLARABEL", verbose=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rates", "criterion", "gap"),
    [
        ([0.9, 0.5], "last", None),
        ([0.9, 0.5, 0.5], "best", None),
        ([0.5, 0.9, 0.2], "average", 0.8),
        ([0.6, 0.6, 0.3], "best", 0.5),
    ],
)
def test_equals_the_whole_tree(method, rates, criterion, gap):
    question = {"distance": 1.5, "subgradient": 0.8, "noise": 0.6, "criterion": criterion}
    reduced = noise_tree_worst_case(rates, method, gap=gap, **question)
    literal = whole_tree(rates, method, gap=gap, **question)
    assert reduced.value == pytest.approx(literal, abs=2 * ACCURACY * max(1.2, reduced.value))


def test_equals_the_whole_tree_where_convexity_binds_between_branches():
    """Without the conditions between nodes of different branches the value is 0.2 % larger."""
    rates, method = [2.65, 4.7, 0.29], UnifiedMomentum.heavy_ball(0.9)
    question = {"distance": 1, "subgradient": 1, "noise": 0.39, "criterion": (0.96, 0.49, 0.23)}
    reduced = noise_tree_worst_case(rates, method, **question)
    assert reduced.value == pytest.approx(whole_tree(rates, method, **question), rel=4 * ACCURACY)


def test_equals_the_whole_tree_at_depth_four():
    rates, question = [0.5, 0.5, 0.3, 0.2], {"distance": 1, "subgradient": 1, "noise": 0.5}
    method = UnifiedMomentum.nesterov(0.5)
    reduced = noise_tree_worst_case(rates, method, **question)
    assert reduced.value == pytest.approx(whole_tree(rates, method, **question), abs=2 * ACCURACY)
    np.testing.assert_allclose(reduced.gaps.min(), reduced.attained, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("criterion", ["best", "last", "average"])
def test_without_noise_it_is_the_deterministic_worst_case(method, criterion):
    """Two programmes, one by PEPit, that share no line of their constraints."""
    rates, question = [0.8] * 3 + [0.3] * 3, {"distance": 2, "subgradient": 0.5, "gap": 0.9}
    tree = noise_tree_worst_case(rates, method, noise=0, criterion=criterion, **question)
    plain = worst_case(rates, method, criterion=criterion, **question)
    assert tree.value == pytest.approx(plain.value, abs=2 * ACCURACY * max(1, plain.value))


@strategies.examples(0.3)
@given(st.data())
def test_no_noisy_run_does_worse(data):
    """f = G|x| and signs of all 2ᵗ histories; the noise ±n_t of size ≤ δ differs by depth."""
    T = data.draw(st.integers(1, 6), label="T")
    rates = data.draw(st.lists(st.floats(0.1, 1.5), min_size=T, max_size=T), label="rates")
    method = data.draw(strategies.methods(), label="method")
    G, δ, start = data.draw(
        st.tuples(st.floats(0.1, 1), st.floats(0.1, 2), st.floats(-1, 1)), label="G, δ, x_0"
    )
    share = data.draw(st.lists(st.floats(-1, 1), min_size=T, max_size=T), label="n / δ")
    x = ys = np.array([start])
    F = []
    for α, part in zip(rates, share, strict=True):
        F.append(G * np.abs(x).mean())
        g = np.concatenate([G * np.sign(x) + part * δ, G * np.sign(x) - part * δ])
        x, ys = np.tile(x, 2), np.tile(ys, 2)
        ahead = x - method.s * α * g
        x, ys = x - α * g + method.momentum * (ahead - ys), ahead
    F.append(G * np.abs(x).mean())
    criterion = data.draw(st.sampled_from(["best", "last"]))
    reached = min(F[:-1]) if criterion == "best" else F[-1]
    worst = noise_tree_worst_case(
        rates, method, distance=1, subgradient=1, noise=δ, criterion=criterion
    )
    target(reached / worst.value, label="reached / worst case")
    assert reached <= worst.value + ACCURACY * max(1, worst.value)


def test_between_no_noise_and_the_classical_bound():
    """For β = 0: (R² + (G² + δ²)Σα²)/(2Σα), increasing in δ."""
    rates = np.array([0.3] * 4 + [0.2] * 4)
    values = [
        noise_tree_worst_case(
            rates, UnifiedMomentum.sgd(), distance=1, subgradient=1, noise=δ
        ).value
        for δ in (0, 0.5, 1, 2)
    ]
    bounds = [(1 + (1 + δ**2) * (rates**2).sum()) / (2 * rates.sum()) for δ in (0, 0.5, 1, 2)]
    assert all(np.diff(values) > 0.01)
    assert all(value <= bound + ACCURACY for value, bound in zip(values, bounds, strict=True))
    forgotten = (1 + (rates**2).sum()) / (2 * rates.sum())  # without its noise it is no bound
    assert values[2] > forgotten + 0.01


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rates": [0.1] * 17}, ValueError, "T <= 16 iterations, got T = 17"),
        ({"rates": [0.1] * 31, "noise": 0}, ValueError, "T <= 30 iterations, got T = 31"),
        ({"noise": -1.0}, ValueError, "noise must be finite and >= 0, got -1"),
        ({"noise": None}, TypeError, "noise must be a real number, got None"),
        ({"solver": "NONE"}, ValueError, "one of the installed"),
    ],
)
def test_errors(change, error, message):
    arguments = {
        "rates": [0.5, 0.5],
        "method": UnifiedMomentum.sgd(),
        "distance": 1,
        "subgradient": 1,
        "noise": 1,
        **change,
    }
    with pytest.raises(error, match=message):
        noise_tree_worst_case(**arguments)
