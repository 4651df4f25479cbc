"""Hypothesis strategies for problems, methods, rates, schedules and whole runs.

Two number systems: `exact=True` gives small Fractions, on which identities are tested with no
tolerance; otherwise floats. The hypotheses of the theorems are built in, never filtered for:
`stable_rates` draws where a rate lies between 0 and the limit, and multiplies.
"""

from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from hypothesis import event, settings
from hypothesis import strategies as st

from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum


def examples(share):
    """This share of the profile's examples, for properties that cost more than others."""
    return settings(max_examples=max(1, round(share * settings().max_examples)))


def fractions(low, high, max_denominator=20):
    """Fractions in [low, high]."""
    return st.fractions(Fraction(low), Fraction(high), max_denominator=max_denominator)


def reals(low, high, exact):
    if exact:
        return fractions(low, high)
    return st.floats(float(Fraction(low)), float(Fraction(high)))


@st.composite
def problems(draw, exact=False, max_modes=6):
    """a in [1/4, 4], v in [0, 4] with v > 0 in a mode at least, x_0 in [−3, 3]; n = 1 … max_modes.

    Floats go further: a from 1e-3 to 10. A noise variance is 0 or ≥ 1/1000: what underflow does is
    not the subject.
    """
    n = draw(st.integers(1, max_modes), label="modes")
    event(f"modes: {n}")
    curvature = fractions("1/4", 4) if exact else st.floats(1e-3, 10.0)
    a = draw(st.lists(curvature, min_size=n, max_size=n), label="curvature")
    variance = st.just(Fraction(0) if exact else 0.0) | reals(
        "1/20" if exact else "1/1000", 4, exact
    )
    v = draw(st.lists(variance, min_size=n, max_size=n), label="noise variance")
    noisy = draw(st.integers(0, n - 1), label="a mode with noise")
    v[noisy] = draw(reals("1/10", 4, exact), label="its variance")
    start = draw(st.lists(reals(-3, 3, exact), min_size=n, max_size=n), label="start")
    return NoisyQuadratic(a, v, start)


@st.composite
def methods(draw, exact=False):
    """Plain SGD, heavy ball, Nesterov, s = 1/(1 − β), or any s in [0, 3]; β in [0, 0.95]."""
    kind = draw(st.sampled_from(["sgd", "heavy ball", "nesterov", "plain", "any"]), label="method")
    event(f"method: {kind}")
    if kind == "sgd":
        return UnifiedMomentum.sgd()
    β = draw(reals(0, "19/20", exact), label="momentum")
    if kind == "heavy ball":
        return UnifiedMomentum.heavy_ball(β)
    if kind == "nesterov":
        return UnifiedMomentum.nesterov(β)
    return UnifiedMomentum(β, 1 / (1 - β) if kind == "plain" else draw(reals(0, 3, exact)))


@st.composite
def stable_rates(draw, problem, method, exact=False):
    """α with α·a_max = θ·2(1 + β)/(1 + 2βs), 1/20 ≤ θ ≤ 19/20: inside of the stability region."""
    β, s = method.momentum, method.s
    θ = draw(reals("1/20", "19/20", exact), label="share of the largest stable rate")
    return θ * 2 * (1 + β) / (1 + 2 * β * s) / max(problem.curvature)


class Run(NamedTuple):
    """The arguments of `theory.moments.evolve`."""

    problem: NoisyQuadratic
    method: UnifiedMomentum
    schedule: StepwiseSchedule
    window: int


@st.composite
def runs(draw, exact=False, max_modes=6, max_window=6, max_iterations=40, max_stages=4):
    """A run of at least three windows, every rate stable, whose drops fall anywhere."""
    problem = draw(problems(exact, max_modes))
    method = draw(methods(exact))
    window = draw(st.integers(1, max_window), label="window")
    total = draw(st.integers(3 * window, max(3 * window, max_iterations)), label="iterations")
    cuts = draw(st.sets(st.integers(1, total - 1), max_size=max_stages - 1), label="drops at")
    edges = [0, *sorted(cuts), total]
    rates = [draw(stable_rates(problem, method, exact), label="rate") for _ in edges[1:]]
    lengths = [right - left for left, right in pairwise(edges)]
    event(f"stages: {len(lengths)}")
    event(f"drop inside of a window: {any(cut % window for cut in cuts)}")
    return Run(problem, method, StepwiseSchedule(rates, lengths), window)
