"""Convex problems: subgradients, constants, certificates and noise, each by another route.

Points and data are multiples of 1/8 or 1/16: products of them are exact, so kinks are hit exactly,
on numpy and torch alike, and what underflow does is not the subject.
"""

import math
import sys
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize

from tests.strategies import examples
from tests.theory.chance import critical_z, z_scores
from theory import problems
from theory.problems import datasets, duality, losses, piecewise

EPS = np.finfo(float).eps
LOSSES = {
    "l1": losses.AbsoluteLoss(),
    "huber": losses.HuberLoss(0.75),
    "hinge": losses.HingeLoss(),
    "logistic": losses.LogisticLoss(),
}


def eighths(low, high):
    return st.integers(8 * low, 8 * high).map(lambda i: i / 8)


def arrays(shape, entries):
    return st.lists(entries, min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda values: np.array(values).reshape(shape)
    )


@st.composite
def max_affine(draw):
    """0 lies in the hull of the slopes: the first ones add up to 0, exactly."""
    n = draw(st.integers(1, 3), label="n")
    some = draw(arrays((draw(st.integers(1, 4)), n), eighths(-2, 2)), label="slopes")
    free = draw(arrays((draw(st.integers(0, 2)), n), eighths(-2, 2)), label="free slopes")
    A = np.vstack([some, -some.sum(axis=0), free])
    b = draw(arrays((len(A),), eighths(-2, 2)), label="intercepts")
    return problems.MaxAffine(A, b, draw(arrays((n,), eighths(-3, 3)), label="start"))


@st.composite
def finite_sums(draw, max_batch=3):
    """Full column rank by an identity among the rows; with both labels, so never separable."""
    n, loss = draw(st.integers(1, 3), label="n"), draw(st.sampled_from(list(LOSSES.values())))
    rows = draw(arrays((draw(st.integers(0, 3)), n), eighths(-2, 2)), label="rows")
    A = np.vstack([rows, np.eye(n), np.eye(n)])
    if loss.classes:
        labels = draw(arrays((len(rows),), st.sampled_from([-1.0, 1.0])), label="labels")
        b = np.concatenate([labels, np.ones(n), -np.ones(n)])
    else:
        b = draw(arrays((len(A),), eighths(-2, 2)), label="targets")
    batch = draw(st.integers(1, min(max_batch, len(A))), label="batch")
    start = draw(arrays((n,), eighths(-3, 3)), label="start")
    replacement = draw(st.booleans(), label="replacement")
    return problems.FiniteSum(A, b, loss, start=start, batch=batch, replacement=replacement)


@st.composite
def norms(draw):
    n = draw(st.integers(1, 3), label="n")
    scale = draw(eighths(1, 4), label="scale")
    c, x = (draw(arrays((n,), eighths(-3, 3))) for _ in "cx")
    return problems.Norm(scale, c, x)


@st.composite
def absolute_values(draw):
    return problems.AbsoluteValue(draw(eighths(1, 4)), draw(eighths(-3, 3)), draw(eighths(-3, 3)))


@st.composite
def additive(draw, problem):
    base = draw(problem)
    δ = draw(eighths(0, 2), label="δ")
    e = np.arange(1.0, base.dimension + 1)
    laws = [
        problems.TwoPointNoise(δ),
        problems.TwoPointNoise(δ, e),
        problems.GaussianNoise(δ),
    ]
    return problems.AdditiveNoise(base, draw(st.sampled_from(laws), label="law"))


DETERMINISTIC = absolute_values() | norms() | max_affine()
ALL = DETERMINISTIC | finite_sums() | additive(DETERMINISTIC | finite_sums())


@st.composite
def with_points(draw, problem, points=1):
    f = draw(problem)
    at = [draw(arrays((f.dimension,), eighths(-4, 4)), label="point") for _ in range(points)]
    return f, *at


def rounding(problem, *points):
    """Of a handful of operations on f, ∂f and the points: 64 ulp of what enters them."""
    size = sum(float(np.linalg.norm(x)) for x in points) + np.linalg.norm(problem.minimiser)
    return 64 * EPS * (1 + problem.subgradient_bound * (1 + size) + abs(problem.minimum))


@given(with_points(ALL, points=2))
def test_subgradients(case):
    """f(y) ≥ f(x) + ⟨g, y − x⟩ and ‖g‖ ≤ G."""
    f, x, y = case
    g = f.subgradient(x)
    slack = f.value(y) - f.value(x) - g @ (y - x)
    assert slack >= -rounding(f, x, y)
    assert np.linalg.norm(g) <= f.subgradient_bound * (1 + 64 * EPS)


def is_subgradient_bound(f, G, points):
    return all(np.linalg.norm(f.subgradient(x)) <= G * (1 + 64 * EPS) for x in points)


def test_wrong_subgradient_bounds_are_noticed():
    """G is attained by these; the mean slope or half of G is not a bound, and is seen."""
    points = np.linspace(-3, 3, 49)[:, None]
    f = problems.MaxAffine([[3.0], [-1.0]], 0.0)
    assert is_subgradient_bound(f, f.subgradient_bound, points)
    assert not is_subgradient_bound(f, np.abs(f.slopes).mean(), points)
    f = problems.l1_regression([[1.0], [2.0]], [0.0, 0.0])
    assert f.subgradient_bound == 1.5
    assert is_subgradient_bound(f, 1.5, points)
    assert not is_subgradient_bound(f, 0.75, points)


@given(with_points(ALL))
@example(  # f(x̂) rounds to below f*
    (problems.MaxAffine([[-0.5], [0.5], [-0.625]], [0.0, -1.25, 1.875]), np.zeros(1))
)
def test_brackets_and_constants(case):
    """minimum_lower ≤ f everywhere, minimum = f(x̂), and the gap is closed to rounding."""
    f, x = case
    assert f.minimum == f.value(f.minimiser)
    assert f.minimum_lower <= f.minimum
    assert f.minimum_lower <= f.value(x) + rounding(f, x)
    assert f.constants() == {
        "distance": np.linalg.norm(f.start - f.minimiser),
        "gap": max(0.0, f.value(f.start) - f.minimum),
        "subgradient": f.subgradient_bound,
        "noise": f.noise,
    }
    base = getattr(f, "problem", f)
    if isinstance(base, problems.FiniteSum):
        _, _, radius = duality.minimise(base.features, base.targets, base.loss)
        assert np.linalg.norm(f.minimiser) <= radius < math.inf
        assert f.optimality_gap <= rounding(f) + 64 * EPS * f.subgradient_bound * radius
    else:
        assert f.optimality_gap <= rounding(f)


def linear_minimum(slopes, offsets, groups):
    """min over x of the sum over groups of max_{j in group} ⟨a_j, x⟩ + b_j, as a primal LP."""
    n, count = slopes.shape[1], groups.max() + 1
    cost = np.concatenate([np.zeros(n), np.ones(count)])
    A = np.hstack([slopes, -np.eye(count)[groups]])
    solved = optimize.linprog(cost, A_ub=A, b_ub=-offsets, bounds=(None, None), method="highs-ipm")
    return solved.x[:n]


def independent_minimiser(f):
    """Primal programme by an interior-point method, or BFGS: neither is what `problems` uses."""
    if isinstance(f, problems.MaxAffine):
        return linear_minimum(f.slopes, f.intercepts, np.zeros(len(f.slopes), dtype=int))
    A, b = f.features, f.targets
    twice = np.tile(np.arange(len(b)), 2)
    if isinstance(f.loss, losses.AbsoluteLoss):
        return linear_minimum(np.vstack([A, -A]), np.concatenate([-b, b]), twice)
    if isinstance(f.loss, losses.HingeLoss):
        slopes = np.vstack([-b[:, None] * A, 0 * A])
        return linear_minimum(slopes, np.concatenate([np.ones(len(b)), np.zeros(len(b))]), twice)
    return optimize.minimize(f.value, np.zeros(f.dimension), jac=f.subgradient).x


@examples(0.5)
@given(max_affine() | finite_sums())
def test_minimum_against_another_solver(f):
    other = f.value(independent_minimiser(f))
    assert f.minimum_lower <= other + rounding(f)
    # x̂ is no worse than the other point: by more than its certificate it cannot be.
    assert f.minimum <= other + f.optimality_gap + rounding(f)
    # And the other solver comes as near as its tolerance, 1e-8 for HiGHS and 1e-5 in ∂f for BFGS.
    assert other <= f.minimum + 1e-5 * (1 + abs(f.minimum) + np.linalg.norm(f.minimiser))


def test_known_minima():
    median = problems.l1_regression(np.ones((5, 1)), [0.0, 1.0, 7.0, 2.0, 100.0])
    assert median.minimiser == pytest.approx([2.0], abs=8 * EPS)
    assert median.minimum == pytest.approx(21.2, abs=64 * EPS)
    p = 0.25  # of the labels are −1: x̂ = log 3 and f* is the entropy
    entropy = problems.logistic_regression(np.ones((4, 1)), [1.0, 1.0, 1.0, -1.0])
    assert entropy.minimum == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), abs=EPS)
    assert entropy.minimiser == pytest.approx([math.log(3)], abs=1e-7)  # root of EPS: f is flat
    crossing = problems.MaxAffine([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], [0.0, 1.0, 2.0])
    assert crossing.minimum == pytest.approx(1.0, abs=8 * EPS)
    assert crossing.minimum_lower <= 1.0
    flat_side = problems.MaxAffine([[1.0], [0.0]], [3.0, 1.0])
    assert flat_side.minimum == flat_side.minimum_lower == 1.0


def test_exact_multipliers():
    """Only λ ≥ 0 with Σ λ_j = 1 and Σ λ_j a_j = 0, exactly, proves a bound."""
    A, b = np.array([[1.0], [2.0], [-1.0], [0.1 + 0.2], [-0.3]]), np.arange(1.0, 6.0)

    def bound(*support):
        return piecewise._exact_lower_bound(A, b, np.array(support, dtype=int))

    assert bound(0, 2) == 2
    assert bound(1, 2) == Fraction(2 + 2 * 3, 3)
    assert bound(0, 1) is None  # λ = (2, −1)
    assert bound(0) is None
    assert bound() is None
    a, c = Fraction(A[3, 0]), -Fraction(A[4, 0])  # not the same number
    assert bound(3, 4) == (4 * c + 5 * a) / (a + c) != Fraction(9, 2)


def test_separable_hinge_loss_attains_zero():
    f = problems.hinge_loss([[1.0], [2.0], [-1.0]], [1.0, 1.0, -1.0])
    assert f.minimum == f.minimum_lower == 0


def test_a_certificate_needs_its_residual():
    """Without the term ‖Aᵀu‖ρ/N an infeasible u proves a 'lower bound' above f*."""
    f = problems.l1_regression(np.ones((3, 1)), [0.0, 1.0, 5.0])
    u = np.array([-1.0, -1.0, -1.0])
    solution = duality.minimise(f.features, f.targets, f.loss)
    honest = duality._dual_bound(f.features, f.targets, f.loss, u, solution.radius)
    wrong = duality._dual_bound(f.features, f.targets, f.loss, u, 0.0)
    assert honest <= f.minimum < wrong


def test_the_radius_holds_every_better_point():
    """f > f(x̂) beyond the radius, in every direction; a hundredth of it would not do."""
    f = problems.hinge_loss([[1.0], [2.0], [-1.0], [0.5]], [1.0, 1.0, 1.0, -1.0])
    u = duality._interior(f.features, *f.loss.domain(f.targets))
    level = f.value(np.array([20.0]))
    radius = duality._radius(f.features, f.targets, f.loss, u, level)
    far = np.linspace(radius, 100 * radius, 1000)[:, None]
    assert (f.value(far) >= level).all()
    assert (f.value(-far) >= level).all()
    assert f.value(np.array([radius / 100])) < level


def all_batches(f):
    indices = range(len(f.targets))
    some = product(indices, repeat=f.batch) if f.replacement else permutations(indices, f.batch)
    return np.array(list(some))


@given(with_points(finite_sums()))
def test_minibatches_by_enumeration(case):
    """E G_t = ∂f(x) and E‖G_t − ∂f(x)‖² over all batches, and the uniform bound of it."""
    f, x = case
    batches = all_batches(f)
    G = f.batch_subgradient(np.tile(x, (len(batches), 1)), batches)
    size = 64 * EPS * (1 + f.subgradient_bound + np.linalg.norm(f.features)) ** 2
    np.testing.assert_allclose(G.mean(axis=0), f.subgradient(x), rtol=0, atol=size)
    variance = ((G - f.subgradient(x)) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(f.noise_variance_at(x), variance, rtol=0, atol=size)
    assert variance <= f.noise**2 + size


def test_wrong_variances_are_noticed():
    """B counted twice, or the finite-population factor lost, is not the enumerated variance."""
    f = problems.l1_regression([[1.0], [2.0], [-1.0]], [0.0, 1.0, 0.0], batch=2, replacement=False)
    x = np.array([3.0])
    batches = all_batches(f)
    G = f.batch_subgradient(np.tile(x, (len(batches), 1)), batches)
    variance = ((G - f.subgradient(x)) ** 2).sum(axis=1).mean()
    right = f.noise_variance_at(x)
    assert right == pytest.approx(variance, abs=16 * EPS)
    with_replacement = problems.l1_regression(f.features, f.targets, batch=2).noise_variance_at(x)
    assert with_replacement == pytest.approx(2 * variance, abs=16 * EPS)  # (N − B)/(N − 1) = ½
    full = problems.l1_regression(f.features, f.targets, batch=3, replacement=False)
    assert full.noise == full.noise_variance_at(x) == 0
    # The uniform bound is attained: at x = 0 the two rows pull equally in opposite directions.
    tight = problems.l1_regression([[1.0], [-1.0]], [-1.0, -1.0], batch=1)
    assert tight.noise_variance_at(np.zeros(1)) == tight.noise**2 == 1


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["replacement", "permutation", "two-point", "line", "gaussian"])
def test_sampling(name, kind):
    """Mean and E‖·‖² of 100 000 draws; the false-alarm probability is that of `chance`."""
    A, b = [[1.0, 0.5], [2.0, -1.0], [-1.0, 0.25], [0.5, 3.0]], [0.0, 1.0, 0.5, -1.0]
    base = problems.Norm(1.5, [1.0, -2.0], [0.0, 0.0])
    f = {
        "replacement": problems.l1_regression(A, b, batch=2),
        "permutation": problems.l1_regression(A, b, batch=2, replacement=False),
        "two-point": problems.AdditiveNoise(base, problems.TwoPointNoise(0.8)),
        "line": problems.AdditiveNoise(base, problems.TwoPointNoise(0.8, [3.0, 4.0])),
        "gaussian": problems.AdditiveNoise(base, problems.GaussianNoise(0.8)),
    }[name]
    x = np.tile([0.75, 0.25], (100_000, 1))
    if kind == "numpy":
        G = f.stochastic_subgradient(x, np.random.default_rng(3))
    else:
        generator = torch.Generator().manual_seed(3)
        drawn = f.stochastic_subgradient(torch.tensor(x), generator)
        assert drawn.dtype == torch.float64
        G = drawn.numpy()
    centred = G - f.subgradient(x[0])
    squares = (centred**2).sum(axis=1)
    variance = f.noise_variance_at(x[0])
    if name in ("two-point", "line"):  # the norm does not vary
        np.testing.assert_allclose(squares, 0.64, rtol=16 * EPS)
        z = z_scores(centred.T, 0)
    else:
        z = np.append(z_scores(centred.T, 0), z_scores(squares, variance))
        assert abs(z_scores(squares, 1.1 * variance)) > critical_z(30)
    assert np.abs(z).max() <= critical_z(30)
    if name == "two-point":  # all four sign patterns, not two
        assert len(np.unique(np.sign(centred), axis=0)) == 4
    if name == "line":
        np.testing.assert_allclose(centred[:, 0] * 4, centred[:, 1] * 3, rtol=64 * EPS)


@pytest.mark.parametrize("replacement", [True, False])
def test_batches(replacement):
    """Every ordered batch is drawn as often as any other, and without replacement none repeats."""
    f = problems.l1_regression(np.ones((4, 1)), np.arange(4.0), batch=2, replacement=replacement)
    drawn = f.draw_batch(np.zeros((50_000, 1)), np.random.default_rng(4))
    expected = all_batches(f)
    hits = (drawn[:, None, :] == expected).all(axis=2)
    assert hits.any(axis=1).all()
    z = z_scores(hits.T.astype(float), 1 / len(expected))
    assert np.abs(z).max() <= critical_z(len(z))


@given(with_points(ALL, points=4))
@example((problems.hinge_loss(np.ones((2, 1)), [1.0, -1.0]), *np.ones((4, 1))))
def test_torch_is_numpy(case):
    """Same values on both, batched over two leading axes; on(x) changes nothing."""
    f, *points = case
    x = np.stack(points).reshape(2, 2, -1)
    t = torch.tensor(x)
    for g in (f, f.on(t)):
        for method in (g.value, g.subgradient, g.noise_variance_at):
            out = method(t)
            expected = getattr(f, method.__name__)(x)
            assert isinstance(out, torch.Tensor)
            assert out.dtype == torch.float64
            assert isinstance(expected, np.ndarray)
            size = rounding(f, *points) * (1 + f.noise) ** 2
            np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=size)
        drawn = g.stochastic_subgradient(t, np.random.default_rng(5))
        expected = f.stochastic_subgradient(x, np.random.default_rng(5))
        np.testing.assert_allclose(drawn.numpy(), expected, rtol=0, atol=rounding(f, *points))
    rows = [f.value(point) for point in points]
    np.testing.assert_allclose(f.value(x).ravel(), rows, rtol=0, atol=rounding(f, *points))


def test_moved_problems_hold_tensors_of_the_given_kind():
    f = problems.AdditiveNoise(problems.hinge_loss(np.eye(2), [1, -1]), problems.GaussianNoise(1))
    moved = f.on(torch.zeros(2, dtype=torch.float32))
    assert moved.problem.features.dtype == torch.float32
    assert moved.minimum == f.minimum
    assert isinstance(f.problem.features, np.ndarray)
    x = torch.zeros(3, 2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    for problem in (f, moved):
        assert problem.stochastic_subgradient(x, generator).dtype == torch.float32


def test_noise_adds_to_sampling():
    inner = problems.l1_regression([[1.0], [-1.0]], [-1.0, -1.0], batch=1)
    f = problems.AdditiveNoise(inner, problems.TwoPointNoise(2.0))
    assert f.noise == math.sqrt(5)
    assert f.noise_variance_at(np.zeros(1)) == 5
    assert f.minimum == inner.minimum


REAL = {
    "breast cancer, hinge": lambda: datasets.breast_cancer(losses.HingeLoss(), batch=8),
    "breast cancer, logistic": lambda: datasets.breast_cancer(batch=8),
    "diabetes, l1": lambda: datasets.diabetes(losses.AbsoluteLoss(), batch=8),
    "diabetes, huber": lambda: datasets.diabetes(losses.HuberLoss(0.5), batch=8),
    "digits, hinge": lambda: datasets.digits(losses.HingeLoss(), batch=8),
    "digits, logistic": lambda: datasets.digits(batch=8, digit=3),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    """f* within 1e-10 f*, every constant valid at random points."""
    f = REAL[name]()
    assert f.minimum_lower > 0
    assert f.optimality_gap <= 1e-10 * f.minimum  # a certificate: it proves its own accuracy
    x = 3 * np.random.default_rng(6).standard_normal((20, f.dimension))
    assert (f.value(x) >= f.minimum_lower).all()
    assert (np.linalg.norm(f.subgradient(x), axis=1) <= f.subgradient_bound).all()
    assert (f.noise_variance_at(x) <= f.noise**2).all()
    # The variance from the 1-row problems themselves, not from the formula.
    u = f.loss.derivative(f.features @ x[0], f.targets)
    each = u[:, None] * f.features
    np.testing.assert_allclose(
        f.noise_variance_at(x[0]),
        ((each - each.mean(axis=0)) ** 2).sum(axis=1).mean() / 8,
        rtol=8 * len(u) * EPS,
    )
    assert f.features[:, -1] == pytest.approx(1)
    np.testing.assert_allclose(f.features[:, :-1].std(axis=0), 1, rtol=8 * len(u) * EPS)
    assert set(f.constants()) == {"distance", "gap", "subgradient", "noise"}


def test_real_data_that_is_separable():
    f = datasets.breast_cancer(losses.HingeLoss(), features=30)
    assert f.minimum_lower == 0
    # Each of the 569 margins is 1 up to the rounding of its 31 products with |x̂| of several 100.
    assert f.minimum <= 64 * EPS * np.abs(f.features * f.minimiser).sum(axis=1).mean()
    with pytest.raises(ValueError, match="infimum of the logistic loss is not attained"):
        datasets.breast_cancer(features=30)


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="scikit-learn: install the extra `checks`"):
        datasets.breast_cancer()


def test_missing_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="needs scipy: install the extra `checks`"):
        problems.l1_regression([[1.0]], [0.0])
    given_point = problems.FiniteSum(
        [[1.0]], [0.0], losses.AbsoluteLoss(), minimiser=[0.0], minimum_lower=0.0
    )
    assert given_point.minimum == 0


A, B = [[1.0], [2.0]], [1.0, -1.0]
WITH = {"minimiser": [0.0], "minimum_lower": 0.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: problems.Norm(0.0, [1.0], 0.0), "scale must be finite and > 0, got 0"),
        (lambda: problems.Norm(1.0, [np.nan], 0.0), "centre must be finite, got nan"),
        (lambda: problems.Norm(1.0, [1.0], [1.0, 2.0]), r"start must be a scalar or have shape"),
        (lambda: problems.AbsoluteValue(1.0, [1.0, 2.0]), "centre must be a number"),
        (lambda: problems.MaxAffine([[1.0], [2.0]], 0.0), "f is not bounded below"),
        (lambda: problems.MaxAffine([[1.0], [-1.0]], [1.0] * 3), r"intercepts must be a scalar"),
        (lambda: problems.MaxAffine([1.0], 0.0), r"slopes must be non-empty with 2 axes"),
        (lambda: problems.l1_regression(A, [1.0]), r"targets must have shape \(2,\)"),
        (lambda: problems.hinge_loss(A, [1.0, 0.0]), "must be -1 or 1, got 0"),
        (lambda: problems.l1_regression(A, B, batch=0), "batch must be a positive integer, got 0"),
        (lambda: problems.l1_regression(A, B, batch=3, replacement=False), "must be <= 2, got 3"),
        (lambda: problems.l1_regression(A, B).draw_batch(np.zeros(1), None), "batch is None"),
        (lambda: problems.logistic_regression(A, [1.0, 1.0]), "is not attained"),
        (lambda: problems.huber_regression(A, B, width=0), "width must be finite and > 0, got 0"),
        (lambda: problems.TwoPointNoise(-1.0), "deviation must be finite and >= 0, got -1"),
        (lambda: problems.GaussianNoise(math.inf), "deviation must be finite and >= 0, got inf"),
        (lambda: problems.TwoPointNoise(1.0, [0.0]), "direction must not be 0"),
        (
            lambda: problems.AdditiveNoise(
                problems.AbsoluteValue(), problems.TwoPointNoise(1.0, [1.0, 2.0])
            ),
            r"direction must have the shape \(1,\)",
        ),
        (
            lambda: problems.FiniteSum(A, B, losses.AbsoluteLoss(), minimiser=[0.0]),
            "given together or not at all",
        ),
        (
            lambda: problems.FiniteSum(
                A, B, losses.AbsoluteLoss(), **(WITH | {"minimum_lower": 2})
            ),
            r"minimum_lower must be <= f\(minimiser\) = 1.0, got 2",
        ),
        (lambda: problems.AbsoluteValue().value(np.zeros(2)), r"x must have shape \(..., 1\)"),
        (lambda: datasets.breast_cancer(losses.AbsoluteLoss()), "loss must be one of two classes"),
        (lambda: datasets.diabetes(losses.HingeLoss()), "loss must be AbsoluteLoss"),
        (lambda: datasets.breast_cancer(features=31), r"features must be in 1 ... 30, got 31"),
        (lambda: datasets.digits(digit=10), r"digit must be in 0 ... 9, got 10"),
        (lambda: datasets.digits(resolution=3), "resolution must be 2, 4 or 8, got 3"),
    ],
)
def test_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.value([0.0]), "numpy array or a torch tensor, got list"),
        (lambda f: problems.AdditiveNoise(None, problems.GaussianNoise(1)), "problem must be a"),
        (
            lambda f: f.stochastic_subgradient(np.zeros(1), torch.Generator()),
            "got Generator for ndarray",
        ),
        (
            lambda f: f.stochastic_subgradient(torch.zeros(1), 0),
            "rng must be a numpy.random.Generator, or a torch.Generator .* got int for Tensor",
        ),
    ],
)
def test_bad_types(call, message):
    f = problems.AdditiveNoise(problems.AbsoluteValue(), problems.GaussianNoise(1))
    with pytest.raises(TypeError, match=message):
        call(f)


def test_problems_are_frozen():
    f = problems.MaxAffine([[1.0], [-1.0]], 0.0, 1.0)
    with pytest.raises(AttributeError):
        f.minimum = 0.0
    with pytest.raises(ValueError, match="read-only"):
        f.slopes[0] = 2.0
