"""Betting tests of E X ≤ m: validity by enumeration, coverage on heavy tails, power, numerics."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.theory.chance import FALSE_ALARM
from theory.confidence import detectable_factor, evidence_against, lower_confidence_bound

EPS = np.finfo(float).eps
ACCURACY = 2e-6  # twice the relative accuracy of the bisection
SAMPLES = st.lists(st.just(0.0) | st.floats(1e-3, 1e3), max_size=12, min_size=1)
BOUNDS = st.floats(1e-2, 1e2)


def literal_evidence(samples, bound):
    """max_n log mean_λ Π (1 + λ(X_i/m − 1)), term by term."""
    wealth = [1.0] * 32
    best = 1.0
    for x in samples:
        wealth = [w * (1 + 2 ** (-k / 2) * (x / bound - 1)) for k, w in enumerate(wealth)]
        best = max(best, sum(wealth) / 32)
    return math.log(best)


@given(SAMPLES, BOUNDS)
def test_evidence_is_the_literal_wealth(samples, bound):
    expected = literal_evidence(samples, bound)
    # A sum of ≤ 12 logarithms of size ≤ log 1e5 each, a few roundings per operation.
    rounding = 20 * len(samples) * math.log(1e5) * EPS
    assert abs(evidence_against(samples, bound) - expected) <= rounding * (1 + expected)


def rejection_probability(p, bound, threshold, n=10):
    """P(evidence against E X ≤ bound reaches the threshold), X = 1/p with probability p, else 0."""
    total = 0.0
    for path in product((0, 1), repeat=n):
        if evidence_against(np.array(path) / p, bound) >= threshold:
            ones = sum(path)
            total += p**ones * (1 - p) ** (n - ones)
    return total


@pytest.mark.parametrize("p", [0.8, 0.5, 0.1])
def test_false_alarms_by_enumeration(p):
    """E X = 1: P(rejecting E X ≤ 1) ≤ a exactly, over all 2^10 paths; a wrong bound breaks it."""
    error_probability = 0.2
    threshold = -math.log(error_probability)
    assert rejection_probability(p, 1.0, threshold) <= error_probability
    assert rejection_probability(p, 0.1, threshold) > error_probability


def heavy_tails(rng, shape):
    """Laws of mean 1: lognormal with σ = 2, Pareto of index 1.5 (infinite variance), spikes."""
    σ, index, p = 2.0, 1.5, 0.02
    return {
        "lognormal": np.exp(σ * rng.standard_normal(shape) - σ**2 / 2),
        "pareto": (1 + rng.pareto(index, shape)) * (index - 1) / index,
        "spikes": (rng.random(shape) < p) / p,
        "constant": np.ones(shape),
    }


@pytest.mark.parametrize("law", ["lognormal", "pareto", "spikes", "constant"])
def test_coverage_on_heavy_tails(law):
    """1000 experiments of 100 samples: at most a of the lower bounds lie above the mean.

    The number allowed is a binomial quantile, so a valid bound fails with probability
    ≤ FALSE_ALARM; an experiment in ten that fails would be seen.
    """
    experiments, error_probability = 1000, 0.05
    samples = heavy_tails(np.random.default_rng(1), (experiments, 100))[law]
    threshold = -math.log(error_probability)
    failures = sum(evidence_against(X, 1.0) >= threshold for X in samples)
    allowed = binom.isf(FALSE_ALARM, experiments, error_probability)
    assert failures <= allowed < 0.1 * experiments
    # The same experiments against a fiftieth of the mean: whoever never rejects fails here.
    seen = sum(evidence_against(X, 0.02) >= threshold for X in samples)
    assert seen > experiments / 2


def test_power():
    """Exponential gaps 20 % above the bound, 5000 of them, are seen at an error of 1e-6.

    The best bet λ ≈ 0.17 earns about 0.017 nats a sample, 85 ± 13 in all, against the 17.3 needed:
    missed with a probability below 1e-6.
    """
    X = np.random.default_rng(2).exponential(1.2, 5000)
    assert lower_confidence_bound(X, 1e-6) > 1
    assert detectable_factor(X, 1.0, 1e-6) < 1
    factor = detectable_factor(X, 1.3, 1e-6)
    assert 1 < factor < 1.3
    assert evidence_against(factor * (1 + ACCURACY) * X, 1.3) >= math.log(1e6)
    assert evidence_against(X, 1.3) < math.log(1e6)


@given(SAMPLES, st.floats(1e-6, 0.5))
def test_lower_bound_is_the_edge_of_what_is_rejected(samples, error_probability):
    lower = lower_confidence_bound(samples, error_probability)
    if max(samples) == 0:
        assert lower == 0
        return
    threshold = -math.log(error_probability)
    # exp(log m) rounds m by a few units in the last place, hence the 4 EPS.
    assert evidence_against(samples, lower * (1 - 4 * EPS)) >= threshold * (1 - 100 * EPS)
    assert evidence_against(samples, lower * (1 + ACCURACY)) < threshold
    assert lower <= max(samples)


@given(SAMPLES, BOUNDS, st.floats(1, 10))
def test_evidence_falls_with_the_bound(samples, bound, factor):
    rounding = 20 * len(samples) * math.log(1e5) * EPS
    larger = evidence_against(samples, factor * bound)
    assert larger <= evidence_against(samples, bound) * (1 + rounding) + rounding


@given(SAMPLES, st.integers(-40, 40))
def test_units_do_not_matter(samples, power):
    lower = lower_confidence_bound(samples, 0.1)
    scaled = lower_confidence_bound(np.ldexp(samples, power), 0.1)
    np.testing.assert_allclose(scaled, math.ldexp(lower, power), rtol=ACCURACY)


def test_evidence_keeps_its_maximum():
    """More samples never take evidence back: the test may be looked at after each of them."""
    assert evidence_against([10.0] * 5 + [0.0] * 50, 1.0) == evidence_against([10.0] * 5, 1.0) > 0


def test_extremes():
    assert evidence_against([], 1.0) == lower_confidence_bound([], 0.1) == 0
    assert evidence_against(np.zeros(9), 0.0) == lower_confidence_bound(np.zeros(9), 0.1) == 0
    assert evidence_against([0.0, 1e-300], 0.0) == math.inf
    assert evidence_against([1.0], math.inf) == 0
    assert evidence_against([0.0, 1e-300], 1e300) == 0
    assert math.isfinite(evidence_against([1e308] * 9, 1e-308))
    assert 0 < lower_confidence_bound([1e300] * 99, 1e-3) < 1e300
    assert detectable_factor(np.zeros(9), 1.0, 0.1) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evidence_against([1.0, -1e-9], 1.0), "must be finite and >= 0, got -1e-09"),
        (lambda: evidence_against([np.nan], 1.0), "must be finite and >= 0, got nan"),
        (lambda: lower_confidence_bound([np.inf], 0.1), "must be finite and >= 0, got inf"),
        (lambda: evidence_against([[1.0]], 1.0), r"one axis, got shape \(1, 1\)"),
        (lambda: evidence_against([1.0], -1.0), "bound must be >= 0, got -1"),
        (lambda: evidence_against([1.0], math.nan), "bound must be >= 0, got nan"),
        (lambda: lower_confidence_bound([1.0], 0.0), "0 < error_probability < 1, got 0"),
        (lambda: lower_confidence_bound([1.0], 1.0), "0 < error_probability < 1, got 1"),
        (lambda: detectable_factor([1.0], 0.0, 0.1), "positive and finite, got 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
