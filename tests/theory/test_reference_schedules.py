"""Schedules by formula: their formulas word for word, their best parameters, and the oracle below.

ROUNDING is relative, for some hundreds of operations with numbers of the size of the result.
"""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from tests.theory.brute_force import update
from theory import (
    NoisyQuadratic,
    StepwiseSchedule,
    UnifiedMomentum,
    final_risk,
    oracle,
)
from theory import reference_schedules as references

ROUNDING = 1e-12
# A descent stops where the risk changes by 1e-13; jumps of t_0 gain at least 1e-6.
SEARCH = 2e-6
SGD = UnifiedMomentum.sgd()
NESTEROV = UnifiedMomentum.nesterov(0.8)
HEAVY_BALL = UnifiedMomentum.heavy_ball(0.5)
PAPER = NoisyQuadratic.paper()
PROBLEM = NoisyQuadratic(np.arange(1, 9) / 4, 0.05, 2.0)
T = 120


def max_with(floor, rates):
    return [max(floor, rate) for rate in rates]


def literal(name, p, floor, steps, stages=None):
    """The rates of a family, one for each iteration, from its formula."""
    t = range(steps)
    if name == "constant":
        return [p["rate"]] * steps
    if name == "geometric":
        lengths = np.diff([steps * i // stages for i in range(stages + 1)])
        stage = np.repeat(range(stages), lengths).tolist()
        return max_with(floor, [p["rate"] * p["factor"] ** i for i in stage])
    if name == "halving":
        return max_with(floor, [p["rate"] / 2 ** (i // int(p["gap"])) for i in t])
    if name == "polynomial":
        e = p["end"]
        return [e + (p["rate"] - e) * (1 - i / steps) ** p["power"] for i in t]
    if name == "cosine":
        e = p["end"]
        return [e + (p["rate"] - e) * (1 + math.cos(math.pi * i / steps)) / 2 for i in t]
    late = [max(0, i - p["start"]) / p["scale"] for i in t]
    return max_with(floor, [p["rate"] / (1 + each) for each in late])


FAMILIES = {
    "constant": references.constant,
    "geometric": partial(references.geometric, stages=10),
    "halving": references.halving,
    "polynomial": references.polynomial,
    "cosine": references.cosine,
    "constant_then_harmonic": references.constant_then_harmonic,
}


def stable(method, share=0.95):
    return share * method.max_stable_step / 2.0


@pytest.fixture(scope="module")
def best():
    """(family, method, floor) ↦ its best, each found once."""
    found = {}

    def of(name, method, floor=0.0):
        key = name, method, floor
        if key not in found:
            found[key] = FAMILIES[name](PROBLEM, method, T, stable(method), floor)
        return found[key]

    return of


CASES = [(SGD, 0.0), (SGD, 0.02), (NESTEROV, 0.0)]


@pytest.mark.parametrize(("method", "floor"), CASES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_schedule_and_risk_belong_to_the_parameters(name, method, floor, best):
    found = best(name, method, floor)
    assert found.name == name
    assert (found.max_rate, found.min_rate) == (stable(method), floor)
    rates = np.asarray(found.schedule)
    assert len(rates) == T
    assert rates.max() <= stable(method)
    assert rates.min() >= floor
    least = max(floor, 1e-9 * stable(method))
    expected = literal(name, found.parameters, least, T, stages=10)
    np.testing.assert_allclose(rates, expected, rtol=1e-10)
    assert found.risk == final_risk.final_risk(PROBLEM, method, found.schedule)


def drawn(name, rng, floor, cap):
    """Parameters of a family at random, within the limits."""
    low = max(floor, 1e-4 * cap)
    rate, end = np.exp(rng.uniform(math.log(low), math.log(cap), 2))
    return {
        "rate": rate if rng.random() < 0.5 else cap,
        "end": end,
        "factor": math.exp(-rng.uniform(0, 1)),
        "gap": rng.integers(1, T + 1),
        "power": math.exp(rng.uniform(math.log(1 / 16), math.log(64))),
        "start": rng.uniform(0, T),
        "scale": math.exp(rng.uniform(math.log(0.1), math.log(10 * T))),
    }


@pytest.mark.parametrize(("method", "floor"), CASES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_no_other_parameters_are_better(name, method, floor, best):
    """200 drawn at random, and 200 near to the best."""
    found = best(name, method, floor)
    cap, least = stable(method), max(floor, 1e-9 * stable(method))
    rng = np.random.default_rng(5)
    risks = []
    for i in range(400):
        p = drawn(name, rng, floor, cap)
        if i >= 200:
            near = {key: value * math.exp(rng.normal(0, 0.03)) for key, value in p.items()}
            near |= {
                key: value * math.exp(rng.normal(0, 0.03))
                for key, value in found.parameters.items()
            }
            p = near | {
                "rate": min(max(near["rate"], least), cap),
                "end": min(max(near["end"], least), cap),
                "factor": min(near["factor"], 1.0),
                "gap": max(1, round(near["gap"])),
            }
        rates = literal(name, p, least, T, stages=10)
        schedule = StepwiseSchedule.from_rates(np.clip(rates, least, cap).tolist())
        risks.append(final_risk.final_risk(PROBLEM, method, schedule))
    assert found.risk <= min(risks) * (1 + SEARCH)
    assert min(risks) < 1.1 * found.risk  # some do come close


@pytest.mark.parametrize(("method", "floor"), CASES, ids=str)
def test_the_oracle_is_below_all(method, floor, best):
    every = oracle.optimal_schedule(PROBLEM, method, T, T, stable(method), floor)
    stages = oracle.optimal_schedule(
        PROBLEM, method, T, 10, stable(method), floor, lengths="free", restarts=2
    )
    greedy = references.greedy(PROBLEM, method, T, stable(method), floor)
    risks = {name: best(name, method, floor).risk for name in FAMILIES} | {"greedy": greedy.risk}
    assert every.risk <= min(risks.values()) * (1 + ROUNDING)
    assert every.risk <= stages.risk < risks["geometric"]
    assert risks["constant"] > risks["geometric"]
    assert risks["greedy"] > 1.05 * every.risk


def test_families_that_contain_another_are_not_worse(best):
    """Cosine, polynomial and harmonic decay contain the constant; so does geometric decay."""
    for name in set(FAMILIES) - {"constant", "halving"}:
        assert best(name, SGD).risk <= best("constant", SGD).risk * (1 + SEARCH)
    each = references.geometric(PROBLEM, SGD, T, stable(SGD))
    one = references.geometric(PROBLEM, SGD, T, stable(SGD), stages=1)
    assert each.risk < best("constant", SGD).risk
    assert one.risk == pytest.approx(best("constant", SGD).risk, rel=1e-9)


def test_the_best_constant_rate_on_a_fine_grid(best):
    found = best("constant", SGD)
    grid = np.geomspace(1e-4, stable(SGD), 4000)
    risks = [
        final_risk.final_risk(PROBLEM, SGD, StepwiseSchedule.constant(rate, T)) for rate in grid
    ]
    assert found.risk <= min(risks)
    assert found.risk == pytest.approx(min(risks), rel=1e-5)
    assert found.parameters["rate"] == pytest.approx(grid[np.argmin(risks)], rel=3e-3)


# ---- Greedy --------------------------------------------------------------------------------------


def one_step_risk(problem, method, rates, rate):
    """½Σa E x_{t+1}² after the rates and this one, by eq. (9) on coefficients of (x_0, c_0, …)."""
    total = 0
    steps = [*rates, rate]
    for a, v, start in zip(problem.curvature, problem.noise_variance, problem.start, strict=True):
        basis = np.eye(len(steps) + 1, dtype=int).astype(object)
        x = ys = basis[0]
        for t, each in enumerate(steps):
            x, ys = update(x, ys, a * (x - basis[t + 1]), each, method)
        total += a * (x[0] ** 2 * start**2 + v * sum(x[1:] ** 2)) / 2
    return total


@pytest.mark.parametrize("method", [SGD, HEAVY_BALL, NESTEROV, UnifiedMomentum(0.6, 2.0)], ids=str)
def test_greedy_minimises_every_next_risk(method):
    """Its rate is the vertex of the parabola through three rates, in Fractions."""
    problem = NoisyQuadratic([0.3, 1.0, 3.0], [0.1, 0.4, 0.2], [-2.0, 1.0, 3.0])
    cap = stable(method, 0.3)
    found = references.greedy(problem, method, 8, cap, 0.01)
    exact = NoisyQuadratic(
        *(
            [Fraction(float(x)).limit_denominator(100) for x in part]
            for part in (problem.curvature, problem.noise_variance, problem.start)
        )
    )
    fractional = UnifiedMomentum(
        *(Fraction(x).limit_denominator(100) for x in (method.momentum, method.s))
    )
    rates = [Fraction(rate) for rate in np.asarray(found.schedule).tolist()]
    clipped = 0
    for t, rate in enumerate(rates):
        low, middle, high = (
            one_step_risk(exact, fractional, rates[:t], Fraction(k, 10)) for k in range(3)
        )
        bend, slope = high - 2 * middle + low, (4 * middle - 3 * low - high) / 2
        vertex = -slope / bend / 10
        clipped += not 0.01 <= vertex <= cap
        assert float(rate) == pytest.approx(min(max(float(vertex), 0.01), cap), rel=1e-9)
    assert clipped < 8


def test_greedy_with_the_exact_formula_of_sgd():
    """α_0 = Σa²x_0²/Σa³(x_0² + v)."""
    a, v = PAPER.curvature, 0.02
    found = references.greedy(PAPER, SGD, 1, 0.0999)
    assert found.schedule.rates[0] == pytest.approx(4 * (a**2).sum() / (a**3).sum() / (4 + v))
    assert found.parameters == {}


def test_greedy_at_the_minimum_takes_the_floor():
    found = references.greedy(NoisyQuadratic([1.0, 2.0], 0.1, 0.0), SGD, 5, 0.5, 0.2)
    assert found.schedule == StepwiseSchedule([0.2], [5])
    still = references.greedy(NoisyQuadratic([1.0, 2.0], 0.0, 0.0), SGD, 5, 0.5)
    assert still.risk == 0


# ---- The paper's problem -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "cap", "floor", "risk"),
    [
        (references.greedy, 0.0999, 0.0, 1.120422),
        (references.greedy, 0.06, 0.0, 1.119793),
        (references.constant, 0.0999, 0.0, 0.525205),
        (partial(references.geometric, stages=25), 0.0999, 0.0, 0.025618),
        (references.halving, 0.0999, 0.0, 0.026394),
        (references.halving, 0.06, 0.0, 0.028262),
    ],
)
def test_numbers_on_the_papers_problem(family, cap, floor, risk):
    """T = 2000; the oracle has 0.0151 and 0.0167 under these caps: greedy is short-sighted."""
    found = family(PAPER, SGD, 2000, cap, floor)
    assert found.risk == pytest.approx(risk, abs=6e-7)


def test_greedy_ends_with_slow_progress_rather_than_noise():
    """Of its final risk, the stationary risk at its last rate is less than a fifth."""
    found = references.greedy(PAPER, SGD, 2000, 0.0999)
    a, h = PAPER.curvature, found.schedule.rates[-1] * PAPER.curvature
    assert (a * h * 0.02 / (2 - h)).sum() / 2 < 0.2 * found.risk


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES.values(), references.greedy])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3.0, SGD, 10, 0.5), TypeError, "problem must be a NoisyQuadratic, got 3.0"),
        ((PROBLEM, 0.9, 10, 0.5), TypeError, "method must be a UnifiedMomentum, got 0.9"),
        ((PROBLEM, SGD, 0, 0.5), ValueError, "steps must be a positive integer, got 0"),
        ((PROBLEM, SGD, 10, 0.0), ValueError, "max_rate must be finite and > 0, got 0.0"),
        ((PROBLEM, SGD, 10, 0.5, 0.6), ValueError, "0 <= min_rate <= max_rate = 0.5, got 0.6"),
    ],
)
def test_bad_input(family, arguments, error, message):
    with pytest.raises(error, match=message):
        family(*arguments)


def test_more_stages_than_steps():
    with pytest.raises(ValueError, match="stages must be <= steps = 10, got 11"):
        references.geometric(PROBLEM, SGD, 10, 0.5, stages=11)


def test_a_floor_that_diverges():
    with pytest.raises(OverflowError, match=r"min_rate \* max curvature is 20.0, stable is < 2"):
        references.constant(PROBLEM, SGD, 2000, 20.0, 10.0)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_and_one_rate(name):
    """Nothing to choose."""
    family = references.geometric if name == "geometric" else FAMILIES[name]
    found = family(PROBLEM, SGD, 1, 0.3, 0.3)
    assert found.schedule == StepwiseSchedule([0.3], [1])


def test_seeds_lead_to_the_same(best):
    for name, family in FAMILIES.items():
        again = family(PROBLEM, SGD, T, stable(SGD), seed=7)
        assert again.risk == pytest.approx(best(name, SGD).risk, rel=SEARCH)
