"""The sweep: killed and started again, broken records, the deadline, what it chooses."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paper_checks.training import plan, store
from paper_checks.training.plan import Variant
from paper_checks.training.results import Results
from paper_checks.training.sweep import OK, UNFINISHED, USAGE, main
from paper_checks.training.tasks import FIRST_TUNING_SEED, TASKS
from paper_checks.training.work import OutOfTime, Place, perform

SMALL = (
    "--task", "mlp-short", "--epochs", "2", "--seeds", "2", "--tuning-seeds", "1",
    "--schedules", "multistep",  # beside which the comparison needs AutoDrop and the constant rate
)  # fmt: skip
SECONDS = 7  # the position in a run of the results
TUNING = 3 * 3 + 5 * 3  # schedules, and one more recipe and four factors, at three rates


def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-m", "paper_checks.training.sweep"]
    return subprocess.Popen(
        [*command, *SMALL, "--out", str(out), *more],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def records(out: Path) -> dict[str, int]:
    """Names of the records there and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "records").glob("*.json")}


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.01)


def result(out: Path) -> Any:
    document = json.loads((out / "results.json").read_text())
    document["cpu_seconds"] = None
    for run in document["tasks"]["mlp-short"]["runs"]:
        run[SECONDS] = None
    return document


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was not interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert main([*SMALL, "--out", str(out)]) == OK
    return out


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_started_again(jobs: int, whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "--jobs", str(jobs))
    wait_for(lambda: len(records(tmp_path)) >= 5)
    process.send_signal(signal.SIGKILL)
    process.wait()

    def all_gone() -> bool:  # workers too: they hold no record back and start nothing more
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            return False
        return True

    wait_for(all_gone)
    before = records(tmp_path)
    assert len(before) < len(records(whole))  # else nothing was interrupted
    assert not (tmp_path / "results.json").exists()
    assert main([*SMALL, "--out", str(tmp_path)]) == OK
    after = records(tmp_path)
    assert {name: after[name] for name in before} == before  # nothing was done twice
    assert result(tmp_path) == result(whole)


def test_a_corrupt_record_is_reported_and_run_again(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").mkdir()
    for path in (whole / "records").iterdir():
        (tmp_path / "records" / path.name).write_bytes(path.read_bytes())
    before = records(tmp_path)
    half, edited = sorted(path for path in (tmp_path / "records").iterdir())[:2]
    half.write_bytes(half.read_bytes()[:500])
    edited.write_text(edited.read_text().replace('"diverged": null', '"diverged": 1'))
    assert main([*SMALL, "--out", str(tmp_path)]) == OK
    said = capsys.readouterr().out
    for path in (half, edited):
        assert path.name in said
        assert store.read(path)["diverged"] is None
    assert said.count("it is run again") == 2
    after = records(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {half.name, edited.name}
    assert result(tmp_path) == result(whole)


def test_the_second_time_nothing_is_done(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = records(whole)
    assert main([*SMALL, "--out", str(whole)]) == OK
    assert records(whole) == before
    assert f"tuning: {TUNING} of {TUNING} runs are there already" in capsys.readouterr().out


def test_no_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--out", str(tmp_path), "--minutes", "1e-9"]) == UNFINISHED
    assert "the same command goes on" in capsys.readouterr().err
    assert not records(tmp_path)


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "imagenet", "--out", str(tmp_path)]) == USAGE
    assert "task must be one of" in capsys.readouterr().err
    assert main(["--task", "cifar-cnn", "--out", str(tmp_path)]) == USAGE
    assert "give their path with --data" in capsys.readouterr().err
    assert main(["--seeds", "1", "--out", str(tmp_path)]) == USAGE
    assert "--seeds must be >= 2, got 1" in capsys.readouterr().err
    assert main(["--tuning-seeds", "0", "--out", str(tmp_path)]) == USAGE
    assert "--tuning-seeds must be >= 1, got 0" in capsys.readouterr().err
    assert main(["--minutes", "0", "--out", str(tmp_path)]) == USAGE
    assert "--minutes must be > 0, got 0" in capsys.readouterr().err
    assert main(["--level", "full", "--task", "cnn", "--out", str(tmp_path)]) == USAGE
    assert "--level and --task exclude each other" in capsys.readouterr().err
    for name, value in (("--data", "some.npz"), ("--samples", "20")):
        assert main(["--task", "cnn", name, value, "--out", str(tmp_path)]) == USAGE
        assert f"{name} is not for task 'cnn'" in capsys.readouterr().err
    assert main(["--task", "text-transformer", "--data", "x", "--out", str(tmp_path)]) == USAGE
    assert "--data is not for task 'text-transformer'" in capsys.readouterr().err


def test_a_long_run_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS["text-transformer"]
    trial = plan.trial(task, "test", Variant("cosine"), 0.001, 1)
    trial = replace(trial, config=replace(trial.config, epochs=3, width=32))
    place = Place(tmp_path / "whole", samples=70)
    place.folder.mkdir()
    perform(trial, place)
    uninterrupted = store.read(place.file(trial))

    late = Place(tmp_path / "late", samples=70, deadline=0.0)
    late.folder.mkdir()
    for _ in range(2):  # each start does one epoch
        with pytest.raises(OutOfTime):
            perform(trial, late)
        assert [path.suffix for path in late.folder.iterdir()] == [".pt"]
    perform(trial, late)
    assert [path.suffix for path in late.folder.iterdir()] == [".json"]
    resumed = store.read(late.file(trial))
    for entry in (resumed, uninterrupted):
        for name in ("seconds", "cpu_seconds", "resumed_after"):
            entry.pop(name)
    assert resumed == uninterrupted
    assert resumed["of"] == 128 * resumed["data"]["test"]


def test_half_a_checkpoint_starts_again(tmp_path: Path) -> None:
    task = TASKS["text-transformer"]
    trial = plan.trial(task, "test", Variant("constant"), 0.001, 1)
    trial = replace(trial, config=replace(trial.config, epochs=1, width=32))
    place = Place(tmp_path, samples=70)
    place.file(trial).with_suffix(".pt").write_bytes(b"half")
    perform(trial, place)
    assert store.read(place.file(trial))["resumed_after"] == 0.0


def test_what_diverges_is_kept(tmp_path: Path) -> None:
    trial = plan.trial(TASKS["mlp-short"], "test", Variant("constant"), 1e9, 1)
    perform(trial, Place(tmp_path))
    record = store.read(Place(tmp_path).file(trial))
    assert record["diverged"] is not None
    assert len(record["curves"]["test_accuracy"]) < 50


def rows(x: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


@pytest.mark.parametrize("name", ["mlp", "mlp-adamw"])
def test_the_tuning_never_sees_the_test_set(name: str) -> None:
    task = TASKS[name]
    test = rows(task.data()[1].test_x)
    validation = []
    for held in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + task.tuning):
        tuning, testing = task.data(held=held)
        assert rows(testing.test_x) == test
        assert not test & (rows(tuning.train_x) | rows(tuning.test_x))
        assert not rows(tuning.train_x) & rows(tuning.test_x)
        sizes = len(tuning.train_x), len(tuning.test_x), len(testing.test_x)
        assert sizes == (809, 269, 719)
        validation.append(rows(tuning.test_x))
    # Each tuning seed is judged by a part of its own.
    assert len(set.union(*validation)) > 2 * 269


def test_each_tuning_seed_has_its_validation_set() -> None:
    task, place = TASKS["mlp-short"], Place(Path("nowhere"))
    trials = plan.to_tune(task, ["cosine"])
    assert [trial.config.seed - FIRST_TUNING_SEED for trial in trials[:4]] == [0, 1, 2, 0]
    assert len({place.data(trial).fingerprint() for trial in trials}) == task.tuning == 3
    tests = [plan.trial(task, "test", Variant("cosine"), 0.1, seed) for seed in (1, 2)]
    assert len({place.data(trial).fingerprint() for trial in tests}) == 1


def test_runs_for_tuning_are_evaluated_on_the_validation_set(whole: Path) -> None:
    sizes = {"validation": set(), "test": set()}
    for path in (whole / "records").iterdir():
        record = store.read(path)
        sizes[record["part"]].add((record["data"]["train"], record["data"]["test"]))
    assert sizes == {"validation": {(809, 269)}, "test": {(809, 719)}}


def test_the_least_validation_error_is_chosen() -> None:
    task = TASKS["mlp-short"]
    tried = plan.variants(task, ("autodrop", "multistep"))
    errors = {(variant, rate): [5.0, 5.0] for variant in tried for rate in task.rates}
    errors[Variant("multistep"), 0.1] = [4.0, 4.5]
    errors[Variant("multistep", (("recipe", 1),)), 3.2] = [5.0, 3.0]
    errors[Variant("autodrop", factor=0.8), 0.2] = [1.0, 1.0]
    chosen = plan.choose(task, ("autodrop", "multistep"), errors)
    multistep, autodrop = chosen["multistep"], chosen["autodrop"]
    assert (multistep["rate"].variant.name, multistep["rate"].rate) == ("multistep", 0.1)
    assert (multistep["tuned"].variant.name, multistep["tuned"].rate) == ("multistep recipe=1", 3.2)
    assert multistep["tuned"].at_end
    assert not multistep["rate"].at_end
    assert multistep["guess"].rate == 0.1
    # A tie goes to the smaller rate; AutoDrop's factor is tuned in its own arm only.
    assert (autodrop["rate"].variant.name, autodrop["rate"].rate) == ("autodrop", 0.05)
    assert (autodrop["tuned"].variant.name, autodrop["tuned"].rate) == ("autodrop", 0.05)
    assert (autodrop["factor"].variant.name, autodrop["factor"].rate) == (
        "autodrop factor=0.8",
        0.2,
    )
    # The same counts of 269 in another order: a tie, though the floats' means differ.
    wrong = [100 * count / 269 for count in (8, 9, 10)]
    assert np.mean(wrong[::-1]) != np.mean(wrong)
    smaller, larger = sorted((wrong, wrong[::-1]), key=lambda several: float(np.mean(several)))
    errors[Variant("multistep"), 0.05], errors[Variant("multistep"), 0.1] = larger, smaller
    assert plan.choose(task, ["multistep"], errors)["multistep"]["rate"].rate == 0.05
    with pytest.raises(KeyError, match="no validation errors of cosine on mlp-short"):
        plan.choose(task, ["cosine"], errors)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.1, (0.05, 0.1, 0.2)),  # between two others from the start
        (0.4, (0.05, 0.1, 0.2, 0.4, 0.8)),
        (0.025, (0.0125, 0.025, 0.05, 0.1, 0.2)),
        (3.2, (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)),  # the ladder's end
    ],
)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_rates_are_tried_until_the_best_lies_between_others(
    best: float, tried: tuple[float, ...], scale: float
) -> None:
    task, name = TASKS["cnn"], "schedule-free" if scale > 1 else "cosine"
    variant, errors = Variant(name), {}
    more = plan.to_tune(task, [name])
    while more:
        assert {trial.config.seed for trial in more} == {400, 401, 402}
        for trial in more:
            rate = trial.config.learning_rate
            errors.setdefault((variant, rate), []).append(abs(math.log(rate / scale / best)))
        more = plan.to_tune_on(task, [name], errors)
    assert sorted(rate for _, rate in errors) == pytest.approx([scale * rate for rate in tried])
    assert all(len(several) == task.tuning for several in errors.values())
    chosen = plan.choose(task, [name], errors)[name]
    assert chosen["rate"].rate == pytest.approx(scale * best)
    assert chosen["rate"].at_end == (best == 3.2)
    assert chosen["guess"].rate == pytest.approx(scale * 0.1)


def test_schedule_free_starts_at_the_defaults_of_its_package() -> None:
    schedulefree = pytest.importorskip("schedulefree")
    weights = [torch.nn.Parameter(torch.zeros(1))]
    for task, optimizer in (
        ("mlp", schedulefree.SGDScheduleFree(weights)),
        ("mlp-adamw", schedulefree.AdamWScheduleFree(weights)),
    ):
        assert plan.guess(TASKS[task], "schedule-free") == optimizer.defaults["lr"]
    assert plan.guess(TASKS["mlp"], "cosine") == 0.1


def test_ladders() -> None:
    for task in TASKS.values():
        assert list(task.ladder) == sorted(set(task.ladder))
        at = task.ladder.index(task.rates[0])
        assert task.ladder[at : at + len(task.rates)] == task.rates
        assert task.guess in task.rates
        assert 0 < at < len(task.ladder) - len(task.rates)  # there is more on both sides


def test_results_know_their_format(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="must have results of format 2, got 0"):
        Results.load(path)
