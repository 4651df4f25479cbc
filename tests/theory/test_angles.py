"""The two exact expectations of an angle against closed forms, other quadratures and sampling."""

import math

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.theory.chance import critical_z, detectable, z_scores
from theory import NoisyQuadratic, angles, saturation

EPS = np.finfo(float).eps
TOLERANCE = 1e-9  # the default of both integrals, which their values must keep


def mode(uu, vv, correlation):
    uv = correlation * math.sqrt(uu * vv)
    return [[uu, uv], [uv, vv]]


@st.composite
def covariances(draw, max_modes=4, proportional=False):
    """(n, 2, 2); with E v_i²/E u_i² the same in all modes if `proportional`."""
    n = draw(st.integers(1, max_modes), label="modes")
    ratio = draw(st.floats(0.1, 10.0), label="E v²/E u²")
    C = []
    for _ in range(n):
        uu = draw(st.floats(0.01, 10.0))
        vv = ratio * uu if proportional else draw(st.floats(0.01, 10.0))
        C.append(mode(uu, vv, draw(st.floats(-0.99, 0.99))))
    return np.array(C)


def means(n):
    return st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=n, max_size=n)


# Expected cosine.


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(-1, 1))
def test_one_mode_is_arcsin(uu, vv, correlation):
    found = angles.expected_cosine([mode(uu, vv, correlation)]).value
    # Near ±1 arcsin turns a rounding of the correlation into its root.
    slope = math.sqrt(8 * EPS)
    exact = 2 / math.pi * math.asin(correlation)
    assert found == pytest.approx(exact, abs=TOLERANCE + (slope if abs(correlation) > 0.999 else 0))


@strategies.examples(0.3)
@given(st.integers(1, 300), st.floats(-0.999, 0.999))
def test_equal_modes_have_a_hypergeometric_cosine(n, ρ):
    """ρ Γ((n+1)/2)²/(Γ(n/2)Γ(n/2+1)) ₂F₁(½, ½; n/2+1; ρ²).

    Source: Hotelling, J. R. Stat. Soc. B 15 (1953), for the correlation with n degrees of freedom.
    """
    gammas = mpmath.gammaprod([(n + 1) / 2, (n + 1) / 2], [n / 2, n / 2 + 1])
    exact = ρ * gammas * mpmath.hyp2f1(0.5, 0.5, n / 2 + 1, ρ**2)
    found = angles.expected_cosine([mode(2.0, 0.3, ρ)] * n).value
    assert found == pytest.approx(float(exact), abs=TOLERANCE)


def sphere_expectation(C, function, nodes=48):
    """E function(angle from u to v) for n = 2 and zero means, over directions in R⁴.

    (u, v) = r (cos ψ (cos θ, sin θ), sin ψ (cos(θ + δ), sin(θ + δ))) has on the sphere the density
    (2π²)⁻¹ det^{−1/2} (ωᵀC⁻¹ω)⁻² with volume element sin ψ cos ψ dψ dθ dδ: no quadrature in p and
    q, no random hyperplane. `function` must be even and smooth on (0, π).
    """
    (P, Q), full = C, np.zeros((4, 4))
    full[np.ix_([0, 2], [0, 2])], full[np.ix_([1, 3], [1, 3])] = P, Q  # u_1, u_2, v_1, v_2
    x, w = np.polynomial.legendre.leggauss(nodes)
    ψ, wψ = np.pi / 4 * (x + 1), np.pi / 4 * w
    δ = np.pi / 2 * np.concatenate([x + 1, x - 1])
    wδ = np.pi / 2 * np.concatenate([w, w])
    θ = 2 * np.pi / (4 * nodes) * np.arange(4 * nodes)
    ψ, θ, δ = ψ[:, None, None], θ[None, :, None], δ[None, None, :]
    one = np.ones(np.broadcast_shapes(ψ.shape, θ.shape, δ.shape))
    ω = np.stack(
        [
            np.cos(ψ) * np.cos(θ) * one,
            np.cos(ψ) * np.sin(θ) * one,
            np.sin(ψ) * np.cos(θ + δ) * one,
            np.sin(ψ) * np.sin(θ + δ) * one,
        ]
    )
    form = np.einsum("iabc,ij,jabc->abc", ω, np.linalg.inv(full), ω)
    density = (np.sin(ψ) * np.cos(ψ) / form**2).mean(axis=1) * 2 * np.pi
    normalisation = 2 * np.pi**2 * math.sqrt(np.linalg.det(full))
    return float(wψ @ density @ (wδ * function(δ[0, 0]))) / normalisation


TWO_MODES = [
    np.array([mode(1.0, 1.0, -0.3), mode(1.0, 1.0, 0.2)]),
    np.array([mode(1.0, 2.0, -0.6), mode(3.0, 6.0, 0.4)]),
    np.array([mode(1.0, 0.5, 0.7), mode(2.0, 3.0, -0.5)]),
]


@pytest.mark.parametrize("C", TWO_MODES)
def test_two_modes_on_the_sphere(C):
    """Both expectations, and the sampled one, without Laplace and without hyperplanes."""
    fine, coarse = (
        [sphere_expectation(C, f, nodes) for f in (np.cos, np.abs)] for nodes in (56, 40)
    )
    accuracy = 1e-7  # of the reference: its two refinements must agree that far
    assert fine == pytest.approx(coarse, abs=accuracy)
    cosine, angle = fine
    assert angles.expected_cosine(C).value == pytest.approx(cosine, abs=accuracy + TOLERANCE)
    sampled = angles.sampled_angle(C, np.random.default_rng(7), 200_000)
    assert abs(sampled.value - angle) <= critical_z(len(TWO_MODES)) * sampled.error
    assert sampled.error < 2e-3
    if np.ptp(C[:, 1, 1] / C[:, 0, 0]) < 4 * EPS:
        assert angles.expected_angle(C).value == pytest.approx(angle, abs=accuracy + TOLERANCE)


def mean_direction(variance, mean):
    """E x/‖x‖ for x ~ N(mean, diag(variance)) in the plane: quadrature over x itself, polar."""
    far = np.linalg.norm(mean) + 9 * math.sqrt(max(variance))
    x, w = np.polynomial.legendre.leggauss(120)
    r, wr = far / 2 * (x + 1), far / 2 * w
    θ = 2 * np.pi / 240 * np.arange(240)
    X = np.stack([np.outer(r, np.cos(θ)), np.outer(r, np.sin(θ))])
    exponent = sum((X[i] - mean[i]) ** 2 / (2 * variance[i]) for i in (0, 1))
    density = np.exp(-exponent) / (2 * np.pi * math.sqrt(variance[0] * variance[1]))
    weight = density * (wr * r)[:, None] * (2 * np.pi / 240)
    return np.array([(weight * np.cos(θ)).sum(), (weight * np.sin(θ)).sum()])


@strategies.examples(0.2)
@given(st.lists(st.floats(0.1, 4.0), min_size=4, max_size=4), means(2))
def test_independent_vectors_with_means(variances, mean):
    """If u and v are independent, E cos = ⟨E u/‖u‖, E v/‖v‖⟩."""
    mean = np.array(mean)
    C = np.zeros((2, 2, 2))
    C[:, 0, 0], C[:, 1, 1] = variances[:2], variances[2:]
    product = mean_direction(variances[:2], mean[:, 0]) @ mean_direction(variances[2:], mean[:, 1])
    assert angles.expected_cosine(C, mean).value == pytest.approx(product, abs=1e-8)


@strategies.examples(0.3)
@given(st.floats(-0.95, 0.95), st.floats(-2, 2), st.floats(-2, 2))
def test_one_mode_with_means_is_a_quadrant_probability(correlation, μu, μv):
    """n = 1: E sign(u) sign(v) from the bivariate normal distribution function."""
    C, mean = mode(1.0, 1.0, correlation), [μu, μv]

    def inside(v):  # φ(v) E[sign u | v]
        m = μu + correlation * (v - μv)
        σ = math.sqrt(1 - correlation**2)
        return scipy.stats.norm.pdf(v - μv) * math.erf(m / (σ * math.sqrt(2)))

    exact = scipy.integrate.quad(
        inside, 0, μv + 12 if μv > -10 else 1, epsabs=1e-11, epsrel=1e-11, limit=200
    )[0]
    exact -= scipy.integrate.quad(inside, μv - 12, 0, epsabs=1e-11, epsrel=1e-11, limit=200)[0]
    assert angles.expected_cosine([C], [mean]).value == pytest.approx(exact, abs=1e-8)


def test_correlated_vectors_with_means_by_sampling():
    rng = np.random.default_rng(11)
    C = np.array([mode(1.0, 0.4, 0.8), mode(0.2, 2.0, -0.7), mode(3.0, 0.1, 0.3)])
    mean = np.array([[1.0, -0.5], [0.3, 0.8], [-2.0, 0.6]])
    draws = np.stack(
        [rng.multivariate_normal(m, c, size=400_000) for m, c in zip(mean, C, strict=True)], axis=-1
    )
    u, v = draws[:, 0], draws[:, 1]
    cosine = (u * v).sum(-1) / np.sqrt((u * u).sum(-1) * (v * v).sum(-1))
    exact = angles.expected_cosine(C, mean).value
    assert abs(z_scores(cosine, exact)) <= critical_z(1)
    assert detectable(cosine, 1) < 0.01
    # Negative controls: the ratio of moments, and each sign of the formula.
    inner = C[:, 0, 1] + mean.prod(axis=1)
    norms = (C[:, 0, 0] + mean[:, 0] ** 2).sum() * (C[:, 1, 1] + mean[:, 1] ** 2).sum()
    flipped = C * [[1, -1], [-1, 1]]
    for wrong in (
        inner.sum() / math.sqrt(norms),
        angles.expected_cosine(flipped, mean).value,
        angles.expected_cosine(C, mean * [1, -1]).value,
        angles.expected_cosine(C).value,
    ):
        assert abs(z_scores(cosine, wrong)) > critical_z(1)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=4))
def test_without_noise_the_cosine_is_that_of_the_means(shift):
    mean = np.array(shift) + 6.0 * np.arange(1, len(shift) + 1)[:, None]  # never zero
    u, v = mean.T
    exact = u @ v / math.sqrt((u @ u) * (v @ v))
    found = angles.expected_cosine(np.zeros((len(u), 2, 2)), mean).value
    assert found == pytest.approx(exact, abs=TOLERANCE)


@strategies.examples(0.25)
@given(covariances(), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.randoms(), st.data())
def test_cosine_invariances(C, scale_u, scale_v, random, data):
    n = len(C)
    mean = np.array(data.draw(means(n), label="means"))
    value = angles.expected_cosine(C, mean).value
    scale = np.array([scale_u, scale_v])
    order = random.sample(range(n), n)
    same = {
        "lengths": (C * scale[:, None] * scale, mean * scale),
        "order of modes": (C[order], mean[order]),
        "u and v exchanged": (C[:, ::-1, ::-1], mean[:, ::-1]),
        "a mode of nothing": (np.append(C, np.zeros((1, 2, 2)), 0), np.append(mean, [[0, 0]], 0)),
        "reflection of one axis": (C, mean * np.where(np.arange(n) == 0, -1, 1)[:, None]),
    }
    for what, arguments in same.items():
        assert angles.expected_cosine(*arguments).value == pytest.approx(
            value, abs=2 * TOLERANCE
        ), what
    turned = angles.expected_cosine(C * [[1, -1], [-1, 1]], mean * [1, -1]).value
    assert turned == pytest.approx(-value, abs=2 * TOLERANCE)
    assert -1 - TOLERANCE <= value <= 1 + TOLERANCE


def test_rotating_two_equal_modes():
    """In the plane of two equal modes only the length of the mean matters."""
    C = np.array([mode(1.0, 2.0, 0.4)] * 2)
    together = angles.expected_cosine(C, [[1.5, 1.0], [0.0, 0.0]]).value
    r = math.sqrt(0.5)
    turned = angles.expected_cosine(C, [[1.5 * r, r], [1.5 * r, r]]).value
    assert turned == pytest.approx(together, abs=2 * TOLERANCE)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9])
@strategies.examples(0.25)
@given(n=st.integers(1, 40), ρ=st.floats(-0.99, 0.99))
def test_the_error_of_the_cosine_is_honest(tolerance, n, ρ):
    gammas = mpmath.gammaprod([(n + 1) / 2, (n + 1) / 2], [n / 2, n / 2 + 1])
    exact = float(ρ * gammas * mpmath.hyp2f1(0.5, 0.5, n / 2 + 1, ρ**2))
    found = angles.expected_cosine([mode(1.0, 1.0, ρ)] * n, tolerance=tolerance)
    assert found.error <= tolerance
    # Halving the step squares the error of a rule that converges exponentially.
    assert abs(found.value - exact) <= found.error + 1e3 * EPS


# Expected angle.


def beta_angle(C, counts):
    """E∠ for two groups of equal modes: ρ_g depends on a Beta(n_1/2, n_2/2) share t only."""
    (c1, w1), (c2, w2) = ((m[0, 1], math.sqrt(m[0, 0] * m[1, 1])) for m in C)
    p, q = (count / 2 for count in counts)

    def integrand(θ):  # t = sin²θ
        t = math.sin(θ) ** 2
        density = 2 * math.sin(θ) ** (2 * p - 1) * math.cos(θ) ** (2 * q - 1)
        ρ = (c1 * t + c2 * (1 - t)) / (w1 * t + w2 * (1 - t))
        return density * math.acos(max(-1.0, min(1.0, ρ)))

    value, _ = scipy.integrate.quad(
        integrand, 0, math.pi / 2, epsabs=1e-13, epsrel=1e-13, limit=400
    )
    return value / math.exp(math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q))


@strategies.examples(0.4)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.floats(-0.99, 0.99), st.floats(-0.99, 0.99)),
    st.floats(0.01, 100),
    st.floats(0.1, 10),
)
def test_two_groups_of_modes_share_a_beta_variable(counts, correlations, weight, ratio):
    C = np.array([mode(u, ratio * u, ρ) for u, ρ in zip((1.0, weight), correlations, strict=True)])
    found = angles.expected_angle(np.repeat(C, counts, axis=0))
    assert found.value == pytest.approx(beta_angle(C, counts), abs=TOLERANCE + 1e-10)
    assert found.error <= TOLERANCE


def test_two_modes_by_arctan():
    """n = 2: P(ρ_g ≤ r) = (2/π) arctan √(−λ_1/λ_2) or its complement, λ_i = c_i − r w_i."""
    C = np.array([mode(1.0, 2.0, -0.6), mode(3.0, 6.0, 0.4)])
    c, w = C[:, 0, 1], np.sqrt(C[:, 0, 0] * C[:, 1, 1])
    low, high = np.sort(np.arccos(c / w))

    def below(φ):  # mode 0 has the smaller correlation: λ_0 < 0 < λ_1 inside
        λ = c - math.cos(φ) * w
        return 2 / math.pi * math.atan(math.sqrt(max(-λ[0], 0) / max(λ[1], 1e-300)))

    integral, _ = scipy.integrate.quad(below, low, high, epsabs=1e-12, epsrel=1e-12, limit=400)
    assert angles.expected_angle(C).value == pytest.approx(low + integral, abs=TOLERANCE + 1e-9)


@strategies.examples(0.2)
@given(covariances(max_modes=6, proportional=True))
def test_expected_angle_lies_between_its_modes(C):
    correlations = C[:, 0, 1] / np.sqrt(C[:, 0, 0] * C[:, 1, 1])
    value = angles.expected_angle(C).value
    low, high = np.arccos([correlations.max(), correlations.min()])
    assert low - TOLERANCE <= value <= high + TOLERANCE
    turned = angles.expected_angle(C * [[1, -1], [-1, 1]]).value
    assert turned == pytest.approx(math.pi - value, abs=2 * TOLERANCE)
    scaled = angles.expected_angle(C * np.outer([3e-5, 2e4], [3e-5, 2e4])[None]).value
    assert scaled == pytest.approx(value, abs=2 * TOLERANCE)
    assert angles.expected_angle(C[::-1]).value == pytest.approx(value, abs=2 * TOLERANCE)
    twice = angles.expected_angle(np.append(C, np.zeros((1, 2, 2)), axis=0)).value
    assert twice == pytest.approx(value, abs=2 * TOLERANCE)


SPECTRA = {
    "flat": np.arange(1, 31) / 16,
    "three decades": np.geomspace(2e-3, 1.9, 25),
    "few": np.array([0.1, 0.5, 1.9]),
    "one stiff": np.append(np.full(20, 1e-2), 1.8),
    "two stiff, many soft": np.append(np.linspace(0.01, 0.03, 50), [0.9, 1.8]),
    "one stiff, distinct soft": np.append(np.linspace(5e-3, 2e-2, 20), 1.8),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_expected_angle_against_sampling(name):
    problem = NoisyQuadratic(SPECTRA[name], 1.0)
    squared, product = saturation.window_step_moments(problem, 1.0)
    C = np.stack([np.stack([squared, product], -1), np.stack([product, squared], -1)], -1)
    sampled = angles.sampled_angle(C, np.random.default_rng(3), 100_000)
    exact = angles.expected_angle(C)
    assert abs(exact.value - sampled.value) <= critical_z(len(SPECTRA)) * sampled.error
    assert sampled.error < 1e-3
    assert exact.value == saturation.expected_angle(problem, 1.0)


def test_sampling_of_its_own():
    """The sampler and its standard error, and that the test can tell a wrong sign."""
    C = TWO_MODES[0]
    exact = angles.expected_angle(C).value
    runs = [angles.sampled_angle(C, np.random.default_rng(seed), 2_000) for seed in range(200)]
    z = np.array([(run.value - exact) / run.error for run in runs])
    # Σz² of 200 standard normals, two-sided at the same false-alarm probability.
    lowest, highest = scipy.stats.chi2.ppf([5e-7, 1 - 5e-7], len(z))
    assert lowest <= (z**2).sum() <= highest
    flipped = [angles.sampled_angle(C * [[1, -1], [-1, 1]], np.random.default_rng(0), 100_000)]
    assert abs(flipped[0].value - exact) > critical_z(1) * flipped[0].error
    again = angles.sampled_angle(C, np.random.default_rng(5), 1_000)
    assert again == angles.sampled_angle(C, np.random.default_rng(5), 1_000)


@strategies.examples(0.2)
@given(strategies.problems(max_modes=6), st.floats(0.05, 0.9), st.floats(0.05, 0.95))
def test_p2_ii_the_angle_rises_with_the_rate(problem, share, part):
    """arccos(−αa_min/2) ≤ E∠ ≤ arccos(−αa_max/2), and E∠ does not fall in α."""
    noisy = problem.curvature[problem.noise_variance > 0]
    high = share * 2 / max(problem.curvature)
    low = part * high
    values = [saturation.expected_angle(problem, α) for α in (low, high)]
    assert values[0] <= values[1] + 2 * TOLERANCE
    for α, value in zip((low, high), values, strict=True):
        assert math.acos(-α * min(noisy) / 2) - TOLERANCE <= value
        assert value <= math.acos(-α * max(noisy) / 2) + TOLERANCE


# What must be refused.

GOOD = np.array([mode(1.0, 2.0, 0.3), mode(2.0, 4.0, -0.1)])


@pytest.mark.parametrize("function", [angles.expected_cosine, angles.expected_angle])
def test_bad_covariances(function):
    for shape in ((2, 2), (0, 2, 2), (3, 2, 3)):
        with pytest.raises(ValueError, match=r"must have shape \(n, 2, 2\), got"):
            function(np.ones(shape))
    with pytest.raises(ValueError, match="covariance must be finite"):
        function(GOOD * [[math.nan, 1], [1, 1]])
    for bad in ([[1.0, 1.1], [1.1, 1.0]], [[-1.0, 0.0], [0.0, 1.0]], [[0.0, 0.1], [0.1, 1.0]]):
        with pytest.raises(ValueError, match="positive semi-definite"):
            function([bad])
    with pytest.raises(ValueError, match=r"E\|u\|² and E\|v\|² must be > 0, got"):
        function([[[0.0, 0.0], [0.0, 1.0]]])


def test_bad_means():
    for mean in (np.zeros(2), np.zeros((3, 2)), np.full((2, 2), math.inf)):
        with pytest.raises(ValueError, match=r"mean must be finite and have shape \(2, 2\)"):
            angles.expected_cosine(GOOD, mean)


def test_angle_needs_proportional_variances():
    with pytest.raises(ValueError, match=r"must be the same in all modes.*use sampled_angle"):
        angles.expected_angle(TWO_MODES[2])
    with pytest.raises(ValueError, match=r"samples must be >= 2, got 1"):
        angles.sampled_angle(GOOD, np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match=r"must be > 0, got"):
        angles.sampled_angle(np.zeros((1, 2, 2)), np.random.default_rng(0))


@pytest.mark.parametrize("function", [angles.expected_cosine, angles.expected_angle])
def test_an_integral_that_does_not_converge_raises(function, monkeypatch):
    monkeypatch.setattr(angles, "_MAX_REFINEMENTS", 2)
    with pytest.raises(angles.IntegrationError, match=r"above the tolerance 1\.00e-15 after 2"):
        function(GOOD, tolerance=1e-15)


@pytest.mark.parametrize("function", [angles.expected_cosine, angles.expected_angle])
def test_modes_too_small_to_be_squared(function):
    """Variances of 1e-216 are no reason to refuse, nor do they turn the angle."""
    small = np.array([mode(1e-216, 2e-216, -0.5)])
    alone = function(GOOD).value
    assert function(np.append(GOOD, small, axis=0)).value == pytest.approx(alone, abs=2e-9)
    assert function(GOOD * 1e-216).value == pytest.approx(alone, abs=2e-9)
