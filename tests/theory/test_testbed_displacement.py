"""The vectorised rules of displacement against the package's own code, drop for drop."""

import numpy as np
import pytest

from autodrop import DropPolicy, Rule
from autodrop.detectors import VarianceRatio
from theory import NoisyQuadratic, UnifiedMomentum
from theory.testbed.displacement import GeometricAngle, VarianceRatioTest
from theory.testbed.engine import simulate
from theory.testbed.published import Scalar
from theory.testbed.worlds import Quadratic

PROBLEM = NoisyQuadratic(np.linspace(0.1, 1.0, 12), 0.5, 2.0)


def drops(contenders, method, iterations=2500):
    runs = simulate(
        Quadratic(PROBLEM),
        method,
        contenders,
        learning_rate=0.5 * (1 - float(method.momentum)),
        horizons=[iterations],
        trajectories=5,
        seed=3,
    )
    return [sorted(zip(*(column.tolist() for column in run.drops), strict=True)) for run in runs]


@pytest.mark.parametrize("method", [UnifiedMomentum.sgd(), UnifiedMomentum.heavy_ball(0.9)])
@pytest.mark.parametrize("window", [1, 5, 16, 200])
def test_drops_are_those_of_the_package(method, window):
    detector = VarianceRatio(first=0.1, shortest=16, per_stage=window == 5)
    fast = VarianceRatioTest(window, 0.5, detector)
    own = Scalar(Rule(window, detector, DropPolicy(0.5)))
    found, expected = drops([fast, own], method)
    assert found == expected
    assert len(found) >= 5


def test_it_sees_a_mistake():
    detector = VarianceRatio(first=0.1, shortest=16)
    other = VarianceRatio(first=0.1, shortest=17)
    fast = VarianceRatioTest(5, 0.5, detector)
    found, expected = drops([fast, Scalar(Rule(5, other, DropPolicy(0.5)))], UnifiedMomentum.sgd())
    assert found != expected


def geometric_angle_drops(x, window, threshold, shortest):
    """On iterates x_0 … x_T, from the whole trajectory."""
    found, start = [], window
    marks = [shortest * 2 ** (j / 4) for j in range(60)]
    kept, t = [], start
    while (t := t + window) < len(x):
        if start is None:
            start, kept = t, []
            continue
        passed = [
            j
            for j, mark in enumerate(marks)
            if t - window - start < mark * (1 - 1e-12) <= t - start
        ]
        if not passed:
            continue
        if len(kept) == 3:
            new, old = x[t] - x[kept[1]], x[kept[1]] - x[kept[0]]
            if new @ old < threshold * np.linalg.norm(new) * np.linalg.norm(old):
                found.append(t)
                start = None
                continue
        if any(j % 2 == 0 for j in passed):
            kept = [*kept[-2:], t]
    return found


@pytest.mark.parametrize("window", [1, 4])
def test_the_geometric_angle_by_its_definition(window):
    seen = []

    class Recording(GeometricAngle):
        def start(self, weights, rates):
            inner = super().start(weights, rates)
            seen.append(weights)

            def observe(observation):
                seen.append(observation.weights.copy())
                return inner(observation)

            return observe

    (found,) = drops([Recording(window, shortest=8)], UnifiedMomentum.sgd())
    x = np.array(seen)
    for b in range(5):
        steps = [t for t, trajectory, _ in found if trajectory == b]
        assert steps == geometric_angle_drops(x[:, b], window, -0.2, 8)
    assert len(found) >= 5
