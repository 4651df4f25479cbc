"""Records on disk: whole, or recognised as broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paper_checks.training import store

DOCUMENT = {"curves": {"test": [0.25, 1e-7, 3]}, "name": "ρ = 0.95", "none": None}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.write(path, DOCUMENT)
    assert store.read(path) == DOCUMENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.write(path, DOCUMENT)
    whole = path.read_bytes()
    for length in range(len(whole) - 2):  # the last byte is a line's end
        path.write_bytes(whole[:length])
        with pytest.raises(store.Corrupt, match="must be a"):
            store.read(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("0.25", "0.75"),
        lambda text: text.replace(', "none": null', ""),
        lambda text: json.dumps([text]),
        lambda text: json.dumps({"sha256": "", "document": []}),
        lambda text: "\0" * len(text),
    ],
    ids=["value", "entry", "list", "document", "zeros"],
)
def test_every_edit_is_seen(edit, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.write(path, DOCUMENT)
    text = path.read_text(encoding="utf-8")
    assert edit(text) != text
    path.write_text(edit(text), encoding="utf-8")
    with pytest.raises(store.Corrupt):
        store.read(path)


def test_absent_and_not_finite(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write(tmp_path / "nan.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
