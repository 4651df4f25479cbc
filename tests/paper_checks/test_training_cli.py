"""``python -m paper_checks.training`` from the command line to the files it writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paper_checks.training.__main__ import DIVERGED, INTERRUPTED, OK, USAGE, main
from paper_checks.training.run import Run


@pytest.fixture
def npz(tmp_path: Path) -> str:
    rng = np.random.default_rng(2)
    y = np.arange(60) % 3
    path = tmp_path / "blobs.npz"
    np.savez(path, x=rng.normal(size=(60, 2, 2)) + y[:, None, None], y=y)
    return str(path)


def flags(npz: str, out: Path, *more: str) -> list[str]:
    return ["--data", npz, "--epochs", "6", "--batch-size", "6", "--out", str(out), *more]


def read(out: Path) -> Any:
    return json.loads((out / "record.json").read_text(), parse_constant=pytest.fail)


def without_seconds(out: Path) -> Any:
    return {name: {**entry, "seconds": None} for name, entry in read(out).items()}


def test_from_a_shell(npz: str, tmp_path: Path) -> None:
    """As a user runs it; warnings are errors."""
    out = tmp_path / "out"
    command = [sys.executable, "-W", "error", "-m", "paper_checks.training"]
    done = subprocess.run(
        [*command, *flags(npz, out)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == OK, done.stderr
    assert done.stderr == ""
    assert "blobs: 48 samples to train and 12 to test, 3 classes" in done.stdout
    for row in ("test accuracy", "learning rate", "drops"):
        assert row in done.stdout
    record = read(out)
    assert list(record) == ["autodrop", "constant"]
    assert record["autodrop"]["iterations"] == record["constant"]["iterations"] == 48
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "training.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert str(out / "training.png") in done.stdout


def test_options_reach_the_run(npz: str, tmp_path: Path) -> None:
    given = "--lr 0.02 --optimizer adamw --momentum 0.8 --weight-decay 0.1 --rule arxiv2021"
    more = f"{given} --window 4 --factor 0.3 --seed 5"
    assert main(flags(npz, tmp_path / "o", *more.split())) == OK
    config = read(tmp_path / "o")["autodrop"]["config"]
    expected = {"learning_rate": 0.02, "optimizer": "adamw", "momentum": 0.8, "weight_decay": 0.1}
    expected |= {"rule": "arxiv2021", "window": 4, "factor": 0.3, "seed": 5, "epochs": 6}
    assert {name: config[name] for name in expected} == expected
    assert read(tmp_path / "o")["constant"]["config"] == {**config, "schedule": "constant"}


def test_interrupted_twice_and_resumed(
    npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Once in each of the two runs; what comes out is what an uninterrupted run gives."""
    assert main(flags(npz, tmp_path / "whole")) == OK
    advance, done, stop = Run.advance, 0, 20

    def interrupted(self: Run) -> None:
        nonlocal done
        if done == stop:
            raise KeyboardInterrupt
        done += 1
        advance(self)

    monkeypatch.setattr(Run, "advance", interrupted)
    parts = flags(npz, tmp_path / "parts")
    assert main(parts) == INTERRUPTED  # 20 updates: 2 epochs of 8 and a half
    assert "--resume" in capsys.readouterr().err
    stop = 20 + 32 + 13  # the other 4 epochs, then 1 and a half of the second run
    assert main([*parts, "--resume"]) == INTERRUPTED
    assert not (tmp_path / "parts" / "record.json").exists()
    stop = 20 + 32 + 13 + 40  # only its unfinished epoch is done again
    assert main([*parts, "--resume"]) == OK
    assert done == stop
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")


def test_one_line_for_bad_data(npz: str, tmp_path: Path, capsys: Any) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, x=np.full((4, 2), np.nan), y=np.array([0, 0, 1, 1]))
    for data, words in (
        (str(bad), "x must be finite, got nan at index [0, 0]"),
        (str(tmp_path / "none.npz"), "data must be an existing .npz file"),
    ):
        assert main(flags(data, tmp_path / "o")) == USAGE
        complaint = capsys.readouterr().err
        assert re.fullmatch(r"error: [^\n]+\n", complaint)
        assert words in complaint
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--epochs", "0", "epochs must be an integer >= 1, got 0"),
        ("--lr", "nan", "learning_rate must be finite and > 0, got nan"),
        ("--window", "0", "window must be an integer >= 1"),
        ("--device", "gpu", "device must be cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_one_line_for_bad_options(
    flag: str, value: str, words: str, npz: str, tmp_path: Path, capsys: Any
) -> None:
    assert main(flags(npz, tmp_path / "o", flag, value)) == USAGE
    assert re.fullmatch(rf"error: {re.escape(words)}[^\n]*\n", capsys.readouterr().err)


def test_unknown_choices(npz: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(flags(npz, tmp_path / "o", "--optimizer", "adam"))
    assert stopped.value.code == USAGE


def test_divergence(npz: str, tmp_path: Path, capsys: Any) -> None:
    assert main(flags(npz, tmp_path / "o", "--lr", "1e12")) == DIVERGED
    assert "the loss must stay finite" in capsys.readouterr().err


def test_resuming_something_else(npz: str, tmp_path: Path, capsys: Any) -> None:
    assert main(flags(npz, tmp_path / "o")) == OK
    assert main(flags(npz, tmp_path / "o", "--resume", "--seed", "9")) == USAGE
    assert "must have the same seed, it has 0 (here 9)" in capsys.readouterr().err


def test_out_is_a_file(npz: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "o").write_text("")
    assert main(flags(npz, tmp_path / "o")) == USAGE
    assert capsys.readouterr().err.startswith("error: ")
