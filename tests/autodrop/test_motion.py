"""The scheduler with a detector of motion: the array loop's drops, wherever it is interrupted."""

import functools
import io
import warnings

import numpy as np
import pytest
import torch

import autodrop
from autodrop import AngularVelocity, AutoDrop
from autodrop.detectors import VarianceRatio
from autodrop.displacements import Displacements
from autodrop.motion import LAGS, Motion, Plan

T, WINDOW, RATE = 420, 4, 0.5
DETECTOR = VarianceRatio(first=0.5, shortest=8)
SHAPES = [(3, 4), (5,), (2, 2, 2)]


def noise(t):
    rng = np.random.default_rng(t)
    return [torch.from_numpy(rng.standard_normal(shape)) for shape in SHAPES]


class Training:
    """SGD on ½‖x‖² with noisy gradients, in float64."""

    def __init__(self, lag=0, **options):
        self.params = [torch.nn.Parameter(torch.ones(s, dtype=torch.float64)) for s in SHAPES]
        named = [(f"p{i}", p) for i, p in enumerate(self.params)]
        self.optimizer = torch.optim.SGD(named, lr=RATE)
        self.scheduler = AutoDrop(
            self.optimizer, window=WINDOW, detector=DETECTOR, lag=lag, **options
        )

    def step(self, t):
        for p, z in zip(self.params, noise(t), strict=True):
            p.grad = p.detach() + z
        self.optimizer.step()
        self.scheduler.step()

    def drops(self):
        return [(e.step, e.observed, e.new_lr) for e in self.scheduler.drops]

    def saved(self, light=False):
        file = io.BytesIO()
        state = {
            "params": [p.detach().clone() for p in self.params],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(light=light),
        }
        torch.save(state, file)
        file.seek(0)
        return file

    def load(self, file):
        state = torch.load(file, weights_only=True)
        with torch.no_grad():
            for p, value in zip(self.params, state["params"], strict=True):
                p.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


@functools.cache
def whole(lag=0):
    training = Training(lag)
    for t in range(T):
        training.step(t)
    return training.drops()


def test_drops_are_those_of_the_array_loop():
    def update(t, α):
        update.x = update.x - α * (update.x + np.concatenate([z.numpy().ravel() for z in noise(t)]))
        return update.x

    update.x = np.ones(25)
    rule = autodrop.Rule(WINDOW, DETECTOR, autodrop.DropPolicy(VarianceRatio.factor))
    run = autodrop.run(update, np.ones(25), RATE, T, rule)
    assert [(e.step, e.new_lr) for e in run.drops[0]] == [(s, lr) for s, _, lr in whole()]
    assert len(whole()) >= 3


def test_the_factor_is_the_detectors_unless_given():
    assert Training().scheduler.rule.policy.factor == 0.25
    assert Training(factor=0.5).scheduler.rule.policy.factor == 0.5
    x = torch.nn.Parameter(torch.ones(2))
    assert AutoDrop(torch.optim.SGD([x], lr=0.1)).rule.policy.factor == 0.95


@pytest.mark.parametrize("lag", [1, 3])
def test_a_lag_delays_each_drop(lag):
    found = whole(lag)
    assert len(found) >= 2
    assert all(step - observed == lag for step, observed, _ in found)
    # The first is the same one: the stages after it start later.
    assert found[0][1:] == whole()[0][1:]


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 30, 57, 64, 68, 69, 70, 101, 130, 257, 300, 301])
def test_resuming_anywhere_changes_nothing(lag, cut):
    first = Training(lag)
    for t in range(cut):
        first.step(t)
    second = Training(lag)
    second.step(10_000)  # what it has seen must not matter
    second.load(first.saved())
    for t in range(cut, T):
        second.step(t)
    assert second.drops() == whole(lag)


def test_a_state_is_a_copy():
    first = Training()
    for t in range(100):
        first.step(t)
    state = first.scheduler.state_dict()
    file = first.saved()
    for t in range(100, T):
        first.step(t)
    second = Training()
    second.load(file)
    second.scheduler.load_state_dict(state)
    for t in range(100, T):
        second.step(t)
    assert second.drops() == first.drops() == whole()


def test_a_light_state_keeps_the_stage_and_measures_it_anew():
    first = Training()
    cut = whole()[0][0] + 5 * WINDOW
    for t in range(cut):
        first.step(t)
    second = Training()
    second.load(first.saved(light=True))
    (state,) = second.scheduler._states
    assert state.memory == DETECTOR.restart(state.memory)
    assert state.memory.stage == 1
    for t in range(cut, T):
        second.step(t)
    assert second.drops()[0] == whole()[0]
    assert len(second.drops()) >= 2


def test_a_dry_run_sees_the_same_first_drop_and_changes_nothing():
    training = Training(dry_run=True)
    for t in range(T):
        training.step(t)
    assert training.drops()[0] == whole()[0]
    assert training.optimizer.param_groups[0]["lr"] == RATE


def test_steps_that_were_none_do_not_count():
    training = Training()
    for t in range(T):
        training.step(t)
        if t % 7 == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                training.scheduler.step()  # no update of the optimizer before it
    assert training.drops() == whole()


def test_parameters_that_are_not_finite_cost_a_stage_of_measurements_and_no_drop():
    training = Training()
    for t in range(60):
        training.step(t)
    kept = [p.detach().clone() for p in training.params]
    with torch.no_grad():
        training.params[0].fill_(torch.nan)
    for t in range(60, 63):
        training.step(t)
    with pytest.warns(RuntimeWarning, match="not finite"):
        training.step(63)
    for t in range(64, 68):
        training.step(t)
    with torch.no_grad():
        for p, value in zip(training.params, kept, strict=True):
            p.copy_(value)
    for t in range(68, T):
        training.step(t)
    assert training.scheduler.drops
    assert training.scheduler.drops[0].step > 68 + 5 * DETECTOR.shortest


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="per_group needs a detector of angles"):
        Training(per_group=True)
    with pytest.raises(ValueError, match="motion needs observation = 'mean'"):
        Training(observation="snapshot")
    with pytest.raises(ValueError, match="motion needs observation = 'mean'"):
        AngularVelocity([torch.ones(3)], 4, "snapshot", motion=True)
    x = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="detector must be a GaussianSaturation"):
        AutoDrop(
            torch.optim.SGD([x], lr=torch.tensor(0.1)), detector=VarianceRatio(), decide="device"
        )


def measured(params, path, plans, window=2):
    velocity = AngularVelocity(params, window, motion=True)
    found = []
    for values, plan in zip(path, plans, strict=True):
        velocity.plan(plan)
        for value in values:
            with torch.no_grad():
                params[0].copy_(value)
            velocity.update()
        found.append(velocity.motion)
    return found


def test_what_is_measured():
    x = torch.zeros(2, dtype=torch.float64)
    path = [[torch.tensor([float(t), 0.0]) for t in (2 * i + 1, 2 * i + 2)] for i in range(3)]
    found = measured([x], path, [Plan(restart=True, store=1), Plan(), Plan(compare=1)])
    none = (0,) * (len(LAGS) - 3)
    assert found[0].displacement is None
    # The mean moves by 2, the iterates by 1 in lag 1 and 2 in lag 2 from t = 2 on.
    assert found[1] == Motion(2, 4.0, None, (1.0, 4.0, 0.0, *none), (1, 1, 0, *none))
    assert found[2] == Motion(2, 4.0, 16.0, (0.0, 0.0, 16.0, *none), (0, 0, 1, *none))


def test_large_models_are_sampled():
    rng = torch.Generator().manual_seed(0)
    n = 4 * Displacements.sample
    x = torch.zeros(n)
    steps = [torch.randn(n, generator=rng) for _ in range(4)]
    path = [[steps[0], steps[0] + steps[1]], [x + steps[2], x + steps[3]]]
    found = measured([x], path, [Plan(restart=True, store=0), Plan(compare=0)])
    exact = float(((steps[3] - steps[0] - steps[1]) ** 2).sum())
    # The standard error of a sample of as many squares of normal numbers is √(2/2¹⁸) = 0.3 %.
    assert found[1].displacement == pytest.approx(exact, rel=0.015)
    assert found[1].displacement != pytest.approx(exact, rel=1e-9)


def test_low_precision_parameters_are_measured_in_float64():
    x = torch.full((64,), 1.0, dtype=torch.bfloat16)
    moved = x + 2.0**-7
    path = [[moved, moved], [2.0 * x, x + 2.0**-6]]  # the mean must move too
    found = measured([x.clone()], path, [Plan(restart=True, store=0), Plan(compare=0)])
    assert found[1].displacement == 64 * 2.0**-14
