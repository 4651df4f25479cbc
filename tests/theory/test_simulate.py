"""Simulated trajectories: their law, the literal recursion, devices and bad input."""

import numpy as np
import pytest
import torch

from tests.theory import brute_force
from tests.theory.chance import critical_z, detectable, standard_error, z_scores
from theory import NoisyQuadratic, StepwiseSchedule, UnifiedMomentum, moments, simulate

EPS = np.finfo(float).eps
PROBLEM = NoisyQuadratic(
    [0.3, 0.8, 2.0, 5.0, 9.0], [0.5, 0.02, 1.0, 0.3, 0.1], [2.0, -1.0, 0.5, 1.0, -3.0]
)
TWO_DROPS = StepwiseSchedule([0.11, 0.05, 0.02], [45, 35, 45])  # both inside of windows of 8
METHODS = {
    "sgd": UnifiedMomentum.sgd(),
    "heavy ball": UnifiedMomentum.heavy_ball(0.8),
    "nesterov": UnifiedMomentum.nesterov(0.6),
}


def discrepancies(ensemble, risk, inner, squared_norm, cosine):
    """z of every window: E f at t > 0, E⟨u, v⟩, E‖u‖², E cos."""
    return np.concatenate(
        [
            z_scores(ensemble.risk[1:], risk[1:]),
            z_scores(ensemble.inner, inner),
            z_scores(ensemble.squared_norm, squared_norm),
            z_scores(ensemble.cosine, cosine),
        ]
    )


@pytest.mark.parametrize("name", METHODS)
def test_moments_agree_with_100_000_trajectories(name):
    """At every window, with two drops; the same paths reject each of a list of wrong formulas."""
    method, k = METHODS[name], 8
    exact = moments.evolve(PROBLEM, method, TWO_DROPS, k)
    ensemble = simulate.run(
        PROBLEM, method, TWO_DROPS, trajectories=100_000, seed=1, window=k, dtype=torch.float64
    )
    cosine = exact.expected_cosine()
    truth = (exact.risk, exact.inner, exact.squared_norm, cosine)
    z = discrepancies(ensemble, *truth)
    bound = critical_z(len(METHODS) * len(z))
    assert np.abs(z).max() <= bound
    # An error of 4 % in any second moment, or of 0.02 in any cosine, would be seen.
    comparisons = len(METHODS) * len(z)
    assert (detectable(ensemble.risk[1:], comparisons) < 0.04 * exact.risk[1:]).all()
    assert (detectable(ensemble.squared_norm, comparisons) < 0.04 * exact.squared_norm).all()
    scale = np.sqrt(exact.squared_norm[:-1] * exact.squared_norm[1:])
    assert (detectable(ensemble.inner, comparisons) < 0.04 * scale).all()
    assert (detectable(ensemble.cosine, comparisons) < 0.02).all()
    for what, wrong in wrong_moments(method, k, truth).items():
        assert np.abs(discrepancies(ensemble, *wrong)).max() > bound, what


def wrong_moments(method, k, truth):
    """What the comparison must reject, every entry of it."""
    risk, inner, squared_norm, cosine = truth
    noisier = NoisyQuadratic(PROBLEM.curvature, 1.1 * PROBLEM.noise_variance, PROBLEM.start)
    late = StepwiseSchedule(TWO_DROPS.rates, [46, 34, 45])
    runs = {
        "windows shifted by one": brute_force.evolve(PROBLEM, method, TWO_DROPS, k, shift=1),
        "noise + 10 %": moments.evolve(noisier, method, TWO_DROPS, k),
        "first drop one late": moments.evolve(PROBLEM, method, late, k),
    }
    norms = np.sqrt(squared_norm[:-1] * squared_norm[1:])
    return {
        "covariance's sign flipped": (risk, -inner, squared_norm, cosine),
        "cosine's sign flipped": (risk, inner, squared_norm, -cosine),
        "factor 2 lost": (risk, inner, squared_norm / 2, cosine),
        "risk without its half": (2 * risk, inner, squared_norm, cosine),
        "ratio taken for the cosine": (risk, inner, squared_norm, inner / norms),
    } | {name: (run.risk, run.inner, run.squared_norm, cosine) for name, run in runs.items()}


def test_a_block_is_the_literal_recursion():
    """x_T and the window statistics from the generator's own stream, by a loop over eq. (9)."""
    method, schedule, k = UnifiedMomentum(0.7, 1.3), StepwiseSchedule([0.1, 0.03], [9, 8]), 4
    ensemble = simulate.run(PROBLEM, method, schedule, trajectories=6, seed=5, window=k)

    generator = torch.Generator()
    stream = np.random.SeedSequence([5, 0]).generate_state(1, np.uint64)
    generator.manual_seed(int(stream[0] >> np.uint64(1)))
    a, v = PROBLEM.curvature, PROBLEM.noise_variance
    x = ys = np.tile(PROBLEM.start, (6, 1))
    path = [x]
    for rate in np.asarray(schedule):
        normal = torch.randn(x.shape, generator=generator, dtype=torch.float64).numpy()
        x, ys = brute_force.update(x, ys, a * (x - np.sqrt(v) * normal), rate, method)
        path.append(x)
    path = np.stack(path)
    means = path[: 4 * k].reshape(4, k, 6, 5).mean(axis=1)
    steps = np.diff(means, axis=0)
    rounding = 100 * EPS * np.abs(path).max() ** 2
    np.testing.assert_allclose(ensemble.final, path[-1], rtol=0, atol=rounding)
    np.testing.assert_allclose(
        ensemble.risk, (a * path[::k] ** 2).sum(-1) / 2, rtol=0, atol=rounding * a.sum()
    )
    inner = (steps[1:] * steps[:-1]).sum(-1)
    np.testing.assert_allclose(ensemble.inner, inner, rtol=0, atol=rounding)
    squared = (steps**2).sum(-1)
    np.testing.assert_allclose(ensemble.squared_norm, squared, rtol=0, atol=rounding)
    cosine = inner / np.sqrt(squared[1:] * squared[:-1])
    np.testing.assert_allclose(np.cos(ensemble.angle), ensemble.cosine, rtol=0, atol=4 * EPS)
    np.testing.assert_allclose(ensemble.cosine, cosine, rtol=0, atol=1e4 * EPS)


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("length", [12, 13])
def test_shapes(window, length):
    schedule = StepwiseSchedule.constant(0.05, length)
    e = simulate.run(PROBLEM, METHODS["sgd"], schedule, trajectories=3, seed=0, window=window)
    exact = moments.evolve(PROBLEM, METHODS["sgd"], schedule, window)
    assert e.risk.shape == (*exact.risk.shape, 3)
    assert e.inner.shape == e.cosine.shape == e.angle.shape == (*exact.inner.shape, 3)
    assert e.squared_norm.shape == (*exact.squared_norm.shape, 3)
    assert e.final.shape == (3, 5)
    assert {part.dtype for part in (e.risk, e.inner, e.squared_norm, e.final)} == {
        np.dtype(np.float64)
    }


def test_reproducible_and_free_of_global_state():
    def final(seed, trajectories=40, **how):
        return simulate.run(
            PROBLEM,
            METHODS["nesterov"],
            StepwiseSchedule.constant(0.05, 6),
            trajectories=trajectories,
            seed=seed,
            **how,
        ).final

    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = final(3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert (first == final(3)).all()
    assert (first != final(4)).all()
    assert (first == final(3, device="cpu")).all()
    assert (first == final(3, device=torch.device("cpu"))).all()


def test_blocks_are_independent(monkeypatch):
    """Trajectories of different blocks differ, and their number is right at every remainder."""
    monkeypatch.setattr(simulate, "block_entries", lambda device: 20)  # four trajectories a block
    for trajectories in (1, 4, 5, 11):
        final = simulate.run(
            PROBLEM,
            METHODS["sgd"],
            StepwiseSchedule.constant(0.05, 3),
            trajectories=trajectories,
            seed=0,
        ).final
        assert final.shape == (trajectories, 5)
        assert len(np.unique(final[:, 0])) == trajectories


def test_float32_is_close_to_float64():
    """Same law at a lower precision: the risk of 20 000 trajectories agrees with the exact one."""
    schedule = StepwiseSchedule([0.1, 0.05], [8, 8])
    exact = moments.evolve(PROBLEM, METHODS["heavy ball"], schedule, 4)
    e = simulate.run(
        PROBLEM,
        METHODS["heavy ball"],
        schedule,
        trajectories=20_000,
        seed=2,
        window=4,
        dtype=torch.float32,
    )
    assert e.risk.dtype == np.float64
    # Reading x_0 in float32 moves f(x_0) by the rounding of a² x_0².
    assert np.ptp(e.risk[0]) <= 4 * np.finfo(np.float32).eps * exact.risk[0]
    z = np.append(z_scores(e.risk[1:], exact.risk[1:]), z_scores(e.inner, exact.inner))
    assert np.abs(z).max() <= critical_z(len(z))
    assert not (e.final == e.final.astype(np.float32) * np.float64(1 + 1e-12)).all()
    assert (e.final == e.final.astype(np.float32)).all()


@pytest.mark.parametrize("name", METHODS)
def test_stationary_start_has_the_stationary_law(name):
    """E s_0², E s_0s_1 and E f(x_0) of one mode at a time, from a linear solver's covariance."""
    method, rate = METHODS[name], 0.11
    z, size = [], []
    for i, (a, v) in enumerate(zip(PROBLEM.curvature, PROBLEM.noise_variance, strict=True)):
        one = NoisyQuadratic([a], [v], [50.0])  # the start must not matter
        e = simulate.run(
            one,
            method,
            StepwiseSchedule.constant(rate, 3),
            trajectories=100_000,
            seed=i,
            from_stationary=True,
        )
        exact = brute_force.evolve(one, method, StepwiseSchedule.constant(rate, 3), 1, True)
        z += [
            *z_scores(e.risk, exact.risk),
            *z_scores(e.inner, exact.inner),
            *z_scores(e.squared_norm, exact.squared_norm),
        ]
        size.append(standard_error(e.risk) / exact.risk)
    assert np.abs(z).max() <= critical_z(len(METHODS) * len(z))
    assert np.max(size) < 0.01


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_stationary_start_needs_stability(rate):
    with pytest.raises(ValueError, match=r"learning_rate \* max curvature must be < 2"):
        simulate.run(
            PROBLEM,
            METHODS["sgd"],
            StepwiseSchedule.constant(rate, 5),
            trajectories=2,
            seed=0,
            from_stationary=True,
        )


def test_unstable_runs_raise():
    with pytest.raises(OverflowError, match=r"an iterate is not finite: .* stable is < 2"):
        simulate.run(
            PROBLEM,
            METHODS["sgd"],
            StepwiseSchedule.constant(3.0, 400),
            trajectories=2,
            seed=0,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectories": 0}, "trajectories must be a positive integer, got 0"),
        ({"window": 0}, r"window must be a positive integer, got 0"),
        ({"window": 4}, r"must be >= 3 \* window = 12, got 10"),
    ],
)
def test_bad_input(change, message):
    arguments = {"trajectories": 2, "seed": 0, "window": 1} | change
    with pytest.raises(ValueError, match=message):
        simulate.run(PROBLEM, METHODS["sgd"], StepwiseSchedule.constant(0.1, 10), **arguments)
