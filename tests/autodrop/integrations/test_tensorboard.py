"""Scalars read back from TensorBoard's event files."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim import lr_scheduler
from torch.utils.tensorboard import SummaryWriter

from autodrop import AutoDrop
from autodrop.integrations.tensorboard import ScalarLog
from tests.autodrop.integrations import documented
from tests.autodrop.integrations.digits import WINDOW, Batches, network, plain, sgd


def read(directory):
    """{tag: [(step, value)]}; values are float32 in event files."""
    events = EventAccumulator(str(directory)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def as_stored(pairs):
    return [(step, torch.tensor(float(value)).item()) for step, value in pairs]


def train(epochs=6, groups=1, every=1, directory=None, **options):
    """The scheduler and the rates of each update, of a run that writes every `every` updates."""
    model = network()
    optimizer = sgd(model, groups)
    optimizer.param_groups[-1]["lr"] = 0.2 / groups
    scheduler = AutoDrop(optimizer, window=WINDOW, **options)
    used = {}
    with SummaryWriter(directory) as writer:
        log = ScalarLog(writer, scheduler)
        for t in range(1, 29 * epochs + 1):
            x, y = list(Batches())[t % 29]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            used[t] = [group["lr"] for group in optimizer.param_groups]
            optimizer.step()
            scheduler.step()
            if t % every == 0:
                log.write()
    return scheduler, used


def check(scheduler, used, scalars, tags=("learning_rate",)):
    assert len(scheduler.drops) >= 3
    angles = list(zip(scheduler.angle_steps, scheduler.angular_velocities, strict=True))
    assert scalars["angular_velocity"] == as_stored(angles)
    drops = [event.step for event in scheduler.drops]
    assert scalars["drops"] == [(t, i) for i, t in enumerate(drops, 1)]
    steps = {*scheduler.angle_steps, *drops, *(t + 1 for t in drops)}
    steps &= used.keys()
    for i, tag in enumerate(tags):
        points = [(t, α) for t, α in scalars[tag] if t in used]
        assert points == sorted(points, key=lambda point: point[0])
        # A dict: with a lag one step may be both after a drop and at an angle.
        assert dict(points) == dict(as_stored((t, used[t][i]) for t in steps))


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("every", [1, 58])
def test_each_scalar_is_under_its_update(tmp_path, lag, every):
    """Also where the angle is read later, and where the writing is rare."""
    scheduler, used = train(directory=tmp_path, lag=lag, every=every)
    check(scheduler, used, read(tmp_path))


def test_several_parameter_groups(tmp_path):
    scheduler, used = train(directory=tmp_path, groups=2)
    tags = ("learning_rate/group_0", "learning_rate/group_1")
    scalars = read(tmp_path)
    check(scheduler, used, scalars, tags)
    assert scalars.keys() == {"angular_velocity", "drops", *tags}


class Recorder:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.points = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.points.append((global_step, tag, scalar_value))

    def steps(self, tag="angular_velocity"):
        return [step for step, name, _ in self.points if name == tag]


def test_only_what_is_new_unless_history_is_asked_for():
    scheduler, _ = plain()
    new, old = Recorder(), Recorder()
    ScalarLog(new, scheduler).write()
    assert new.points == []
    log = ScalarLog(old, scheduler, prefix="mine/", history=True)
    log.write()
    assert old.steps("mine/angular_velocity") == scheduler.angle_steps
    assert old.steps("mine/drops") == [event.step for event in scheduler.drops]
    count = len(old.points)
    log.write()
    assert len(old.points) == count


def test_a_scheduler_that_is_set_back():
    scheduler, _ = plain()
    end = scheduler.state_dict()
    twin = AutoDrop(sgd(network()), window=WINDOW)
    start = twin.state_dict()
    recorder = Recorder()
    log = ScalarLog(recorder, twin)
    for state in (end, start, end):
        twin.load_state_dict(state)
        log.write()
    assert recorder.steps() == 2 * scheduler.angle_steps


def test_rates_that_are_tensors_and_that_others_change():
    """float32 tensors, halved at every third update by another scheduler."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.25))
    scheduler = AutoDrop(optimizer, window=WINDOW)
    other = lr_scheduler.StepLR(optimizer, step_size=WINDOW, gamma=0.5)
    recorder = Recorder()
    log = ScalarLog(recorder, scheduler)
    for t, (x, y) in enumerate(list(Batches())[:12], 1):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        log.write()
        assert all(isinstance(value, float) for _, _, value in recorder.points), t
        other.step()
    rates = [(step, value) for step, tag, value in recorder.points if tag == "learning_rate"]
    assert rates == [(9, 0.25 / 4), (12, 0.25 / 8)]


def test_other_schedulers_are_refused():
    optimizer = sgd(network())
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.5), AutoDrop(optimizer, window=WINDOW)],
        milestones=[5],
    )
    with pytest.raises(TypeError, match="must be an AutoDrop, got SequentialLR: pass the AutoDrop"):
        ScalarLog(Recorder(), scheduler)
    with pytest.raises(TypeError, match=r"must be an AutoDrop, got NoneType$"):
        ScalarLog(Recorder(), None)


def test_the_documented_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = network()
    optimizer = sgd(model)
    scheduler = AutoDrop(optimizer, window=WINDOW)
    body = (
        "optimizer.zero_grad()",
        "torch.nn.functional.cross_entropy(model(x), y).backward()",
        "optimizer.step()",
    )
    names = {
        "torch": torch,
        "ScalarLog": ScalarLog,
        "scheduler": scheduler,
        "optimizer": optimizer,
        "model": model,
        "batches": 3 * list(Batches()),
    }
    example, *_ = documented.examples(ScalarLog)
    exec(example.replace("...", "; ".join(body)), names)
    names["log"]._writer.close()
    scalars = read(tmp_path / "runs" / "mine")
    assert [step for step, _ in scalars["angular_velocity"]] == list(range(9, 88, 3))
    assert all(math.isfinite(value) for _, value in scalars["angular_velocity"])
