"""The nouns: problem, method, schedule. What they keep, what they compute, what they refuse."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.theory import brute_force
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, linear

F = Fraction


# NoisyQuadratic


def test_scalars_are_repeated_and_arrays_are_frozen():
    problem = NoisyQuadratic([1, 2, 3], 4, -1)
    assert problem.dimension == 3
    assert problem.noise_variance.tolist() == [4.0] * 3
    assert problem.start.tolist() == [-1.0] * 3
    assert problem.curvature.dtype == np.float64
    assert not problem.exact
    assert NoisyQuadratic(2.0, 1.0).dimension == 1
    with pytest.raises(ValueError, match="read-only"):
        problem.curvature[0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.start = problem.curvature


def test_the_caller_keeps_its_arrays():
    a = np.array([1.0, 2.0])
    problem = NoisyQuadratic(a, a, a)
    a[0] = 9.0
    assert problem.curvature[0] == problem.noise_variance[0] == problem.start[0] == 1.0


def test_exact_and_symbolic_entries_are_kept():
    exact = NoisyQuadratic([F(1, 3), F(2)], F(1, 7), [F(5), F(6)])
    assert exact.exact
    assert exact.curvature.tolist() == [F(1, 3), F(2)]
    assert exact.risk(exact.start) == F(1, 2) * (F(25, 3) + 2 * 36)
    mixed = NoisyQuadratic([F(1, 3)], 2.0)
    assert mixed.exact
    assert mixed.curvature.dtype == mixed.start.dtype == object
    a, v, x = sympy.symbols("a v x", positive=True)
    assert NoisyQuadratic([a], [v], [x]).risk(np.array([x])) == a * x**2 / 2


@given(strategies.problems(exact=True), st.data())
def test_gradient_is_the_derivative_of_the_sampled_loss(problem, data):
    """∇ ½(x − c)ᵀA(x − c), whose second difference is exact; risk is its mean up to a constant."""
    n = problem.dimension
    vectors = st.lists(strategies.fractions(-2, 2), min_size=n, max_size=n)
    x, c, d = (np.array(data.draw(vectors), dtype=object) for _ in "xcd")
    slope = (problem.risk(x + d - c) - problem.risk(x - d - c)) / 2
    assert slope == (problem.gradient(x, c) * d).sum()
    assert np.shape(problem.risk(np.stack([x, c]))) == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1.0), "curvature must have at least one entry"),
        (([1.0, 0.0], 1.0), r"curvature must be > 0, got 0\.0"),
        (([1.0, -2.0], 1.0), r"curvature must be > 0, got -2\.0"),
        (([F(-1, 3)], 1), "curvature must be > 0, got -1/3"),
        (([1.0], -0.5), r"noise_variance must be >= 0, got -0\.5"),
        (([1.0, math.nan], 1.0), "curvature must be finite, got nan"),
        (([1.0], math.inf), "noise_variance must be finite, got inf"),
        (([1.0], 1.0, math.nan), "start must be finite, got nan"),
        (([[1.0]], 1.0), r"curvature must be a scalar or a vector, got shape \(1, 1\)"),
        (([1.0, 2.0], [1.0]), r"noise_variance must be a scalar or have the shape \(2,\)"),
        (([1.0], 1.0, [1.0, 2.0]), r"start must be a scalar or have the shape \(1,\)"),
    ],
)
def test_bad_problems(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoisyQuadratic(*arguments)


@pytest.mark.parametrize("value", [["a"], [1j]])
def test_problems_hold_real_numbers(value):
    with pytest.raises(TypeError, match="curvature must hold real numbers, got dtype"):
        NoisyQuadratic(value, 1.0)


# UnifiedMomentum


def test_names():
    assert UnifiedMomentum.sgd() == UnifiedMomentum() == UnifiedMomentum(0, 0)
    assert UnifiedMomentum.heavy_ball(0.5) == UnifiedMomentum(0.5, 0)
    assert UnifiedMomentum.nesterov(F(1, 2)) == UnifiedMomentum(F(1, 2), 1)


@given(strategies.methods(exact=True), strategies.fractions(0, 5))
def test_displacement_form_is_eq_9(method, h):
    """(x, d) ← M(x, d) + bc of `theory.linear` against one literal update of (x, yˢ), exactly."""
    M, b = brute_force.one_step(h, method, 1)
    to_d = to_ys = np.array([[1, 0], [1, -1]])  # d = x − yˢ and yˢ = x − d
    steps = np.array([h], dtype=object)
    assert (linear.transition(steps, method)[0] == to_d @ np.array(M, dtype=object) @ to_ys).all()
    assert (linear.noise_gain(steps, method)[0] == to_d @ np.array(b, dtype=object)).all()
    β, s = method.momentum, method.s
    assert np.equal(M, [[1 + β - (1 + β * s) * h, -β], [1 - s * h, 0]]).all()
    assert np.equal(b, [(1 + β * s) * h, s * h]).all()


def test_special_methods_in_their_usual_form():
    """Heavy ball, Nesterov and plain descent, each in the form of its textbook, on one path."""
    gradient, rate, β = (lambda x: 3 * x - 1), F(1, 7), F(2, 5)

    def run(method, steps=6):
        x = ys = F(2)
        path = [x]
        for _ in range(steps):
            x, ys = brute_force.update(x, ys, gradient(x), rate, method)
            path.append(x)
        return path

    heavy = [F(2), F(2)]
    for _ in range(6):
        heavy.append(heavy[-1] - rate * gradient(heavy[-1]) + β * (heavy[-1] - heavy[-2]))
    assert run(UnifiedMomentum.heavy_ball(β)) == heavy[1:]

    x, y, nesterov = F(2), F(2), [F(2)]
    for _ in range(6):
        y, previous = x - rate * gradient(x), y
        x = y + β * (y - previous)
        nesterov.append(x)
    assert run(UnifiedMomentum.nesterov(β)) == nesterov

    plain = [F(2)]
    for _ in range(6):
        plain.append(plain[-1] - rate / (1 - β) * gradient(plain[-1]))
    assert run(UnifiedMomentum(β, 1 / (1 - β))) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.0), r"momentum must satisfy 0 <= momentum < 1, got 1\.0"),
        ((-0.1, 0.0), r"momentum must satisfy 0 <= momentum < 1, got -0\.1"),
        ((math.nan, 0.0), "momentum must satisfy 0 <= momentum < 1, got nan"),
        ((0.5, -1.0), r"s must be finite and >= 0, got -1\.0"),
        ((0.5, math.inf), "s must be finite and >= 0, got inf"),
        ((0.5, math.nan), "s must be finite and >= 0, got nan"),
    ],
)
def test_bad_methods(arguments, message):
    with pytest.raises(ValueError, match=message):
        UnifiedMomentum(*arguments)


@pytest.mark.parametrize("value", ["0.9", None, 1j])
def test_methods_hold_real_numbers(value):
    with pytest.raises(TypeError, match="momentum must be a real number, got"):
        UnifiedMomentum(value)


# StepwiseSchedule

stages = st.lists(
    st.tuples(strategies.fractions("1/20", 2), st.integers(1, 9)), min_size=1, max_size=5
)


@given(stages)
def test_a_schedule_is_one_rate_per_iteration(stages):
    rates, lengths = zip(*stages, strict=True)
    schedule = StepwiseSchedule(rates, lengths)
    literal = [rate for rate, length in stages for _ in range(length)]
    assert len(schedule) == len(literal) == sum(lengths)
    assert np.asarray(schedule).tolist() == literal
    assert np.asarray(schedule, dtype=float).tolist() == [float(rate) for rate in literal]
    assert schedule.boundaries[0] == 0
    assert schedule.boundaries[-1] == len(schedule)
    for (rate, length), t in zip(stages, schedule.boundaries[:-1], strict=True):
        assert literal[t : t + length] == [rate] * length
    joined = StepwiseSchedule.from_rates(literal)
    assert np.asarray(joined).tolist() == literal
    assert all(p != q for p, q in zip(joined.rates[:-1], joined.rates[1:], strict=True))


@given(stages, st.data())
def test_segments_are_a_slice(stages, data):
    schedule = StepwiseSchedule(*zip(*stages, strict=True))
    T = len(schedule)
    start = data.draw(st.integers(0, T), label="start")
    stop = data.draw(st.integers(start, T), label="stop")
    segments = list(schedule.segments(start, stop))
    assert [rate for rate, n in segments for _ in range(n)] == np.asarray(schedule).tolist()[
        start:stop
    ]
    assert all(n > 0 for _, n in segments)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11)])
def test_segments_outside_of_the_schedule(start, stop):
    schedule = StepwiseSchedule([1.0, 0.5], [4, 6])
    with pytest.raises(ValueError, match=f"need 0 <= start <= stop <= 10, got {start}, {stop}"):
        list(schedule.segments(start, stop))


def test_geometric():
    schedule = StepwiseSchedule.geometric(1.0, 0.5, [3, 2, 4, 1], min_rate=0.2)
    assert schedule == StepwiseSchedule([1.0, 0.5, 0.25, 0.2], [3, 2, 4, 1])
    assert StepwiseSchedule.geometric(0.3, 1.0, [1, 2]).rates == (0.3, 0.3)
    for factor in (0.0, 1.5, -1.0, math.nan):
        with pytest.raises(ValueError, match="factor must satisfy 0 < factor <= 1, got"):
            StepwiseSchedule.geometric(1.0, factor, [1])


def test_a_schedule_has_no_array_to_share():
    schedule = StepwiseSchedule.constant(0.1, 3)
    assert np.array(schedule, copy=True).tolist() == [0.1] * 3
    with pytest.raises(ValueError, match="copy=False is impossible"):
        np.array(schedule, copy=False)


@pytest.mark.parametrize(
    ("rates", "lengths", "message"),
    [
        ([], [], "equally many and at least one, got 0 and 0"),
        ([0.1], [1, 2], "equally many and at least one, got 1 and 2"),
        ([0.1, 0.0], [1, 1], r"every rate must be finite and > 0, got 0\.0"),
        ([-0.1], [1], r"every rate must be finite and > 0, got -0\.1"),
        ([math.nan], [1], "every rate must be finite and > 0, got nan"),
        ([math.inf], [1], "every rate must be finite and > 0, got inf"),
        ([0.1], [0], "every length must be a positive integer, got 0"),
        ([0.1], [2.0], r"every length must be a positive integer, got 2\.0"),
    ],
)
def test_bad_schedules(rates, lengths, message):
    with pytest.raises(ValueError, match=message):
        StepwiseSchedule(rates, lengths)
