"""Interrupted and resumed: after a kill, with other numbers of ranks, from light states."""

import functools
import io
import os
import signal
import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from autodrop import AutoDrop
from tests.autodrop.ranks_training import STEPS, WINDOW, Training, full, train
from tests.ranks import run_ranks


def record(training):
    scheduler = training.scheduler
    return {
        "angles": list(scheduler.angular_velocities),
        "steps": list(scheduler.angle_steps),
        "drops": list(scheduler.drops),
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "params": [full(p).tolist() for p in training.model.parameters()],
    }


def states(training):
    model, optimizer = get_state_dict(training.model, training.optimizer)
    return {"model": model, "optimizer": optimizer, "scheduler": training.scheduler}


def save_midway(kind, cut, folder, lag=0, **options):
    training = Training(kind, lag=lag, **options)
    for t in range(cut):
        training.step(t)
    pending = bool(training.scheduler.state_dict()["tracker"]["pending"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own: one process, deprecations
        dcp.save(states(training), checkpoint_id=folder)
    return pending


def load_midway(kind, folder, lag=0, **options):
    training = Training(kind, lag=lag, **options)
    training.step(1000)  # what it has seen must not matter
    state = states(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=folder)
    set_state_dict(
        training.model,
        training.optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    return training


def load_and_finish(kind, cut, folder, lag=0):
    training = load_midway(kind, folder, lag)
    for t in range(cut, STEPS):
        training.step(t)
    return record(training)


@functools.cache
def uninterrupted(lag):
    training = Training("one process", lag=lag)
    for t in range(STEPS):
        training.step(t)
    return record(training)


def same_as_uninterrupted(found, lag):
    whole = uninterrupted(lag)
    assert found["steps"] == whole["steps"]
    assert found["angles"] == pytest.approx(whole["angles"], abs=1e-6)
    assert [(e.step, e.observed, e.new_lr) for e in found["drops"]] == [
        (e.step, e.observed, e.new_lr) for e in whole["drops"]
    ]
    assert found["rates"] == whole["rates"]
    for mine, theirs in zip(found["params"], whole["params"], strict=True):
        assert torch.allclose(torch.tensor(mine), torch.tensor(theirs), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("kind", "before", "after_kind", "after"),
    [("fsdp", 2, "fsdp", 4), ("hsdp", 4, "fsdp", 2)],
)
def test_a_distributed_checkpoint_goes_on_with_other_ranks(
    kind, before, after_kind, after, tmp_path
):
    """In the middle of a window, with the angle of the last one on its way."""
    lag, cut = 3, 5 * WINDOW + 2
    folder = tmp_path / "checkpoint"
    assert all(run_ranks(save_midway, before, tmp_path, kind, cut, folder, lag))
    found = run_ranks(load_and_finish, after, tmp_path, after_kind, cut, folder, lag)
    assert len(found[0]["drops"]) >= 3
    for rank in found:
        same_as_uninterrupted(rank, lag)
        assert rank == found[0]


@pytest.mark.parametrize("cut", range(4 * WINDOW, 5 * WINDOW))
@pytest.mark.parametrize("lag", [0, 2])
def test_a_distributed_checkpoint_of_one_process(cut, lag, tmp_path):
    save_midway("one process", cut, tmp_path, lag)
    assert load_and_finish("one process", cut, tmp_path, lag) == uninterrupted(lag)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"window": 8}, r"window = 4 \(here 8\)$"),
        ({"detector": None}, r"detector = 'ThresholdSaturation' \(here 'GaussianSaturation'\)"),
        ({"momentum": "zero"}, r"momentum = 'keep' \(here 'zero'\)$"),
        ({"direction": torch.float32}, r"direction = None \(here 'torch.float32'\)$"),
    ],
    ids=str,
)
def test_a_distributed_checkpoint_of_another_scheduler_is_refused(changed, words, tmp_path):
    """The destination's keys decide what is loaded, and the file's values come back."""
    save_midway("one process", 9, tmp_path)
    training = Training("one process", **changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=words):
            dcp.load({"scheduler": training.scheduler}, checkpoint_id=tmp_path)


KILLED = """
import os, signal, sys, torch
from tests.autodrop.ranks_training import Training
training = Training("one process")
for t in range(int(sys.argv[1])):
    training.step(t)
    state = {
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
    }
    torch.save(state, sys.argv[2] + ".part")
    os.replace(sys.argv[2] + ".part", sys.argv[2])
training.step(t + 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_of_the_process_all_is_as_without(tmp_path):
    cut, path = 5 * WINDOW + 3, tmp_path / "checkpoint.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(cut), str(path)],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    state = torch.load(path, weights_only=True)
    training = Training("one process")
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.scheduler.load_state_dict(state["scheduler"])
    for t in range(cut, STEPS):
        training.step(t)
    assert record(training) == uninterrupted(0)


def test_tensors_are_under_the_names_of_the_parameters():
    state = Training("one process").scheduler.state_dict()["tracker"]
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(state["shapes"]) == names
    assert all(list(tensors) == names for tensors in state["copies"].values())
    # Renamed parameters are other parameters.
    state["shapes"]["1.weight"] = state["shapes"].pop("2.weight")
    training = Training("one process")
    whole = training.scheduler.state_dict() | {"tracker": state}
    with pytest.raises(ValueError, match=r"must have the parameter '2\.weight', got 0\.weight"):
        training.scheduler.load_state_dict(whole)


def test_a_light_state_keeps_the_record_and_restarts_the_window():
    training = Training("one process")
    cut = 5 * WINDOW + 1
    for t in range(cut):
        training.step(t)
    light = training.scheduler.state_dict(light=True)
    file = io.BytesIO()
    torch.save(light, file)
    size = file.tell()
    file.seek(0)
    before = record(training)
    assert before["drops"]
    # Nothing that it holds depends on how sums are kept or when they are read.
    other = Training("one process", accumulation="plain", direction=torch.bfloat16, lag=2)
    other.scheduler.load_state_dict(torch.load(file, weights_only=True))
    assert record(other)["drops"] == before["drops"]
    file.seek(0)
    training.scheduler.load_state_dict(torch.load(file, weights_only=True))
    assert record(training) == before
    for t in range(cut, 10 * WINDOW):
        training.step(t)
    # Windows 6, 7, 8 are the first whole ones after update 21.
    new = training.scheduler.angle_steps[len(before["steps"]) :]
    assert new == [9 * WINDOW, 10 * WINDOW]
    whole = io.BytesIO()
    torch.save(training.scheduler.state_dict(), whole)
    assert size < whole.tell() / 2


def test_shards_do_not_go_into_whole_parameters_without_resharding(tmp_path):
    with pytest.raises(Exception, match=r"need torch\.distributed\.checkpoint"):
        run_ranks(take_whole, 2, tmp_path, Training("one process").scheduler.state_dict())


def take_whole(state):
    Training("fsdp").scheduler.load_state_dict(state)


def take_the_first_rank_s():
    """As a trainer does that saves on rank 0 only."""
    training = Training("fsdp")
    for t in range(9):
        training.step(t)
    own, first = io.BytesIO(), [None]
    torch.save(training.scheduler.state_dict(), own)
    if dist.get_rank() == 0:
        first = [own.getvalue()]
    dist.broadcast_object_list(first)
    own.seek(0)
    training.scheduler.load_state_dict(torch.load(own, weights_only=False))
    try:
        training.scheduler.load_state_dict(torch.load(io.BytesIO(first[0]), weights_only=False))
    except ValueError as error:
        return str(error)
    return None


def test_another_rank_s_part_is_refused(tmp_path):
    first, second = run_ranks(take_the_first_rank_s, 2, tmp_path)
    assert first is None
    assert "must have this rank's part (1,) of parameter '0.weight', got part (0,)" in second


def test_control_these_runs_depend_on_what_is_saved(tmp_path):
    """Without its state the scheduler drops elsewhere."""
    cut = 5 * WINDOW + 2
    training = Training("one process")
    for t in range(cut):
        training.step(t)
    fresh = AutoDrop(training.optimizer, WINDOW, 0.5, detector=training.scheduler.rule.detector)
    training.scheduler = fresh
    for t in range(cut, STEPS):
        training.step(t)
    assert record(training)["rates"] != uninterrupted(0)["rates"]
    assert train("one process")["rates"] == uninterrupted(0)["rates"]
