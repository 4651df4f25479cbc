"""Rival rules against their definitions, written out one trajectory at a time."""

import math

import numpy as np
import pytest
from scipy import stats

from theory import NoisyQuadratic, UnifiedMomentum
from theory.testbed import engine, open_loop, worlds
from theory.testbed.plateau import Plateau
from theory.testbed.sensors import Distance, GradientProducts, WeightNorm
from theory.testbed.stationarity import StationarityTest

SGD = UnifiedMomentum.sgd()
WORLD = worlds.Quadratic(NoisyQuadratic(np.arange(1, 9) / 4, 0.3, 2.0))
RATE, T, S = 0.5, 1500, 5


class Recorder:
    """Passes everything on to a contender, and keeps what it saw."""

    def __init__(self, contender):
        self.contender, self.name = contender, contender.name
        self.weights, self.gradients, self.losses, self.rates = [], [], [], []

    def start(self, weights, rates):
        observe = self.contender.start(weights, rates)
        self.weights.append(weights.copy())

        def record(seen):
            self.weights.append(seen.weights.copy())
            self.gradients.append(seen.gradient.copy())
            self.losses.append(seen.loss)
            self.rates.append(seen.rates.copy())
            return observe(seen)

        return record

    def of(self, s):
        """Weights x_0 … x_T, and G_t, losses and α_t for t < T, of one trajectory."""
        return [
            np.array(part)[:, s] for part in (self.weights, self.gradients, self.losses, self.rates)
        ]


def run(contender):
    recorder = Recorder(contender)
    (found,) = engine.simulate(
        WORLD, SGD, [recorder], learning_rate=RATE, horizons=[T], trajectories=S, seed=2
    )
    return recorder, [found.drops.of(s)[0].tolist() for s in range(S)]


def pflug(x, G, losses, α, burn_in):
    total, age, drops = 0.0, 0, []
    for t in range(1, T + 1):
        age += 1
        if t >= 2 and age > burn_in:
            total += G[t - 1] @ G[t - 2]
        if total < 0:
            drops.append(t)
            total, age = 0.0, 0
    return drops


def distance(x, G, losses, α, q, first, threshold):
    begun, drops = 0, []
    while True:
        before = None
        for j in range(first, 100):
            m = math.ceil(q**j)
            if begun + m > T:
                return drops
            now = math.log(max(((x[begun + m] - x[begun]) ** 2).sum(), np.finfo(float).tiny))
            if before is not None and (now - before[1]) / math.log(m / before[0]) < threshold:
                begun += m
                drops.append(begun)
                break
            before = m, now


def abel(x, G, losses, α, window):
    norms = (x[::window] ** 2).sum(axis=1)
    reached, drops = False, []
    for i in range(2, len(norms)):
        if (norms[i] - norms[i - 1]) * (norms[i - 1] - norms[i - 2]) < 0:
            if reached:
                drops.append(i * window)
            reached = not reached
    return drops


def sasa(x, G, losses, α, rule):
    begun, drops = 0, []
    d = (x[:-1] - x[1:]) / α[:, None]
    Δ = (x[1:] * d).sum(axis=1) + α / 2 * (d * d).sum(axis=1)
    for t in range(rule.period, T + 1, rule.period):
        n = math.ceil((t - begun) / rule.keep)
        if t <= rule.warm_up or n <= rule.least:
            continue
        kept = Δ[t - n : t]
        b = int(math.sqrt(n))
        means = [kept[i * b : (i + 1) * b].mean() for i in range(n // b)]
        variance = b * sum((m - kept.mean()) ** 2 for m in means) / (len(means) - 1)
        half = stats.t.ppf(1 - rule.level / 2, b - 1) * math.sqrt(variance / n)
        parts = [kept[: n // 2].mean(), kept[n // 2 :].mean()]
        tested = [kept.mean()] if drops else parts
        if all(abs(m) < half for m in tested) and parts[0] * parts[1] > 0:
            drops.append(t)
            begun = t
    return drops


def plateau(x, G, losses, α, rule):
    """The rule of torch's documentation for mode "min", relative threshold, no cooldown."""
    best, bad, drops = math.inf, 0, []
    for t in range(rule.window, T + 1, rule.window):
        mean = losses[t - rule.window : t].mean()
        if mean < best * (1 - rule.threshold):
            best, bad = mean, 0
        else:
            bad += 1
        if bad > rule.patience:
            drops.append(t)
            bad = 0
    return drops


CASES = [
    (GradientProducts(20), pflug, {"burn_in": 20}),
    (Distance(), distance, {"q": 1.5, "first": 5, "threshold": 0.6}),
    (Distance(2.0, 3, 1.0, 0.9), distance, {"q": 2.0, "first": 3, "threshold": 1.0}),
    (WeightNorm(16, 0.7), abel, {"window": 16}),
    (StationarityTest(25, 25, 0.05, 0.5, 8, 0), sasa, None),
    (StationarityTest(40, 60, 0.2, 0.7, 2, 200), sasa, None),
    (Plateau(10, 0.5, 4), plateau, None),
]


def _shown(value):
    """The same in every process, which the address of a function is not."""
    return getattr(value, "__name__", None) or getattr(value, "name", "")


@pytest.mark.parametrize(("contender", "definition", "settings"), CASES, ids=_shown)
def test_rivals_drop_by_their_definitions(contender, definition, settings):
    recorder, drops = run(contender)
    expected = [
        definition(*recorder.of(s), **({"rule": contender} if settings is None else settings))
        for s in range(S)
    ]
    assert drops == expected
    assert sum(map(len, drops)) >= 2 * S  # the comparison is not about nothing


@pytest.mark.parametrize(
    ("contender", "definition", "settings"),
    [
        (GradientProducts(20), pflug, {"burn_in": 21}),
        (Distance(), distance, {"q": 1.5, "first": 5, "threshold": 0.7}),
        (WeightNorm(16, 0.7), abel, {"window": 8}),
        (
            StationarityTest(25, 25, 0.05, 0.5, 8, 0),
            sasa,
            {"rule": StationarityTest(25, 25, 0.3, 0.5, 8, 0)},
        ),
        (Plateau(10, 0.5, 4), plateau, {"rule": Plateau(10, 0.5, 5)}),
    ],
    ids=_shown,
)  # fmt: skip
def test_other_settings_drop_elsewhere(contender, definition, settings):
    """The comparison above notices settings that are a little off."""
    recorder, drops = run(contender)
    assert drops != [definition(*recorder.of(s), **settings) for s in range(S)]


def test_the_weights_that_a_rule_sees_are_not_centred_at_the_minimiser():
    recorder, _ = run(Distance())
    x = np.array(recorder.weights)
    assert np.linalg.norm(x[-1].mean(axis=0) - WORLD.minimiser) < 0.5
    assert np.linalg.norm(WORLD.minimiser) > 5


def test_a_clock_follows_its_rates():
    shares = np.linspace(2.0, 0.5, 40)
    recorder = Recorder(open_loop.Clock(shares, "clock"))
    engine.simulate(
        WORLD, SGD, [recorder], learning_rate=0.8, horizons=[60], trajectories=2, seed=0
    )
    expected = np.concatenate([0.4 * shares, np.full(20, 0.2)])
    np.testing.assert_allclose(np.array(recorder.rates)[:, 1], expected, rtol=1e-12)
    with pytest.raises(ValueError, match="shares must not rise"):
        open_loop.Clock(np.array([1.0, 2.0]), "up")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientProducts(0), "burn_in must be a positive integer, got 0"),
        (lambda: GradientProducts(5, 1.0), "factor must satisfy 0 < factor < 1, got 1.0"),
        (lambda: Distance(1.0), "ratio must be > 1, got 1.0"),
        (lambda: Distance(threshold=3.0), "threshold must satisfy 0 < threshold <= 2, got 3.0"),
        (lambda: WeightNorm(0), "window must be a positive integer, got 0"),
        (lambda: StationarityTest(level=0.0), "level must satisfy 0 < level < 1, got 0.0"),
        (lambda: Plateau(0), "window must be a positive integer, got 0"),
    ],
)
def test_errors_name_the_setting(make, message):
    with pytest.raises(ValueError, match=message):
        make()
