"""The final risk and its gradient, against exact arithmetic, autograd and complex steps.

Routes that share only the problem: `moments.evolve` on Fractions, whose difference quotients have
no rounding; eq. (9) run literally in torch, with autograd; a complex step on the risk itself.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, methods, problems, runs, stable_rates
from tests.theory.brute_force import update
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, final_risk, moments

EPS = np.finfo(float).eps
STEP = Fraction(1, 2**40)
PAPER = NoisyQuadratic.paper()
SGD = UnifiedMomentum.sgd()
NESTEROV = UnifiedMomentum.nesterov(0.9)


def sizes(problem, method, schedule):
    """Σ a (E|x|)² by stages, all signs taken positive: what rounding is relative to."""
    α = np.asarray(schedule, dtype=float)
    P, Q = (float(abs(gain)) for gain in method.gains)
    a, v = problem.curvature.astype(float), problem.noise_variance.astype(float)
    x, d = np.abs(problem.start.astype(float)), np.zeros(len(a))
    β = float(method.momentum)
    for rate in α:
        h, noise = rate * a, np.sqrt(v)
        x, d = np.abs(1 - P * h) * x + β * d + P * h * noise, Q * h * (x + noise) + β * d
    return float(a @ x**2)


@given(runs())
def test_the_risk_is_that_of_evolve(run):
    problem, method, schedule, _ = run
    risk, gradient = final_risk.risk_gradient(problem, method, schedule)
    expected = moments.evolve(problem, method, schedule).risk[-1]
    rounding = 64 * len(schedule) * EPS * sizes(problem, method, schedule)
    assert risk == pytest.approx(expected, rel=0, abs=rounding)
    assert final_risk.final_risk(problem, method, schedule) == risk
    assert gradient.shape == (len(schedule.rates),)


@given(runs(exact=True, max_modes=2, max_window=1, max_iterations=8, max_stages=3))
@examples(0.5)
def test_the_gradient_is_the_exact_difference_quotient(run):
    """(R(α̂_i + ε) − R(α̂_i − ε))/2ε in Fractions, ε = 2⁻⁴⁰: what is left is of the order of ε²."""
    problem, method, schedule, _ = run
    _, gradient = final_risk.risk_gradient(problem, method, schedule)

    def risk(rates):
        return moments.evolve(problem, method, StepwiseSchedule(rates, schedule.lengths)).risk[-1]

    scale = sizes(problem, method, schedule)
    for i, rate in enumerate(schedule.rates):
        up, down = (
            [*schedule.rates[:i], rate + side * STEP, *schedule.rates[i + 1 :]] for side in (1, -1)
        )
        exact = (risk(up) - risk(down)) / (2 * STEP)
        rounding = 1e3 * len(schedule) * EPS * (abs(float(exact)) + scale / float(rate))
        assert gradient[i] == pytest.approx(float(exact), rel=0, abs=rounding)


def literal(problem, method, rates, lengths):
    """½Σa E x_T², from eq. (9) on coefficients of (x_0, c_0, …, c_{T−1}), in torch."""
    total = torch.zeros((), dtype=torch.float64)
    for a, v, start in zip(problem.curvature, problem.noise_variance, problem.start, strict=True):
        basis = torch.eye(sum(lengths) + 1, dtype=torch.float64)
        x = ys = basis[0]
        t = 0
        for rate, length in zip(rates, lengths, strict=True):
            for _ in range(length):
                t += 1
                x, ys = update(x, ys, a * (x - basis[t]), rate, method)
        total = total + a * (x[0] ** 2 * start**2 + v * (x[1:] ** 2).sum()) / 2
    return total


@pytest.mark.parametrize(
    "method",
    [SGD, UnifiedMomentum.heavy_ball(0.7), NESTEROV, UnifiedMomentum(0.6, 2.5)],
    ids=str,
)
def test_the_gradient_is_that_of_autograd(method):
    problem = NoisyQuadratic([0.3, 1.0, 4.0], [0.5, 0.2, 0.1], [2.0, -1.0, 0.5])
    lengths = [1, 7, 12, 30]
    top = 0.9 * method.max_stable_step / 4.0
    rates = torch.tensor([top, 0.5 * top, 0.7 * top, 0.1 * top], dtype=torch.float64)
    rates.requires_grad_()
    expected = literal(problem, method, rates, lengths)
    (slope,) = torch.autograd.grad(expected, rates)
    schedule = StepwiseSchedule(rates.tolist(), lengths)
    risk, gradient = final_risk.risk_gradient(problem, method, schedule)
    assert risk == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, slope.numpy(), rtol=1e-11, atol=1e-12 * risk / top)


@pytest.mark.parametrize("method", [SGD, NESTEROV], ids=str)
@pytest.mark.parametrize(("steps", "stages"), [(2000, 25), (20_000, 25), (700, 700)])
def test_the_gradient_is_a_complex_step_on_the_papers_problem(method, steps, stages):
    """Over several chunks of stages in the last case."""
    rates = np.geomspace(0.05, 0.0005, stages)
    lengths = np.full(stages, steps // stages)
    run = final_risk.stage_risks(PAPER, method, rates, lengths)
    gradient = run.gradient().by_rate
    for i in (0, 1, stages // 2, stages - 1):
        moved = rates + 1j * 1e-30 * (np.arange(stages) == i)
        slope = final_risk.stage_risks(PAPER, method, moved, lengths).risks[-1].imag / 1e-30
        assert gradient[i] == pytest.approx(slope, rel=1e-10)


@pytest.mark.parametrize("method", [SGD, NESTEROV], ids=str)
def test_risks_after_every_stage(method):
    schedule = StepwiseSchedule([0.05, 0.02, 0.03, 0.001], [40, 60, 20, 80])
    rates, lengths = np.array(schedule.rates), np.array(schedule.lengths)
    run = final_risk.stage_risks(PAPER, method, rates, lengths)
    every = moments.evolve(PAPER, method, schedule, 20)
    np.testing.assert_allclose(run.risks, every.risk[np.cumsum(lengths) // 20], rtol=1e-12)
    # A weighted sum of them, whose gradient is the same sum of gradients.
    weights = np.array([0.0, 2.0, 0.0, 0.5])
    expected = np.zeros(4)
    for i in (1, 3):
        part = final_risk.stage_risks(PAPER, method, rates[: i + 1], lengths[: i + 1])
        expected[: i + 1] += weights[i] * part.gradient().by_rate
    np.testing.assert_allclose(run.gradient(weights).by_rate, expected, rtol=1e-10)


@pytest.mark.parametrize("method", [SGD, NESTEROV], ids=str)
def test_chunks_of_stages_change_nothing(method, monkeypatch):
    """64 stages to a chunk, whose maps are kept for one chunk and built again for the others."""
    problem, rates = NoisyQuadratic([0.5, 1.0, 2.0], 0.1, 1.0), np.geomspace(0.5, 0.01, 300)
    for lengths in (np.full(300, 3), np.full(300, 1), np.linspace(0, 4, 300)):
        whole = final_risk.stage_risks(problem, method, rates, lengths)
        expected = whole.gradient()
        with monkeypatch.context() as patch:
            patch.setattr(final_risk, "_CHUNK", 1)
            patch.setattr(final_risk, "_KEPT", 1)
            parts = final_risk.stage_risks(problem, method, rates, lengths)
            gradient = parts.gradient()
        assert (parts.risks == whole.risks).all()
        assert (gradient.by_rate == expected.by_rate).all()
        assert np.array_equal(gradient.by_length, expected.by_length)


# ---- Real lengths --------------------------------------------------------------------------------


@st.composite
def real_runs(draw):
    problem, method = draw(problems(max_modes=3)), draw(methods())
    stages = draw(st.integers(1, 4))
    rates = [draw(stable_rates(problem, method)) for _ in range(stages)]
    lengths = draw(st.lists(st.floats(0, 9), min_size=stages, max_size=stages))
    return problem, method, np.array(rates), np.array(lengths)


def risk_of(problem, method, rates, lengths):
    return final_risk.stage_risks(problem, method, rates, lengths).risks[-1]


@given(real_runs(), st.data())
@examples(0.5)
def test_a_fraction_of_an_iteration_is_one_made_with_that_probability(run, data):
    problem, method, rates, lengths = run
    i = data.draw(st.integers(0, len(rates) - 1))
    low, high = lengths.copy(), lengths.copy()
    low[i], high[i] = np.floor(lengths[i]), np.floor(lengths[i]) + 1
    share = lengths[i] - low[i]
    ends = [risk_of(problem, method, rates, each) for each in (low, high)]
    found = final_risk.stage_risks(problem, method, rates, lengths)
    total = int(np.ceil(lengths).sum()) + 1
    schedule = StepwiseSchedule(rates.tolist(), np.ceil(lengths + 1).astype(int).tolist())
    rounding = 1e3 * total * EPS * max(sizes(problem, method, schedule), *ends)
    mixture = (1 - share) * ends[0] + share * ends[1]
    assert found.risks[-1] == pytest.approx(mixture, rel=0, abs=rounding)
    # Linear in one length between whole numbers: its slope is that of the chord.
    by_length = found.gradient().by_length
    assert by_length[i] == pytest.approx(ends[1] - ends[0], rel=0, abs=rounding)


@given(real_runs())
@examples(0.3)
def test_whole_lengths_are_exact_as_real_ones(run):
    problem, method, rates, lengths = run
    whole = np.floor(lengths)
    real = final_risk.stage_risks(problem, method, rates, whole)
    same = final_risk.stage_risks(problem, method, rates, whole.astype(int))
    assert (real.risks == same.risks).all()
    assert (real.gradient().by_rate == same.gradient().by_rate).all()
    assert same.gradient().by_length is None


def test_real_lengths_have_a_gradient_by_the_rates():
    rates, lengths = np.array([0.06, 0.01, 0.002]), np.array([30.7, 11.25, 40.0])
    for method in (SGD, NESTEROV):
        gradient = final_risk.stage_risks(PAPER, method, rates, lengths).gradient().by_rate
        for i in range(3):
            moved = rates + 1j * 1e-30 * (np.arange(3) == i)
            slope = risk_of(PAPER, method, moved, lengths).imag / 1e-30
            assert gradient[i] == pytest.approx(slope, rel=1e-11)


# ---- Arguments -----------------------------------------------------------------------------------


def test_exact_problems_and_fractions_become_floats():
    problem = NoisyQuadratic([Fraction(1, 3), Fraction(2)], Fraction(1, 10), 1)
    method = UnifiedMomentum(Fraction(1, 2), Fraction(1, 3))
    schedule = StepwiseSchedule([Fraction(1, 2), Fraction(1, 5)], [3, 4])
    risk, gradient = final_risk.risk_gradient(problem, method, schedule)
    assert gradient.dtype == np.float64
    assert risk == pytest.approx(float(moments.evolve(problem, method, schedule).risk[-1]))


def test_stages_may_be_split_anywhere():
    rates, lengths = [0.05, 0.02], [40, 60]
    halves = StepwiseSchedule([0.05, 0.05, 0.02, 0.02], [17, 23, 1, 59])
    for method in (SGD, NESTEROV):
        risk, (first, second) = final_risk.risk_gradient(
            PAPER, method, StepwiseSchedule(rates, lengths)
        )
        same, parts = final_risk.risk_gradient(PAPER, method, halves)
        assert same == pytest.approx(risk, rel=1e-13)
        assert parts.reshape(2, 2).sum(axis=1) == pytest.approx([first, second], rel=1e-10)


def test_an_overflow_is_said_to_be_one():
    with pytest.raises(OverflowError, match=r"max learning_rate \* max curvature is 10.0, stable"):
        final_risk.final_risk(PAPER, SGD, StepwiseSchedule([0.5], [2000]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3.0, SGD, StepwiseSchedule([0.1], [3])), "problem must be a NoisyQuadratic, got 3.0"),
        ((PAPER, 0.9, StepwiseSchedule([0.1], [3])), "method must be a UnifiedMomentum, got 0.9"),
        ((PAPER, SGD, [0.1]), "schedule must be a StepwiseSchedule"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(TypeError, match=message):
        final_risk.risk_gradient(*arguments)


# ---- Planted mistakes ----------------------------------------------------------------------------


def late(right):
    """The adjoint of the stage before."""

    def gradient(self, weights=None):
        by_rate, by_length = right(self, weights)
        return final_risk.Gradient(np.roll(by_rate, 1), by_length)

    return gradient


def scaled(part, factor):
    def plant(right):
        def one_iteration(*args):
            maps = right(*args)
            return maps._replace(**{part: factor * getattr(maps, part)})

        return one_iteration

    return plant


@pytest.mark.parametrize(
    ("owner", "name", "plant"),
    [
        (final_risk.StageRisks, "gradient", late),
        (final_risk, "_one_iteration", scaled("c", 2)),
        (final_risk, "_one_iteration", scaled("dc", 0.5)),
        (final_risk, "_one_iteration", scaled("dA", 0.5)),
        (final_risk, "_one_iteration", scaled("dA", -1)),
    ],
    ids=["adjoint off by a stage", "noise", "slope of the noise", "slope", "sign"],
)
@pytest.mark.parametrize("method", [SGD, NESTEROV], ids=str)
def test_planted_mistakes_are_seen(owner, name, plant, method, monkeypatch):
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    with pytest.raises(AssertionError):
        test_the_gradient_is_that_of_autograd(method)
