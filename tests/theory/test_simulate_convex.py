"""Simulated gaps: their law by enumeration, the literal recursions, statistics and bad input."""

from itertools import product

import numpy as np
import pytest
import torch

from tests.theory.chance import critical_z
from theory import StepwiseSchedule, UnifiedMomentum, problems, simulate_convex
from theory.methods import TorchMomentum
from theory.problems import losses

EPS = np.finfo(float).eps
TWO_DROPS = StepwiseSchedule([0.7, 0.4, 0.15], [3, 2, 3])
METHODS = {
    "sgd": UnifiedMomentum.sgd(),
    "heavy ball": UnifiedMomentum.heavy_ball(0.8),
    "any s": UnifiedMomentum(0.6, 1.7),
    "torch": TorchMomentum(0.8),
    "torch nesterov": TorchMomentum(0.7, nesterov=True),
}
NOISE = {
    "absolute value": problems.AdditiveNoise(
        problems.AbsoluteValue(1.5, 0.2, 1.0), problems.TwoPointNoise(0.9)
    ),
    "norm along a line": problems.AdditiveNoise(
        problems.Norm(1.0, [0.5, -1.0], [1.0, 1.0]), problems.TwoPointNoise(0.9, [1.0, 2.0])
    ),
    "max affine": problems.AdditiveNoise(
        problems.MaxAffine([[1.0], [-0.5], [3.0]], [0.0, 0.3, -2.0], 1.2),
        problems.TwoPointNoise(0.9),
    ),
}


def path(x, gradients, rates, method):
    """x_0 … x_T by loops over eq. (9), or over torch's buffer; gradients(t, x) gives G_t."""
    xs, ys, m = [x], x, np.zeros_like(x)
    for t, α in enumerate(rates):
        G = gradients(t, x)
        if isinstance(method, TorchMomentum):
            m = method.momentum * m + G
            x = x - α * (G + method.momentum * m if method.nesterov else m)
        else:
            y, new = x - α * G, x - method.s * α * G
            x, ys = y + method.momentum * (new - ys), new
        xs.append(x)
    return np.stack(xs)


def tree(problem, method, schedule):
    """Gaps of all 2^T equally likely paths of two-point noise, shape (T + 1, 2^T)."""
    signs = np.array(list(product([-1.0, 1.0], repeat=len(schedule))))
    direction = problem.law.direction if problem.law.direction is not None else np.ones(1)
    ξ = problem.law.deviation * signs[:, :, None] * direction
    start = np.tile(problem.start, (len(signs), 1))
    xs = path(
        start,
        lambda t, x: problem.subgradient(x) + ξ[:, t],
        np.asarray(schedule, dtype=float),
        method,
    )
    return problem.value(xs) - problem.minimum


def discrepancies(ensemble, gaps):
    """z of the means of every t, the averages and both last gaps, with the tree's own variances."""
    B = len(ensemble.last)
    α = np.asarray(TWO_DROPS, dtype=float)
    exact = [*gaps[:-1], gaps[-2], gaps[-1], α @ gaps[:-1] / α.sum()]
    parts = (ensemble.before_last, ensemble.last, ensemble.average)
    means = [*ensemble.mean, *(part.mean() for part in parts)]
    z = []
    for observed, values in zip(means, exact, strict=True):
        deviation = values.std()
        if deviation <= 64 * EPS * (1 + abs(values).max()):  # no noise so far
            assert abs(observed - values.mean()) <= 64 * EPS * (1 + abs(values).max())
        else:
            z.append((observed - values.mean()) / (deviation / np.sqrt(B)))
    return np.array(z)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", NOISE)
def test_law_against_all_paths(kind, name):
    """50 000 trajectories against all 2^8 paths, with two drops; wrong recursions are rejected."""
    problem, method = NOISE[kind], METHODS[name]
    ensemble = simulate_convex.run(problem, method, TWO_DROPS, trajectories=50_000, seed=1)
    gaps = tree(problem, method, TWO_DROPS)
    z = discrepancies(ensemble, gaps)
    bound = critical_z(len(METHODS) * len(NOISE) * (len(TWO_DROPS) + 3))
    assert np.abs(z).max() <= bound
    # The variance over the paths has a standard error of √((κ − 1)/B) of itself, κ its kurtosis.
    central = gaps[:-1] - gaps[:-1].mean(axis=1, keepdims=True)
    error = np.sqrt(np.maximum((central**4).mean(axis=1) - central.var(axis=1) ** 2, 0) / 50_000)
    off = np.abs(ensemble.variance - central.var(axis=1))
    assert (off <= bound * error + 2e-5 * central.var(axis=1) + 64 * EPS).all()  # 1/B: unbiased

    louder = problems.AdditiveNoise(
        problem.problem, problems.TwoPointNoise(1.1 * 0.9, problem.law.direction)
    )
    late = StepwiseSchedule(TWO_DROPS.rates, [4, 1, 3])
    wrong = {
        "noise + 10 %": tree(louder, method, TWO_DROPS),
        "first drop one late": tree(problem, method, late),
    }
    if name == "torch":  # the same method only while the rate is constant
        wrong["heavy ball"] = tree(problem, UnifiedMomentum.heavy_ball(0.8), TWO_DROPS)
    if name == "any s":
        wrong["s + 0.2"] = tree(problem, UnifiedMomentum(0.6, 1.9), TWO_DROPS)
    for what, other in wrong.items():
        assert np.abs(discrepancies(ensemble, other)).max() > bound, what


@pytest.mark.parametrize("name", METHODS)
def test_deterministic_runs_are_the_literal_loop(name):
    """Huber regression has a Lipschitz gradient, so rounding stays rounding: 12 updates."""
    rng = np.random.default_rng(0)
    f = problems.huber_regression(rng.standard_normal((9, 3)), rng.standard_normal(9), start=2.0)
    method, schedule = METHODS[name], StepwiseSchedule([0.5, 0.2], [7, 5])
    rates = np.asarray(schedule, dtype=float)
    gaps = f.value(path(f.start, lambda t, x: f.subgradient(x), rates, method)) - f.minimum
    e = simulate_convex.run(f, method, schedule, trajectories=3, seed=0)
    rounding = 1000 * EPS * gaps.max()
    np.testing.assert_allclose(e.mean, gaps[:-1], rtol=0, atol=rounding)
    np.testing.assert_allclose(e.last, gaps[-1], rtol=0, atol=rounding)
    np.testing.assert_allclose(e.before_last, gaps[-2], rtol=0, atol=rounding)
    np.testing.assert_allclose(e.average, rates @ gaps[:-1] / rates.sum(), rtol=0, atol=rounding)
    np.testing.assert_allclose(e.variance, 0, atol=rounding**2)


@pytest.mark.parametrize("nesterov", [False, True])
def test_torch_momentum_is_torch_sgd(nesterov):
    rng = np.random.default_rng(1)
    f = problems.huber_regression(rng.standard_normal((9, 3)), rng.standard_normal(9), start=2.0)
    x = torch.tensor(f.start, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=1.0, momentum=0.8, nesterov=nesterov)
    for α in np.asarray(TWO_DROPS, dtype=float):
        optimizer.param_groups[0]["lr"] = float(α)
        x.grad = f.subgradient(x.detach())
        optimizer.step()
    e = simulate_convex.run(f, TorchMomentum(0.8, nesterov), TWO_DROPS, trajectories=1, seed=0)
    gap = float(f.value(x.detach())) - f.minimum
    np.testing.assert_allclose(e.last, gap, rtol=0, atol=1000 * EPS * f.constants()["gap"])


def test_dyadic_runs_are_exact():
    """|x| with β = ½, s = 1 and dyadic rates: no rounding at all, across the kink."""
    f = problems.AbsoluteValue(1.0, 0.0, 1.0)
    schedule = StepwiseSchedule([0.75, 0.5], [4, 4])
    method = UnifiedMomentum.nesterov(0.5)
    rates = np.asarray(schedule, dtype=float)
    gaps = abs(path(f.start, lambda t, x: np.sign(x), rates, method))[:, 0]
    e = simulate_convex.run(f, method, schedule, trajectories=2, seed=0)
    assert (e.mean == gaps[:-1]).all()
    assert (e.last == gaps[-1]).all()
    assert len(set(gaps)) > 3


DATA = np.random.default_rng(2).standard_normal((11, 3))
REGRESSION = problems.l1_regression(DATA, DATA[:, 0] + 1, batch=2, start=1.0)


def simulated(trajectories=10, seed=3, **how):
    return simulate_convex.run(
        REGRESSION, METHODS["any s"], TWO_DROPS, trajectories=trajectories, seed=seed, **how
    )


def test_statistics_do_not_depend_on_the_blocks(monkeypatch):
    """Pooled moments are those of the trajectories, and a block is the same whatever follows it."""
    monkeypatch.setattr(simulate_convex, "_block_rows", lambda problem, device: 4)
    for trajectories in (1, 4, 5, 11):
        e = simulated(trajectories)
        assert e.last.shape == e.before_last.shape == e.average.shape == (trajectories,)
        assert e.mean.shape == e.variance.shape == e.standard_error.shape == (len(TWO_DROPS),)
        assert len(np.unique(e.last)) == trajectories
        np.testing.assert_allclose(e.mean[-1], e.before_last.mean(), rtol=32 * EPS)
        if trajectories == 1:
            assert np.isnan(e.variance).all()
        else:
            variance = e.before_last.var(ddof=1)
            np.testing.assert_allclose(e.variance[-1], variance, rtol=256 * EPS)
            np.testing.assert_allclose(
                e.standard_error[-1], np.sqrt(variance / trajectories), rtol=256 * EPS
            )
    assert (simulated(12).last[:8] == simulated(8).last).all()
    # Without noise the blocks cannot matter at all.
    f = problems.l1_regression(DATA, DATA[:, 0] + 1, start=1.0)
    split = simulate_convex.run(f, METHODS["sgd"], TWO_DROPS, trajectories=9, seed=0)
    monkeypatch.undo()
    whole = simulate_convex.run(f, METHODS["sgd"], TWO_DROPS, trajectories=9, seed=1)
    np.testing.assert_allclose(split.mean, whole.mean, rtol=64 * EPS)


def test_reproducible_and_free_of_global_state():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = simulated().last
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert (first == simulated().last).all()
    assert (first == simulated(device=torch.device("cpu")).last).all()
    assert (first != simulated(seed=4).last).all()


def test_weights():
    """The mean of the averages is the average of the means; weights may be negative."""
    w = np.array([-0.5, 1.0, 2.0, 0.0, 1.0, 1.0, 3.0, 0.25])
    e, rates = simulated(trajectories=50, weights=w), np.asarray(TWO_DROPS, dtype=float)
    np.testing.assert_allclose(e.average.mean(), w @ e.mean / w.sum(), rtol=64 * EPS)
    default, α_weighted = simulated(50).average, simulated(50, weights=rates).average
    np.testing.assert_allclose(default, α_weighted, rtol=4 * EPS)
    assert (default != e.average).all()
    only_last = simulated(50, weights=np.eye(8)[-1])
    assert (only_last.average == only_last.before_last).all()


@pytest.mark.parametrize("every", [2, 3, 8, 20])
def test_recording_less_often_changes_nothing_else(every):
    full, sparse = simulated(), simulated(record_every=every)
    assert sparse.times.tolist() == list(range(0, 8, every))
    assert (sparse.mean == full.mean[::every]).all()
    assert (sparse.variance == full.variance[::every]).all()
    assert (sparse.last == full.last).all()
    assert (sparse.before_last == full.before_last).all()
    assert sparse.average is None


def test_minibatches_have_the_law_of_the_data():
    """One update from x_0: E f(x_1) over all 11² mini-batches, by enumeration."""
    α = 0.7
    pairs = np.array(list(np.ndindex(11, 11)))
    x = np.tile(REGRESSION.start, (len(pairs), 1))
    gaps = REGRESSION.value(x - α * REGRESSION.batch_subgradient(x, pairs)) - REGRESSION.minimum
    e = simulate_convex.run(
        REGRESSION,
        UnifiedMomentum.sgd(),
        StepwiseSchedule.constant(α, 1),
        trajectories=50_000,
        seed=5,
    )
    error = gaps.std() / np.sqrt(50_000)
    assert abs(e.last.mean() - gaps.mean()) <= critical_z(1) * error
    one_row = np.arange(11)[:, None]
    x = x[:11]
    wrong = REGRESSION.value(x - α * REGRESSION.batch_subgradient(x, one_row)) - REGRESSION.minimum
    assert abs(e.last.mean() - wrong.mean()) > critical_z(1) * error


def test_float32():
    e, exact = simulated(dtype=torch.float32), simulated()
    assert e.mean.dtype == e.last.dtype == np.float64
    # f(x_0) is the same for all, up to the rounding of 11 residuals in float32.
    single = np.finfo(np.float32).eps
    np.testing.assert_allclose(e.mean[0], exact.mean[0], rtol=0, atol=64 * single)
    values = (e.last + REGRESSION.minimum).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(values, e.last + REGRESSION.minimum, rtol=4 * EPS)


def test_overflow_is_reported():
    f = problems.AdditiveNoise(problems.AbsoluteValue(1e300), problems.GaussianNoise(1.0))
    with pytest.raises(OverflowError, match=r"not finite in torch.float64"):
        simulate_convex.run(
            f, METHODS["sgd"], StepwiseSchedule.constant(1e200, 3), trajectories=2, seed=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trajectories": 0}, "trajectories must be a positive integer, got 0"),
        ({"record_every": 0}, "record_every must be a positive integer, got 0"),
        ({"weights": np.ones(8), "record_every": 2}, "record_every must be 1, got 2"),
        ({"weights": np.ones(7)}, r"weights must have shape \(8,\), got \(7,\)"),
        ({"weights": np.zeros(8)}, "weights must have a positive, finite sum, got 0"),
        ({"weights": np.full(8, np.nan)}, "weights must have a positive, finite sum, got nan"),
    ],
)
def test_bad_values(change, message):
    with pytest.raises(ValueError, match=message):
        simulated(**change)


@pytest.mark.parametrize("wrong", ["problem", "method", "schedule"])
def test_bad_types(wrong):
    arguments = {"problem": REGRESSION, "method": METHODS["sgd"], "schedule": TWO_DROPS}
    with pytest.raises(TypeError, match=f"{wrong} must be a"):
        simulate_convex.run(**(arguments | {wrong: losses.HingeLoss()}), trajectories=1, seed=0)
