"""A detector of motion over ranks: the drops of one process, one sum a window, resumable."""

import functools

import pytest

from autodrop.detectors import VarianceRatio
from tests.autodrop.ranks_training import WINDOW, train
from tests.autodrop.test_checkpoints import load_midway, save_midway
from tests.ranks import run_ranks

STEPS = 180
OPTIONS = {"detector": VarianceRatio(0.4, first=5.0, last=5.0, shortest=4)}


def run(kind):
    found = train(kind, steps=STEPS, **OPTIONS)
    return {name: found[name] for name in ("drops", "rates", "counts")}


@functools.cache
def one_process():
    return run("one process")


@pytest.mark.parametrize(("kind", "world"), [("fsdp", 4), ("hsdp", 4)])
def test_ranks_drop_where_one_process_does(kind, world, tmp_path):
    expected = one_process()
    assert len(expected["drops"]) >= 1
    for found in run_ranks(run, world, tmp_path, kind):
        assert [step for step, _ in found["drops"]] == [step for step, _ in expected["drops"]]
        assert found["rates"] == expected["rates"]
        ends = [i for i, count in enumerate(found["counts"], 1) if count]
        assert ends == list(range(WINDOW, STEPS + 1, WINDOW))
        assert set(found["counts"]) == {0, 1}


def save(kind, cut, folder):
    save_midway(kind, cut, folder, **OPTIONS)


def load_and_finish(kind, cut, folder):
    training = load_midway(kind, folder, **OPTIONS)
    for t in range(cut, STEPS):
        training.step(t)
    return [(event.step, event.new_lr) for event in training.scheduler.drops]


def test_a_distributed_checkpoint_goes_on_with_other_ranks(tmp_path):
    cut, folder = 101, tmp_path / "checkpoint"
    run_ranks(save, 2, tmp_path, "fsdp", cut, folder)
    for found in run_ranks(load_and_finish, 4, tmp_path, "fsdp", cut, folder):
        assert found == one_process()["drops"]
    assert load_and_finish("one process", cut, folder) == one_process()["drops"]
