"""Every bound against exact evaluation, exact worst cases and exact arithmetic; and planted errors.

Floating-point comparisons allow ROUNDING relative to GR and the bound: a run of T ≤ 16 updates, and
a bound, are some thousands of operations with results of that size. Exact worst cases allow
SOLVER, the accuracy that `theory.worst_case` guarantees, in units of GR.
"""

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import sympy
from hypothesis import event, given, target
from hypothesis import strategies as st

from tests import strategies
from tests.theory import convex_reference as reference
from tests.theory.convex_reference import CONSTANTS
from theory import StepwiseSchedule, TorchMomentum, UnifiedMomentum, bounds, multipliers
from theory.noise_trees import noise_tree_worst_case
from theory.worst_case import ACCURACY, worst_case

F = Fraction
ONE_HALF = F(1, 2)
ROUNDING = 1e-9
SOLVER = 2 * ACCURACY
EXACT = {"distance": F(2), "subgradient": F(3), "gap": F(5), "noise": 0}

# ---- Values and exact arithmetic -----------------------------------------------------------------

TABLE = [  # printed (31), repaired, Theorem A; T = 12, α = ½ × 3, ⅓ × 4, ¼ × 5, R = G = F_0 = 1
    (UnifiedMomentum(), "0.3163", "0.3070", "0.3070"),
    (UnifiedMomentum(F(1, 2), 0), "0.7143", "0.5527", "0.4303"),
    (UnifiedMomentum(F(1, 2), 1), "1.1020", "0.8793", "0.4303"),
    (UnifiedMomentum(F(1, 2), 2), "1.4898", "1.2058", "0.4303"),
    (UnifiedMomentum(F(9, 10), 1), "7.8286", "5.8983", "1.4782"),
]


def check_table(name, bound):
    for method, *values in TABLE:
        value = bound(reference.table_schedule(F), method, distance=F(1), subgradient=F(1))
        assert isinstance(value, Fraction)
        expected = dict(zip(("printed_31", "repaired", "unified"), values, strict=True))[name]
        assert f"{float(value):.4f}" == expected


@pytest.mark.parametrize("name", ["printed_31", "repaired", "unified"])
def test_the_table_with_exact_numbers(name):
    check_table(name, getattr(bounds, name))


@pytest.mark.parametrize("bound", [bounds.unified, bounds.averaged])
def test_sympy_numbers_stay_exact(bound):
    half = sympy.Rational(1, 2)
    method = UnifiedMomentum(half, 0)
    given_rates = [half, half / 3]
    value = bound(given_rates, method, distance=sympy.sqrt(2), subgradient=sympy.Integer(1))
    floats = bound([0.5, 1 / 6], UnifiedMomentum(0.5), distance=2**0.5, subgradient=1.0)
    assert not value.has(sympy.Float)
    assert float(value) == pytest.approx(floats, rel=ROUNDING)


def test_a_schedule_an_array_and_a_list_are_the_same():
    schedule = StepwiseSchedule([0.5, 0.25], [2, 3])
    for bound in (bounds.unified, bounds.repaired, bounds.theorem_b, multipliers.last_iterate):
        values = {
            bound(rates, UnifiedMomentum(0.5), **CONSTANTS)
            for rates in (schedule, np.asarray(schedule), [0.5, 0.5, 0.25, 0.25, 0.25])
        }
        assert len(values) == 1


@st.composite
def exact_cases(draw):
    """A method with s ≤ 1/(1−β) or beyond, non-increasing rates, R, G and a gap ≤ GR; exact."""
    β = draw(strategies.fractions(0, "19/20"), label="momentum")
    σ = draw(strategies.fractions(0, "3/2"), label="σ")
    first = draw(strategies.fractions("1/20", 3), label="first rate")
    factors = draw(st.lists(st.just(F(1)) | strategies.fractions("1/20", 1), max_size=6))
    rates = [first]
    for factor in factors:
        rates.append(rates[-1] * max(factor, F(1, 20)))
    R = draw(strategies.fractions("1/10", 3), label="R")
    G = draw(strategies.fractions("1/10", 3), label="G")
    share = draw(strategies.fractions(0, 1), label="F_0/(GR)")
    event(f"beyond gradient descent: {σ > 1}")
    method = UnifiedMomentum(β, σ / (1 - β))
    return method, rates, {"distance": R, "subgradient": G, "gap": share * G * R, "noise": 0}


def check_unified_exactly(unified, method, rates, constants):
    dense, T = reference.dense_potential(method, rates), len(rates)
    η, R, G = dense.steps, constants["distance"], constants["subgradient"]
    numerator, e = R**2 / 2 + sum(step**2 for step in η) * G**2 / 2, 0
    if method.s * (1 - method.momentum) > 1:
        numerator += G**2 * sum(a * b for a, b in zip(η, dense.kernel, strict=True))
    else:
        W = dense.Z[:T, :T].T @ np.array(η, dtype=object)
        assert (W[1:] >= η[1:]).all()  # what non-increasing rates imply
        e = max(0, -W[0])
    value = unified(rates, method, **constants)
    assert value == (numerator + e * constants["gap"]) / (sum(η) + e)


@strategies.examples(0.4)
@given(exact_cases())
def test_theorem_a_is_what_its_proof_gives(case):
    method, rates, constants = case
    check_unified_exactly(bounds.unified, method, rates, constants)
    if method.s * (1 - method.momentum) <= 1:
        averaged = bounds.averaged(rates, method, **constants)
        assert averaged >= bounds.unified(rates, method, **constants)


def test_theorem_a_with_a_positive_excess_and_beyond():
    """The two branches that decide over e and over the extra term, for certain."""
    for method in (UnifiedMomentum(F(9, 10), 0), UnifiedMomentum(F(1, 2), 3)):
        check_unified_exactly(bounds.unified, method, [F(1, 3)] * 5, EXACT)
    assert bounds.unified([F(1, 3)] * 5, UnifiedMomentum(F(9, 10), 0), **EXACT) != bounds.unified(
        [F(1, 3)] * 5, UnifiedMomentum(F(9, 10), 0), **{**EXACT, "gap": 0}
    )


# ---- Structure: units, and how each constant enters ----------------------------------------------

STEPS = [F(1, 2), F(1, 3), F(1, 3), F(1, 5)]
NESTEROV = UnifiedMomentum(F(7, 10), 1)
ALL = [
    bounds.printed_31,
    bounds.repaired,
    bounds.averaged,
    bounds.unified,
    bounds.theorem_b,
    multipliers.best_iterate,
    multipliers.last_iterate,
]


def check_units(bound, noise=0.25, exact=False):
    """R → cR, G → dG, δ → dδ, F_0 → cdF_0, α → αc/d multiplies the bound by cd."""
    number = F if exact else float
    rates, method = [number(rate) for rate in STEPS], UnifiedMomentum(number(F(7, 10)), number(1))
    for c, d in product((F(1, 3), F(1), F(5)), (F(1, 2), F(1), F(7))):
        c, d = number(c), number(d)
        before = {"distance": number(1), "subgradient": number(1), "gap": number(F(3, 4))}
        before["noise"] = number(noise)
        after = {"distance": c, "subgradient": d, "gap": c * d * before["gap"]}
        after["noise"] = d * before["noise"]
        left = bound([rate * c / d for rate in rates], method, **after)
        right = c * d * bound(rates, method, **before)
        assert left == (right if exact else pytest.approx(right, rel=ROUNDING))


@pytest.mark.parametrize("bound", ALL)
def test_units(bound):
    check_units(bound)


@pytest.mark.parametrize("bound", ALL[:4])
def test_units_exactly(bound):
    check_units(bound, noise=0, exact=True)


@pytest.mark.parametrize("bound", ALL)
@pytest.mark.parametrize("method", [NESTEROV, UnifiedMomentum(0.9, 0)], ids=["nesterov", "heavy"])
def test_more_distance_subgradient_gap_or_noise_never_helps(bound, method):
    rates = [float(rate) for rate in STEPS]
    base = {"distance": 1.0, "subgradient": 1.0, "gap": 0.9, "noise": 0.5}
    for name in base:
        values = [
            bound(rates, method, **{**base, name: base[name] * factor})
            for factor in (0.25, 0.5, 0.8, 0.95, 1.0, 1.1, 2.0)
            if not (name == "gap" and base[name] * factor > 1)
        ]
        slack = ROUNDING * max(values)
        assert all(b >= a - slack for a, b in pairwise(values)), name


def check_variance_only(bound):
    """The bound is affine in δ²: (value(2δ) − value(0)) = 4 (value(δ) − value(0)), exactly."""
    method = UnifiedMomentum(F(1, 2), 0)
    none, once, twice = (
        bound(STEPS, method, **{**EXACT, "noise": noise}) for noise in (F(0), F(1), F(2))
    )
    assert once > none
    assert twice - none == 4 * (once - none)


@pytest.mark.parametrize("bound", ALL[:4])
def test_noise_enters_by_its_variance(bound):
    check_variance_only(bound)


def test_the_default_gap_is_what_convexity_gives():
    for bound in ALL:
        given_gap = bound([0.3] * 4, UnifiedMomentum(0.7), distance=2.0, subgradient=3.0, gap=6.0)
        default = bound([0.3] * 4, UnifiedMomentum(0.7), distance=2.0, subgradient=3.0)
        assert given_gap == default


# ---- Never violated ------------------------------------------------------------------------------


def guarantees(draw):
    """(name, bound, functional of the gaps), for every theorem whose hypotheses hold.

    The functional maps (T + 1, P) gaps to the P numbers that are bounded.
    """
    method, rates, constants = draw
    T = len(rates)

    def best(gaps):
        return gaps[:T].min(axis=0)

    def average(gaps):
        return reference.weighted_average(rates, gaps)

    torch = isinstance(method, TorchMomentum)
    beyond = not torch and method.s * (1 - method.momentum) > 1
    decreasing = reference.non_increasing(rates)
    found = []

    def add(theorem, functional, module=bounds):
        found.append((theorem, getattr(module, theorem)(rates, method, **constants), functional))

    if decreasing and not torch:
        add("printed_31", best)
        add("repaired", average)
        if not beyond:
            add("averaged", average)
    if beyond or (decreasing and not torch):
        add("unified", best)
    elif not beyond:
        dense = reference.dense_potential(method, rates)
        W = np.array(dense.Z[:T, :T].T @ np.array(dense.steps), dtype=float)
        if (W[1:] >= ROUNDING * max(dense.steps)).all():
            add("unified", best)
    if not beyond:
        add("theorem_b", best)
        add("best_iterate", best, multipliers)
        add("last_iterate", lambda gaps: gaps[T], multipliers)
    return found


def worst_ratios(draw, gaps):
    """{theorem: the largest of what is bounded ÷ its bound}; AssertionError at a violation."""
    ratios = {}
    scale = draw.constants["distance"] * draw.constants["subgradient"]
    for theorem, bound, functional in guarantees(draw):
        truth = float(functional(gaps).max())
        assert truth <= bound + ROUNDING * (scale + bound), (theorem, draw, truth, bound)
        ratios[theorem] = truth / bound
    return ratios


def optimal(draw, T):
    """The draw with R√(G²+δ²)/√T in reach: η = R/(√T √(G²+δ²)), or the best last-iterate rates."""
    method, c = draw.method, draw.constants
    V = math.hypot(c["subgradient"], c["noise"])
    constants = {**c, "gap": c["distance"] * c["subgradient"]}
    if isinstance(method, TorchMomentum) or method.s * (1 - method.momentum) > 1 or T % 2:
        rates = [c["distance"] / V / math.sqrt(T) * (1 - method.momentum)] * T
    else:
        arguments = {key: c[key] for key in ("distance", "subgradient", "noise")}
        rates = multipliers.last_iterate_rates(T, method, **arguments).tolist()
    return draw._replace(rates=rates, constants=constants)


def deterministic(seed, schedules, problems):
    """Ratios over random draws, each schedule with so many problems run literally."""
    rng = np.random.default_rng([5, seed])
    largest, applied = {}, {}
    for index in range(schedules):
        T = int(rng.integers(1, 13))
        draw = reference.random_draw(rng, T)
        if index % 5 == 0:
            draw = optimal(draw, T)
        R, G, gap, _ = draw.constants.values()
        drawn = reference.random_problems(rng, problems, T + 1, R, G).limit_gap(gap)
        for theorem, ratio in worst_ratios(draw, drawn.gaps(draw.method, draw.rates)).items():
            largest[theorem] = max(largest.get(theorem, 0.0), ratio)
            applied[theorem] = applied.get(theorem, 0) + 1
    return largest, applied


@pytest.mark.parametrize("seed", range(10))
def test_never_violated_by_20000_deterministic_draws(seed):
    largest, applied = deterministic(seed, schedules=50, problems=40)  # 2000 for each seed
    assert set(largest) == {bound.__name__ for bound in ALL}
    assert applied["theorem_b"] == applied["best_iterate"] == applied["last_iterate"] >= 30
    # The draws come near: a bound 2 % too small would be caught.
    for theorem in ("unified", "theorem_b", "best_iterate", "last_iterate"):
        assert largest[theorem] > 0.98, theorem


@pytest.mark.parametrize("seed", range(4))
def test_never_violated_in_expectation_over_all_noise_paths(seed):
    rng = np.random.default_rng([6, seed])
    largest = 0.0
    for index in range(25):
        T = int(rng.integers(1, 9))
        draw = reference.random_draw(rng, T, noisy=True)
        if index % 5 == 0:
            draw = optimal(draw, T)
        R, G, gap, δ = draw.constants.values()
        drawn = reference.random_problems(rng, 8, max(2, T + 1), R, G).limit_gap(gap)
        directions = rng.normal(size=(T, *drawn.start.shape))
        directions[:, ::2, 1:] = 0  # along the axis of the one-dimensional problems
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        switched = rng.random((T, len(drawn.start), 1)) < 0.8
        skew = np.where(rng.random(T) < 0.5, 0.5, rng.uniform(0.02, 0.98, T))
        noise = δ * switched * directions
        gaps = reference.expected_gaps(drawn, draw.method, draw.rates, noise, skew)
        largest = max(largest, *worst_ratios(draw, gaps).values())
    assert largest > 0.7


def test_the_noise_paths_are_enumerated():
    """E f(x_1) and E f(x_2) for f = |x| by hand, with skewed noise and a drop."""
    slopes = np.array([[[1.0], [-1.0]]])
    problems = reference.Problems(slopes, np.zeros((1, 2)), np.array([[1.0]]))
    p = np.array([0.2, 0.5])
    noise = np.array([[[1.0]], [[3.0]]])
    gaps = reference.expected_gaps(problems, UnifiedMomentum(), [1.0, 0.5], noise, p)
    # n_0 = 2 or −1/2 with probability 1/5, 4/5: x_1 = −2 or 1/2; then ±3.
    x_2 = {-2: (-2 - 0.5 * (-1 + 3), -2 - 0.5 * (-1 - 3)), 0.5: (0.5 - 2, 0.5 + 1)}
    by_hand = 0.2 * np.mean(np.abs(x_2[-2])) + 0.8 * np.mean(np.abs(x_2[0.5]))
    np.testing.assert_allclose(gaps[:, 0], [1, 0.2 * 2 + 0.8 * 0.5, by_hand], rtol=1e-14)


@st.composite
def absolute_values(draw):
    """A method, non-increasing rates, and f = G max(x − c, −ρx − d, 0) from x_0 = R = 1, G = 1."""
    β = draw(st.floats(0, 0.95), label="momentum")
    σ = draw(st.just(0.0) | st.floats(0, 1), label="σ")
    T = draw(st.integers(1, 10), label="T")
    rate = draw(st.floats(0.1, 3), label="first η √T") * (1 - β) / math.sqrt(T)
    factors = st.just(1.0) | st.floats(0.1, 1)
    rates = [rate]
    for _ in range(T - 1):
        rates.append(rates[-1] * draw(factors, label="factor"))
    ρ = draw(st.just(1.0) | st.floats(0, 1), label="ρ")
    c, d = draw(st.floats(0, 0.5), label="c"), draw(st.floats(0, 0.5), label="d")
    method = UnifiedMomentum(β, min(σ, 1 - 1e-12) / (1 - β))
    problem = reference.Problems(np.array([[[1.0], [-ρ]]]), np.array([[-c, -d]]), np.array([[1.0]]))
    return reference.Draw(method, rates, {**CONSTANTS, "gap": 1 - c, "noise": 0.0}), problem


@strategies.examples(0.6)
@given(absolute_values())
def test_never_violated_where_hypothesis_looks(case):
    draw, problem = case
    ratios = worst_ratios(draw, problem.gaps(draw.method, draw.rates))
    for theorem in ("unified", "averaged", "theorem_b", "best_iterate"):
        target(ratios[theorem], label=theorem)


# ---- Attained ------------------------------------------------------------------------------------

EIGHT = [(0, 0), (0.5, 0), (0.5, 1), (0.5, 2), (0.3, 0.7), (0.7, 2), (0.9, 9), (0.9, 10)]


def best_constant_rate(method, T, R=1.0, G=1.0):
    return [R / (G * math.sqrt(T)) * (1 - method.momentum)] * T


@pytest.mark.parametrize("T", [4, 9, 16])
@pytest.mark.parametrize("pair", EIGHT, ids=str)
def test_theorem_a_is_attained(pair, T):
    """A function that is run literally attains GR/√T, and no function does worse."""
    R, G = 3.0, 0.5
    method = UnifiedMomentum(*pair)
    rates = best_constant_rate(method, T, R, G)
    bound = bounds.unified(rates, method, distance=R, subgradient=G)
    gaps = reference.resisting(1, T, T, R, G).gaps(method, rates)[:T, 0]
    assert bound == pytest.approx(G * R / math.sqrt(T), rel=ROUNDING)
    np.testing.assert_allclose(gaps, bound, rtol=ROUNDING)
    if T < 16 or pair in EIGHT[1::3]:
        exact = worst_case(rates, method, distance=R, subgradient=G).value
        assert 0.999 <= exact / bound <= 1 + SOLVER * math.sqrt(T)


def test_nothing_beats_the_resisting_oracle():
    """min_t F_t ≥ GR/√T on it for any rates, so no bound can be smaller (s ≤ 1/(1−β), torch)."""
    rng = np.random.default_rng(11)
    for _ in range(60):
        T = int(rng.integers(1, 13))
        draw = reference.random_draw(rng, T)
        draw = draw._replace(constants=dict(CONSTANTS, gap=1.0, noise=0.0))
        if (np.diag(draw.method.step_matrix(draw.rates)) <= 0).any():
            continue
        gaps = reference.resisting(1, T, T, 1.0, 1.0).gaps(draw.method, draw.rates)[:T, 0]
        np.testing.assert_array_less(1 / math.sqrt(T) * (1 - ROUNDING), gaps)
        for theorem, bound, _ in guarantees(draw):
            if theorem != "last_iterate":
                assert bound >= 1 / math.sqrt(T) * (1 - ROUNDING), theorem


def test_beyond_gradient_descent_the_extra_term_is_needed():
    """σ = 1.1, T = 4: the exact worst case is above Theorem A without the extra term."""
    method = UnifiedMomentum(0.5, 2.2)
    rates = best_constant_rate(method, 4)
    exact = worst_case(rates, method, **CONSTANTS).value
    assert exact == pytest.approx(0.5011, abs=5e-5)
    without = bounds.unified(rates, UnifiedMomentum(0.5, 2.0), **CONSTANTS)
    assert without == pytest.approx(0.5, rel=ROUNDING)
    assert without + 100 * SOLVER < exact < bounds.unified(rates, method, **CONSTANTS)


@pytest.mark.parametrize("seed", range(6))
def test_never_below_the_exact_worst_case_under_two_point_noise(seed):
    rng = np.random.default_rng([7, seed])
    for _ in range(10):
        draw = reference.random_draw(rng, int(rng.integers(1, 6)), noisy=True)
        method, rates, constants = draw
        exact = {}
        for criterion in ("best", "last", tuple(rates)):
            tree = noise_tree_worst_case(rates, method, criterion=criterion, **constants)
            exact[criterion] = tree.value
        slack = SOLVER * constants["distance"] * constants["subgradient"]
        for theorem, bound, _ in guarantees(draw):
            about = {"repaired": tuple(rates), "averaged": tuple(rates), "last_iterate": "last"}
            assert exact[about.get(theorem, "best")] <= bound + slack, (theorem, draw)


# ---- Planted errors ------------------------------------------------------------------------------


def theorem_a(half=ONE_HALF, square=lambda rate: rate**2, moment=None):
    """Theorem A for (1−σ)β η_1 ≤ (1−β)η_0, to be spoilt."""

    def bound(rates, method, *, distance, subgradient, gap=None, noise=0):
        η = [rate / (1 - method.momentum) for rate in rates]
        V = subgradient**2 + noise**2 if moment is None else moment(subgradient, noise)
        return (distance**2 / 2 + half * sum(map(square, η)) * V) / sum(η)

    return bound


def check_tight(bound):
    method, T = UnifiedMomentum(F(1, 2), 0), 4
    rates = best_constant_rate(method, T)
    gaps = reference.resisting(1, T, T, 1.0, 1.0).gaps(method, rates)[:T, 0]
    value = bound(rates, method, **CONSTANTS)
    assert float(value) == pytest.approx(float(gaps.min()), rel=ROUNDING)


def units_of_a(bound):
    check_units(
        lambda rates, method, **constants: bound(rates, UnifiedMomentum(F(1, 2), 1), **constants),
        noise=0,
        exact=True,
    )


@pytest.mark.parametrize("check", [check_tight, check_variance_only, units_of_a])
def test_the_checks_accept_theorem_a(check):
    check(theorem_a())
    check(bounds.unified)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_tight, theorem_a(half=1)),  # true, not tight
        (check_tight, theorem_a(half=F(1, 4))),  # false
        (check_variance_only, theorem_a(moment=lambda G, δ: (G + δ) ** 2)),  # true, not sharp
        (check_variance_only, theorem_a(moment=lambda G, δ: G**2 + δ)),
        (units_of_a, theorem_a(square=lambda rate: rate)),
    ],
    ids=["lost-half", "quarter", "G-plus-delta-squared", "delta-not-squared", "rate-not-squared"],
)
def test_planted_errors_in_theorem_a(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize(
    "change",
    [
        lambda q, r: (r, q),
        lambda q, r: (-q, r),
        lambda q, r: (0 * q, r),
        lambda q, r: (q, 1 - r),
    ],
    ids=["q-r", "sign", "no-extrapolation", "1-r"],
)
def test_planted_errors_in_the_weights(monkeypatch, change):
    right = bounds.potential

    def wrong(method, rates):
        form = right(method, rates)
        q, r = change(form.extrapolation[1], form.r)
        return type(form)(form.steps, (0 * q,) + (q,) * len(rates), r, form.kernel)

    case = UnifiedMomentum(F(9, 10), 2), [F(1, 2)] * 4 + [F(1, 3)] * 2, EXACT
    check_unified_exactly(bounds.unified, *case)
    monkeypatch.setattr(bounds, "potential", wrong)

    def unified(rates, method, **constants):
        try:
            return bounds.unified(rates, method, **constants)
        except ValueError:
            return None

    with pytest.raises(AssertionError):
        check_unified_exactly(unified, *case)


def repaired(sign=1, half=2, square=lambda rate: rate**2):
    """The repaired bound for δ = 0, to be spoilt."""

    def bound(rates, method, *, distance, subgradient, gap=None, noise=0):
        α, β, s = list(np.asarray(rates).tolist()), method.momentum, method.s
        gap = distance * subgradient if gap is None else gap
        start = sign * β * α[1] * gap / (1 - β)
        cross = 2 * s * β * sum(a * b for a, b in pairwise(α))
        spent = (cross + sum(map(square, α))) * subgradient**2 / (half * (1 - β))
        return ((1 - β) * distance**2 / 2 + start + spent) / sum(α)

    return bound


def check_against_truth(bound):
    """The average on the resisting oracle is GR/√T, with β = 0.9 and T = 12."""
    method, T = UnifiedMomentum(0.9, 0), 12
    for scale in (0.5, 1.0, 2.0):
        rates = [scale * rate for rate in best_constant_rate(method, T)]
        gaps = reference.resisting(1, T, T, 1.0, 1.0).gaps(method, rates)
        average = float(reference.weighted_average(rates, gaps)[0])
        assert average <= bound(rates, method, **CONSTANTS) * (1 + ROUNDING)


def check_repaired_table(bound):
    check_table("repaired", bound)


def test_the_checks_accept_the_repaired_bound():
    for check in (check_against_truth, check_repaired_table):
        check(repaired())
        check(bounds.repaired)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_against_truth, repaired(sign=-1)),  # the summation by parts
        (check_repaired_table, repaired(sign=-1)),
        (check_repaired_table, repaired(half=1)),
        (check_repaired_table, repaired(square=lambda rate: rate)),
    ],
)
def test_planted_errors_in_the_repaired_bound(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


@pytest.mark.parametrize("theorem", ["unified", "repaired", "averaged", "theorem_b"])
def test_the_draws_find_a_bound_that_is_three_percent_too_small(monkeypatch, theorem):
    right = getattr(bounds, theorem)
    monkeypatch.setattr(bounds, theorem, lambda *args, **kwargs: 0.97 * right(*args, **kwargs))
    with pytest.raises(AssertionError, match=theorem):
        deterministic(0, schedules=50, problems=40)


# ---- Theorem B -----------------------------------------------------------------------------------


def test_theorem_b_nearly_attains_the_exact_worst_case():
    rates, method = [0.25 * 0.3] * 16, UnifiedMomentum(0.7, 0)
    bound = bounds.theorem_b(rates, method, **CONSTANTS)
    exact = worst_case(rates, method, **CONSTANTS).value
    assert f"{bound:.5f} {exact:.5f}" == "0.25891 0.25887"


@pytest.mark.parametrize("seed", range(3))
def test_theorem_b_is_never_above_theorem_a_or_the_gap(seed):
    rng = np.random.default_rng([8, seed])
    compared = 0
    for _ in range(100):
        draw = reference.random_draw(rng, int(rng.integers(1, 13)), noisy=bool(rng.integers(2)))
        found = {theorem: bound for theorem, bound, _ in guarantees(draw)}
        if "theorem_b" in found:
            assert found["theorem_b"] <= draw.constants["gap"] * (1 + ROUNDING)
            if "unified" in found:
                compared += 1
                assert found["theorem_b"] <= found["unified"] * (1 + ROUNDING)
    assert compared > 40


def formula_b(dense, θ, constants):
    """Theorem B's formula at θ_1 …, inf where the hypothesis fails, from the dense potential."""
    R, G = constants["distance"], constants["subgradient"]
    η, κ, T = np.array(dense.steps, float), np.array(dense.kernel, float), len(dense.steps)
    share = np.append(0.0, θ)
    # ⟨∂f(x_t), z_t − x*⟩: by convexity for the share θ_t, else F_t and Cauchy–Schwarz.
    rows = share[:, None] * np.array(dense.Z[:T, :T], float) + np.diag(1 - share)
    W = η @ rows
    if (W[1:] < -1e-12).any():
        return math.inf
    e = max(0.0, -W[0])
    product = G * math.hypot(G, constants["noise"])
    spent = R**2 / 2 + (G**2 + constants["noise"] ** 2) * (η**2).sum() / 2
    spent += e * constants["gap"] + product * ((1 - share) * η * κ).sum()
    return spent / (η.sum() + e)


@pytest.mark.parametrize(
    ("method", "rates"),
    [
        (UnifiedMomentum(0.7, 0), [0.15, 0.15, 0.15]),
        (UnifiedMomentum(0.9, 1), [0.1, 0.1, 0.02]),
        (UnifiedMomentum(0.5, 0), [0.02, 0.1, 0.4]),
        (TorchMomentum(0.9), [0.1, 0.1, 0.01]),
        (TorchMomentum(0.6), [0.5, 0.05, 0.05]),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_theorem_b_against_a_grid_of_shares(method, rates, noise):
    constants = {**CONSTANTS, "gap": 0.9, "noise": noise}
    dense = reference.dense_potential(method, rates)
    grid = np.linspace(0, 1, 41)
    least = min(formula_b(dense, θ, constants) for θ in product(grid, grid))
    bound = bounds.theorem_b(rates, method, **constants)
    assert bound <= least * (1 + ROUNDING)
    # The best shares are within 1/80 of the grid's, up to the constraints.
    assert bound == pytest.approx(min(least, 0.9), rel=0.03)


# ---- Theorems 5.1 and 5.2 ------------------------------------------------------------------------


@st.composite
def stage_schedules(draw):
    """Theorem 5.1's class: α̂_i ≤ 1/(i+2), strictly decreasing, and α̂_{−1} in (α̂_0, 1)."""
    n = draw(st.integers(1, 8), label="n")
    rates, above = [], Fraction(1)
    for i in range(n):
        factor = draw(strategies.fractions("1/10", "19/20"), label="factor")
        above = min(F(1, i + 2), above * factor)
        rates.append(above)
    lengths = draw(st.lists(st.integers(1, 12), min_size=n, max_size=n), label="lengths")
    previous = rates[0] + (1 - rates[0]) * draw(strategies.fractions("1/20", "19/20"))
    β = draw(strategies.fractions(0, "9/10"), label="momentum")
    σ = draw(strategies.fractions(0, 1), label="σ")
    method = UnifiedMomentum(β, σ / (1 - β))
    return StepwiseSchedule(rates, lengths), method, draw(st.none() | st.just(previous))


@strategies.examples(0.6)
@given(stage_schedules(), strategies.fractions(0, 1))
def test_theorem_5_1_is_above_what_it_is_derived_from(case, share):
    schedule, method, previous = case
    constants = {"distance": F(3, 2), "subgradient": F(2), "gap": 3 * share, "noise": F(1)}
    found = bounds.stages(schedule, previous)
    before = [schedule.rates[0] if previous is None else previous, *schedule.rates]
    steps = list(zip(schedule.lengths, schedule.rates, before, strict=False))
    assert found.kappa_1 == min(k * a for k, a, _ in steps)
    assert found.kappa_2 == max((i + 1) * k * a * b for i, (k, a, b) in enumerate(steps))
    assert found.failures == ()
    corrected = bounds.theorem_5_1(
        schedule, method, previous_rate=previous, form="corrected", **constants
    )
    printed = bounds.printed_31(schedule, method, previous_rate=previous, **constants)
    ours = bounds.theorem_5_1(schedule, method, previous_rate=previous, **constants)
    assert corrected >= printed * (1 - ROUNDING)
    assert ours >= bounds.unified(schedule, method, **constants) * (1 - ROUNDING)
    assert ours <= corrected * (1 + ROUNDING)
    wrong = bounds.theorem_5_1(
        schedule, method, previous_rate=previous, form="printed", **constants
    )
    assert wrong < corrected


@strategies.examples(0.4)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    strategies.fractions(0, "9/10"),
    strategies.fractions(0, 1),
)
def test_theorem_5_2_is_above_theorem_5_1(lengths, β, σ):
    schedule = StepwiseSchedule([F(1, i + 2) for i in range(len(lengths))], lengths)
    method, constants = UnifiedMomentum(β, σ / (1 - β)), {**CONSTANTS, "noise": 0.5}
    ours = bounds.theorem_5_2(schedule, method, **constants)
    assert ours >= bounds.unified(schedule, method, **constants) * (1 - ROUNDING)
    assert ours <= bounds.theorem_5_2(schedule, method, form="corrected", **constants)
    # Lemma 12.1, exactly: κ_1 n(n+3)/2 ≤ T ≤ κ_2 n(n+3)/2.
    n, κ = len(lengths), [k * rate for k, rate in zip(lengths, schedule.rates, strict=True)]
    assert min(κ) * n * (n + 3) <= 2 * sum(lengths) <= max(κ) * n * (n + 3)


def test_theorem_5_2_is_theorem_5_1_when_its_stages_are_even():
    """k_iα̂_i = κ for all i: n is known exactly from T, and κ_2 is the same in both theorems."""
    schedule = StepwiseSchedule([F(1, i + 2) for i in range(5)], [4 * (i + 2) for i in range(5)])
    κ, n, V = 4, 5, 1 + 0.25
    expected = (0.3 / 2 + V * κ * (1 + math.log(n)) / (2 * 0.3)) / (κ * n)
    method = UnifiedMomentum(0.7, 2)
    value = bounds.theorem_5_2(schedule, method, noise=0.5, **CONSTANTS)
    assert value == pytest.approx(expected, rel=ROUNDING)


def test_theorem_5_1_pays_for_the_start_under_large_momentum():
    """One stage of k, β = 0.9, s = 0: [(1−β)R²/2 + (β/(1−β) − 1)αF_0 + Vκ_2/(2(1−β))]/(kα)."""
    k, α, β, R, G, gap = 4, F(1, 2), F(9, 10), F(2), F(3), F(5)
    schedule, constants = StepwiseSchedule([α], [k]), {**EXACT, "gap": gap}
    # Theorem 5.1 has κ_2 = kα̂_0α̂_{−1}, Theorem 5.2 κ_2 = kα̂_0.
    for theorem, κ_2 in ((bounds.theorem_5_1, k * α**2), (bounds.theorem_5_2, k * α)):
        expected = ((1 - β) * R**2 / 2 + 8 * α * gap + G**2 * κ_2 / (2 * (1 - β))) / (k * α)
        value = theorem(schedule, UnifiedMomentum(β, 0), **constants)
        assert value == pytest.approx(float(expected), rel=ROUNDING)
    # With k = 1, α_1 is no rate of the schedule, and there is nothing to pay for.
    value = bounds.theorem_5_1(StepwiseSchedule([α], [1]), UnifiedMomentum(β, 0), **constants)
    expected = ((1 - β) * R**2 / 2 + G**2 * α**2 / (2 * (1 - β))) / α
    assert value == pytest.approx(float(expected), rel=ROUNDING)


def test_theorem_5_2_with_uneven_stages():
    """α̂ = ½, ⅓, k = 2, 9: κ_1 = 1, κ_2 = 3, T = 11; n ≥ ν(3) below, n ≤ ν(1) in the logarithm."""
    below, above = ((math.sqrt(9 + 88 / κ) - 3) / 2 for κ in (3, 1))
    assert below <= 2 <= above
    expected = (0.5 + 3 * (1 + math.log(above)) / 2) / below
    schedule = StepwiseSchedule([0.5, 1 / 3], [2, 9])
    value = bounds.theorem_5_2(schedule, UnifiedMomentum(), **CONSTANTS)
    assert value == pytest.approx(expected, rel=ROUNDING)


def counterexample():
    schedule = StepwiseSchedule([F(1, 2), F(1, 3), F(1, 4)], [8, 6, 8])
    return schedule, UnifiedMomentum(), {"distance": 0.3, "subgradient": 1.0}


def test_printed_40_is_violated():
    schedule, method, constants = counterexample()
    exact = worst_case(schedule, method, **constants).value
    printed = bounds.theorem_5_1(schedule, method, form="printed", **constants)
    assert f"{exact:.4f} > {printed:.4f}" == "0.2034 > 0.1906"
    for form in ("corrected", "unified"):
        assert bounds.theorem_5_1(schedule, method, form=form, **constants) > exact


@pytest.mark.parametrize("n", [1, 2])
def test_printed_40_is_violated_for_the_schedule_of_theorem_5_2(n):
    """α̂_{−1} → 1, β = 0. For n = 1, log 1 = 0 loses the whole last term."""
    schedule = StepwiseSchedule([F(1, i + 2) for i in range(n)], [[12], [6, 9]][n - 1])
    constants = {"distance": 0.3, "subgradient": 1.0}
    method, previous = UnifiedMomentum(), 1 - 1e-9
    exact = worst_case(schedule, method, **constants).value
    arguments = {**constants, "previous_rate": previous}
    assert bounds.theorem_5_1(schedule, method, form="printed", **arguments) < exact - SOLVER
    assert bounds.theorem_5_1(schedule, method, form="corrected", **arguments) > exact


@pytest.mark.parametrize("form", ["corrected", "unified"])
@pytest.mark.parametrize("theorem", [bounds.theorem_5_1, bounds.theorem_5_2])
def test_theorem_5_grows_with_every_constant_and_has_the_units_of_gr(theorem, form):
    schedule, method = StepwiseSchedule([0.5, 1 / 3], [3, 4]), UnifiedMomentum(0.9, 1)
    base = {"distance": 1.0, "subgradient": 1.0, "gap": 0.5, "noise": 0.5}
    value = theorem(schedule, method, form=form, **base)
    for name in base:
        assert theorem(schedule, method, form=form, **{**base, name: 1.5 * base[name]}) >= value
    # The rates are pure numbers here: only R → cR, G → cG, δ → cδ, F_0 → c²F_0 is a symmetry.
    scaled = {name: base[name] * (9 if name == "gap" else 3) for name in base}
    assert theorem(schedule, method, form=form, **scaled) == pytest.approx(9 * value, rel=ROUNDING)


# ---- Errors --------------------------------------------------------------------------------------

FIVE = UnifiedMomentum(0.5, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.repaired([0.1, 0.2], FIVE, **CONSTANTS), r"rates\[0\] = 0.1 < rates\[1\]"),
        (lambda: bounds.averaged([0.3, 0.2, 0.25], FIVE, **CONSTANTS), r"rates\[1\] = 0.2 <"),
        (lambda: bounds.printed_31([0.1, 0.2], FIVE, **CONSTANTS), "must not increase"),
        (lambda: bounds.unified([0.1, 0.01, 9.0], UnifiedMomentum(0.9), **CONSTANTS), "W_1 = -"),
        (lambda: bounds.unified([1, 0.01, 0.01], TorchMomentum(0.9), **CONSTANTS), "W_1 = -0.7"),
        (lambda: bounds.theorem_b([0.1], UnifiedMomentum(0.5, 2.1), **CONSTANTS), "s must be <="),
        (lambda: bounds.averaged([0.1], UnifiedMomentum(0.5, 2.1), **CONSTANTS), "got 2.1"),
        (lambda: bounds.unified([], FIVE, **CONSTANTS), "at least one entry"),
        (lambda: bounds.unified([0.1], FIVE, distance=-1, subgradient=1), "distance must .* -1"),
        (lambda: bounds.unified([0.1], FIVE, distance=1, subgradient=math.inf), "subgradient"),
        (lambda: bounds.repaired([0.1], FIVE, noise=-0.5, **CONSTANTS), "noise must be"),
        (lambda: bounds.theorem_b([0.1], FIVE, gap=math.nan, **CONSTANTS), "gap must be"),
        (lambda: bounds.theorem_5_1([0.6, 0.3], FIVE, **CONSTANTS), r"1/\(i\+2\), .* stage i = 0"),
        (lambda: bounds.theorem_5_1([0.5, 0.2, 0.25], FIVE, **CONSTANTS), "stage i = 2"),
        (lambda: bounds.theorem_5_1([0.5, 0.5, 0.4], FIVE, **CONSTANTS), "stage i = 1"),
        (lambda: bounds.theorem_5_1([0.5], FIVE, previous_rate=1, **CONSTANTS), "stage i = -1"),
        (lambda: bounds.theorem_5_1([0.5], FIVE, previous_rate=0.4, **CONSTANTS), "stage i = 0"),
        (lambda: bounds.theorem_5_1([0.5], FIVE, form="exact", **CONSTANTS), "got 'exact'"),
        (lambda: bounds.theorem_5_1([0.5], UnifiedMomentum(0.5, 3), **CONSTANTS), "s must be <="),
        (lambda: bounds.theorem_5_2([0.5, 0.3], FIVE, **CONSTANTS), r"rates\[1\] = 1/3, got 0.3"),
        (lambda: bounds.theorem_5_2([0.5], FIVE, form="printed", **CONSTANTS), "T > 9"),
    ],
)  # fmt: skip
def test_errors_name_the_hypothesis_and_where_it_fails(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("bound", [bounds.printed_31, bounds.repaired, bounds.averaged])
def test_bounds_for_unified_momentum_refuse_others(bound):
    with pytest.raises(TypeError, match="method must be a UnifiedMomentum"):
        bound([0.1], TorchMomentum(0.5), **CONSTANTS)
