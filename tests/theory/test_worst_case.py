"""`worst_case` against known closed forms, its own certificates on both sides, and literal runs."""

import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st

from tests import strategies
from theory import StepwiseSchedule, UnifiedMomentum
from theory.methods import TorchMomentum
from theory.worst_case import ACCURACY, check_status, worst_case

THREE_STAGES = StepwiseSchedule([1 / 2, 1 / 3, 1 / 4], [3, 4, 5])
DROP = StepwiseSchedule([0.1, 0.01], [4, 4])
TABLE = [  # method, best, as derived for this schedule by an earlier, independent computation
    (UnifiedMomentum.sgd(), 0.3051),
    (UnifiedMomentum.heavy_ball(0.5), 0.4285),
    (UnifiedMomentum.nesterov(0.5), 0.4280),
    (UnifiedMomentum(0.5, 2), 0.4300),
    (UnifiedMomentum.nesterov(0.9), 0.6814),
]


def unit(rates, method, **options):
    """The worst case for R = G = 1."""
    return worst_case(rates, method, distance=1, subgradient=1, **options)


def run(method, rates, start, oracle):
    """x_0, …, x_T by eq. (9), or by torch's recursion, as printed; oracle(t, x) is G_t."""
    x = np.asarray(start, dtype=float)
    iterates, ys, m = [x], x, np.zeros_like(x)
    for t, α in enumerate(rates):
        g = oracle(t, x)
        if isinstance(method, TorchMomentum):
            m = method.momentum * m + g
            x = x - α * (g + method.momentum * m if method.nesterov else m)
        else:
            y, ys_next = x - α * g, x - method.s * α * g
            x, ys = y + method.momentum * (ys_next - ys), ys_next
        iterates.append(x)
    return np.array(iterates)


@pytest.mark.parametrize(("method", "value"), TABLE)
def test_published_table(method, value):
    assert unit(THREE_STAGES, method).value == pytest.approx(value, abs=0.5e-4)  # four digits given


@pytest.mark.parametrize("iterations", [4, 9, 16])
@pytest.mark.parametrize(("distance", "subgradient"), [(1, 1), (3, 0.2)])
def test_best_iterate_of_the_subgradient_method(iterations, distance, subgradient):
    """η = R/(G√T): GR/√T, minimax optimal (Drori and Teboulle, 2016)."""
    rates = [distance / (subgradient * iterations**0.5)] * iterations
    found = worst_case(
        rates, UnifiedMomentum.sgd(), distance=distance, subgradient=subgradient
    ).value
    expected = distance * subgradient / iterations**0.5
    assert found == pytest.approx(expected, abs=ACCURACY * distance * subgradient)
    # ten per cent off, and the solver sees it
    other = [1.1 * rate for rate in rates]
    worse = worst_case(other, UnifiedMomentum.sgd(), distance=distance, subgradient=subgradient)
    assert worse.attained > expected * 1.001


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_last_iterate_of_linearly_decaying_rates(iterations):
    """η_t = R(N − t)/(G(N + 1)^{3/2}): exactly GR/√(N + 1) (Zamani and Glineur, 2023)."""
    N = iterations
    rates = [2.0 * (N - t) / (0.5 * (N + 1) ** 1.5) for t in range(N)]
    found = worst_case(
        rates, UnifiedMomentum.sgd(), distance=2, subgradient=0.5, criterion="last"
    ).value
    assert found == pytest.approx(1 / (N + 1) ** 0.5, abs=ACCURACY)
    constant = [2.0 / (0.5 * (N + 1) ** 0.5)] * N
    slower = worst_case(
        constant, UnifiedMomentum.sgd(), distance=2, subgradient=0.5, criterion="last"
    )
    assert slower.attained > 1.01 / (N + 1) ** 0.5 or N == 1


def test_momentum_costs_nothing_until_s_passes_its_limit():
    """η = R/(G√T): 1/√T for 0 ≤ s ≤ 1/(1 − β), and more for (1 − β)s = 1.1."""
    β, T = 0.5, 4
    rates = [(1 - β) / T**0.5] * T
    for σ in (0, 0.5, 1):
        assert unit(rates, UnifiedMomentum(β, σ / (1 - β))).value <= 1 / T**0.5 + ACCURACY
    assert unit(rates, UnifiedMomentum(β, 1.1 / (1 - β))).attained > 1 / T**0.5 + 100 * ACCURACY


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_momentum_is_unified_momentum_until_a_drop(nesterov):
    methods = TorchMomentum(0.9, nesterov), UnifiedMomentum(0.9, int(nesterov))
    torch, unified = (unit([0.1] * 6, method).value for method in methods)
    assert torch == pytest.approx(unified, abs=2 * ACCURACY)
    for criterion in ("best", "last"):
        torch, unified = (unit(DROP, method, criterion=criterion).value for method in methods)
        assert torch < unified - 0.01


def test_torch_momentum_is_not_always_better():
    """After an early drop its rescaled buffer no longer carries it on: the order is reversed."""
    schedule = StepwiseSchedule([0.05, 0.005], [2, 10])
    torch, unified = TorchMomentum(0.9), UnifiedMomentum.heavy_ball(0.9)
    assert unit(schedule, torch).attained > unit(schedule, unified).value + 0.04


@pytest.mark.parametrize(
    ("method", "criterion", "gap"),
    [
        (UnifiedMomentum.heavy_ball(0.5), "best", None),
        (UnifiedMomentum(0.7, 5.0), "last", 0.8),
        (UnifiedMomentum.nesterov(0.5), "average", 0.3),
        (TorchMomentum(0.9, nesterov=True), "best", 0.9),
    ],
)
def test_the_worst_function_attains_the_value(method, criterion, gap):
    """Run literally on the returned function, the method does as badly as claimed."""
    R, G = 2.0, 0.5
    schedule = StepwiseSchedule([2.0, 0.7], [3, 4])
    worst = worst_case(schedule, method, distance=R, subgradient=G, criterion=criterion, gap=gap)
    g, offsets = worst.subgradients, worst.gaps - np.sum(worst.subgradients * worst.iterates, 1)
    tolerance = ACCURACY * max(G * R, worst.value)

    def f(x):
        return max(0.0, (g @ x + offsets).max())

    def oracle(t, x):
        if t < len(g):
            assert f(x) <= g[t] @ x + offsets[t] + tolerance  # g_t is a subgradient at x
        return g[min(t, len(g) - 1)]

    iterates = run(method, np.asarray(schedule), worst.iterates[0], oracle)
    F = np.array([f(x) for x in iterates])
    assert f(np.zeros_like(iterates[0])) <= tolerance
    assert np.linalg.norm(g, axis=1).max() <= G * (1 + ACCURACY)
    assert np.linalg.norm(iterates[0]) <= R * (1 + ACCURACY)
    assert gap is None or F[0] <= gap + tolerance
    α = np.asarray(schedule)
    reached = {"best": F[:-1].min(), "last": F[-1], "average": α @ F[:-1] / α.sum()}[criterion]
    assert reached == pytest.approx(worst.value, abs=2 * tolerance)


@pytest.mark.parametrize("criterion", ["best", "last", "average"])
@pytest.mark.parametrize("gap", [None, 0.4])
def test_the_multipliers_prove_the_value(criterion, gap):
    """Added up with its multipliers the constraints leave value − criterion ≥ squares ≥ 0."""
    method = UnifiedMomentum.nesterov(0.5)
    worst = unit(THREE_STAGES, method, criterion=criterion, gap=gap)
    λ, N = worst.multipliers, len(worst.gaps)
    T = len(THREE_STAGES)
    H = method.step_matrix(np.asarray(THREE_STAGES))
    x = np.zeros((N + 1, N + 1))  # rows: x_0 − x*, …, and x* − x* = 0, in x_0 − x*, g_0, …
    for t in range(N):
        x[t, 0] = 1
        x[t, 1 : t + 1] = -H[t - 1, :t] if t else []
    g = np.vstack([np.eye(N, N + 1, 1), np.zeros(N + 1)])
    α = np.asarray(THREE_STAGES)
    rows = {"best": np.eye(T), "last": np.eye(1, T + 1, T), "average": α[None] / α.sum()}
    # criterion·μ ≤ value: coefficients of F_0, …, and of the products of x_0 − x*, g_0, …
    linear = np.append(λ.criterion @ rows[criterion], 0.0)
    square = np.zeros((N + 1, N + 1))
    square[0, 0] = λ.distance
    linear[0] -= λ.gap
    for t in range(N):
        square[1 + t, 1 + t] = λ.subgradient[t]
    for i in range(N + 1):
        for j in range(N + 1):
            linear[i] += λ.convexity[i, j]
            linear[j] -= λ.convexity[i, j]
            square += λ.convexity[i, j] * np.outer(g[j], x[i] - x[j])
    tolerance = ACCURACY * max(1.0, worst.value)
    assert λ.criterion.sum() == pytest.approx(1, abs=tolerance)
    assert min(λ.criterion.min(), λ.subgradient.min(), λ.convexity.min()) >= -tolerance
    assert λ.distance >= 0
    assert (λ.gap > 0.01) == (gap is not None and criterion != "last")
    np.testing.assert_allclose(linear[:N], 0, atol=tolerance)
    assert np.linalg.eigvalsh((square + square.T) / 2).min() >= -tolerance
    proven = λ.distance + λ.subgradient.sum() + (gap or 0) * λ.gap
    assert proven == pytest.approx(worst.value, abs=tolerance)


@strategies.examples(0.3)
@given(st.data())
def test_no_function_does_worse(data):
    """f = max(0, max_i ⟨u_i, x⟩ − c_i), c_i ≥ 0, has f* = 0 at x* = 0."""
    T = data.draw(st.integers(1, 5), label="T")
    pieces, dimension = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 3)), label="shape")
    entries = st.floats(-1, 1)
    directions = np.array(
        data.draw(st.lists(entries, min_size=pieces * dimension, max_size=pieces * dimension))
    ).reshape(pieces, dimension)
    u = directions / max(1.0, np.linalg.norm(directions, axis=1).max())
    c = np.array(data.draw(st.lists(st.floats(0, 0.2), min_size=pieces, max_size=pieces)))
    start = np.array(data.draw(st.lists(entries, min_size=dimension, max_size=dimension)))
    start = start / max(1.0, np.linalg.norm(start))
    rates = data.draw(st.lists(st.floats(0.05, 1.5), min_size=T, max_size=T), label="rates")
    method = data.draw(strategies.methods(), label="method")
    criterion = data.draw(st.sampled_from(["best", "last"]))

    def f(x):
        return max(0.0, (u @ x - c).max())

    def oracle(_, x):
        values = u @ x - c
        return u[values.argmax()] if values.max() > 0 else np.zeros(dimension)

    F = [f(x) for x in run(method, rates, start, oracle)]
    reached = min(F[:-1]) if criterion == "best" else F[-1]
    worst = unit(rates, method, criterion=criterion)
    target(reached / worst.value, label="reached / worst case")
    assert reached <= worst.value + ACCURACY * max(1.0, worst.value)


def test_criteria_agree_where_they_must():
    method = UnifiedMomentum.heavy_ball(0.5)
    T = len(THREE_STAGES)
    best, last, average = (
        unit(THREE_STAGES, method, criterion=name) for name in ("best", "last", "average")
    )
    assert average.value >= best.attained
    by_weights = unit(THREE_STAGES, method, criterion=7 * np.asarray(THREE_STAGES))
    assert by_weights.value == pytest.approx(average.value, abs=2 * ACCURACY)
    only_last = unit(THREE_STAGES, method, criterion=np.eye(T + 1)[T])
    assert only_last.value == pytest.approx(last.value, abs=2 * ACCURACY)
    first = unit(THREE_STAGES, method, criterion=np.eye(T)[0])
    assert first.value == pytest.approx(1, abs=2 * ACCURACY)  # F_0 ≤ GR
    assert average.value > best.value + 0.05
    assert last.value > best.value + 0.05


def test_a_smaller_class_has_a_smaller_worst_case():
    method = UnifiedMomentum.heavy_ball(0.9)
    rates = [0.3] * 4 + [0.1] * 4
    for criterion in ("best", "average"):
        free, *values = (
            unit(rates, method, gap=gap, criterion=criterion).value for gap in (None, 1, 0.5, 0.1)
        )
        assert values[0] == pytest.approx(free, abs=2 * ACCURACY)  # F_0 ≤ GR holds anyway
        assert values[0] > values[1] + 0.01  # or the argument would be ignored
        assert values[1] > values[2] + 0.01
        assert criterion == "average" or values[2] <= 0.1 + ACCURACY


def test_units():
    """f → GR f, and rates in R/G."""
    method = UnifiedMomentum.nesterov(0.7)
    one = unit([0.5, 0.5, 0.2], method, gap=0.6)
    other = worst_case(
        [0.5 * 3 / 40, 0.5 * 3 / 40, 0.2 * 3 / 40], method, distance=3, subgradient=40, gap=72
    )
    assert other.value == pytest.approx(120 * one.value, rel=4 * ACCURACY)


def test_calls_are_independent(capsys):
    methods = [method for method, _ in TABLE[:4]]
    alone = [unit([0.5, 0.4, 0.3], method).value for method in methods]
    again = [unit([0.5, 0.4, 0.3], method).value for method in methods]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda method: unit([0.5, 0.4, 0.3], method).value, methods))
    assert alone == again == together
    assert capsys.readouterr() == ("", "")


def test_exact_rates_and_any_method():
    class Twice:
        def step_matrix(self, rates):
            return 2 * UnifiedMomentum.sgd().step_matrix(rates)

    quarter = unit([Fraction(1, 4)] * 4, Twice()).value
    assert quarter == pytest.approx(0.5, abs=ACCURACY)  # GR/√4 at the rate 1/2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"solver": "NONE"}, ValueError, r"one of the installed \[.*CLARABEL.*got 'NONE'"),
        ({"rates": [0.1] * 31}, ValueError, "T <= 30 iterations, got T = 31"),
        ({"rates": []}, ValueError, "got T = 0"),
        ({"rates": [0.1, 0.0]}, ValueError, r"rates\[1\] must be finite and > 0, got 0.0"),
        ({"rates": [float("nan")]}, ValueError, r"rates\[0\] must be finite"),
        ({"distance": -1}, ValueError, "distance must be finite and > 0, got -1"),
        ({"subgradient": "1"}, TypeError, "subgradient must be a real number"),
        ({"gap": 0.0}, ValueError, "gap must be finite and > 0"),
        ({"criterion": "worst"}, ValueError, r"one of \['best', 'last', 'average'\] or weights"),
        ({"criterion": [1.0]}, ValueError, r"F_0 … F_1, or of F_0 … F_2, got shape \(1,\)"),
        ({"criterion": [1.0, -1.0]}, ValueError, "sum > 0, got sum 0"),
        ({"method": "sgd"}, TypeError, "method must have a step_matrix, got 'sgd'"),
        ({"rates": [1e300] * 2, "method": UnifiedMomentum(0.9, 1e9)}, ValueError, "overflows"),
    ],
)
def test_errors(change, error, message):
    arguments = {
        "rates": [0.5, 0.5],
        "method": UnifiedMomentum.sgd(),
        "distance": 1,
        "subgradient": 1,
        **change,
    }
    with pytest.raises(error, match=message):
        worst_case(**arguments)


@pytest.mark.parametrize("package", ["PEPit", "cvxpy"])
def test_missing_package(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"need {package}: pip install 'autodrop\[checks\]'"):
        unit([0.5], UnifiedMomentum.sgd())


def test_a_solver_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="status optimal, got 'unbounded'"):
        check_status("CLARABEL", "unbounded")
    with pytest.raises(RuntimeError, match="SCIPY could not solve"):  # linear programmes only
        unit([0.5], UnifiedMomentum.sgd(), solver="SCIPY")
    with pytest.raises(RuntimeError, match="SCS"):  # its default accuracy is 1e-4
        unit(THREE_STAGES, UnifiedMomentum.nesterov(0.5), solver="SCS")
