"""The sweep: killed and started again, broken records, the deadline, what it chooses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paper_checks.training import plan, store
from paper_checks.training.plan import Variant
from paper_checks.training.results import Results
from paper_checks.training.sweep import OK, UNFINISHED, USAGE, main
from paper_checks.training.tasks import TASKS
from paper_checks.training.work import OutOfTime, Place, perform

SMALL = (
    "--task", "mlp-short", "--epochs", "2", "--seeds", "2", "--tuning-seeds", "1",
    "--schedules", "autodrop", "constant", "multistep",
)  # fmt: skip
SECONDS = 7  # the position in a run of the results
TUNING = 3 * 4 + 4 * 4  # three schedules and four more factors, at four rates


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
    assert main([*SMALL, "--out", str(tmp_path), "--minutes", "0"]) == UNFINISHED
    assert "the same command goes on" in capsys.readouterr().err
    assert not records(tmp_path)


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "imagenet", "--out", str(tmp_path)]) == USAGE
    assert "task must be one of" in capsys.readouterr().err
    assert main(["--task", "cifar-cnn", "--out", str(tmp_path)]) == USAGE
    assert "give their path with --data" in capsys.readouterr().err
    assert main(["--seeds", "1", "--out", str(tmp_path)]) == USAGE
    assert "--seeds must be >= 2, got 1" in capsys.readouterr().err


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


def test_the_tuning_never_sees_the_test_set() -> None:
    for name in ("mlp", "mlp-adamw"):
        tuning, testing = TASKS[name].data()
        seen = {row.numpy().tobytes() for x in (tuning.train_x, tuning.test_x) for row in x}
        assert not any(row.numpy().tobytes() in seen for row in testing.test_x)
        assert (tuning.train_x == testing.train_x).all()
        sizes = len(tuning.train_x), len(tuning.test_x), len(testing.test_x)
        assert sizes == (809, 269, 719)


def test_runs_for_tuning_are_evaluated_on_the_validation_set(whole: Path) -> None:
    sizes = {"validation": set(), "test": set()}
    for path in (whole / "records").iterdir():
        record = store.read(path)
        sizes[record["part"]].add((record["data"]["train"], record["data"]["test"]))
    assert sizes == {"validation": {(809, 269)}, "test": {(809, 719)}}


def test_the_least_validation_error_is_chosen() -> None:
    task = TASKS["mlp"]
    tried = plan.variants(task, ("autodrop", "multistep"))
    errors = {(variant, rate): [5.0, 5.0] for variant in tried for rate in task.rates}
    errors[Variant("multistep"), 0.1] = [4.0, 4.5]
    errors[Variant("multistep", (("recipe", 1),)), 0.4] = [5.0, 3.0]
    errors[Variant("autodrop", factor=0.8), 0.2] = [1.0, 1.0]
    chosen = plan.choose(task, ("autodrop", "multistep"), errors)
    multistep, autodrop = chosen["multistep"], chosen["autodrop"]
    assert (multistep["rate"].variant.name, multistep["rate"].rate) == ("multistep", 0.1)
    assert (multistep["tuned"].variant.name, multistep["tuned"].rate) == ("multistep recipe=1", 0.4)
    assert multistep["tuned"].at_end
    assert not multistep["rate"].at_end
    assert multistep["guess"].rate == 0.1
    # A tie goes to the smaller rate; AutoDrop's factor is tuned in its own arm only.
    assert (autodrop["rate"].variant.name, autodrop["rate"].rate) == ("autodrop", 0.03)
    assert (autodrop["tuned"].variant.name, autodrop["tuned"].rate) == ("autodrop", 0.03)
    assert (autodrop["factor"].variant.name, autodrop["factor"].rate) == (
        "autodrop factor=0.8",
        0.2,
    )


def test_results_know_their_format(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="results must have format 1, got 0"):
        Results.load(path)
