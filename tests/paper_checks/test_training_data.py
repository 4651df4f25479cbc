"""Data sets: the split, the standardisation, and what is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paper_checks.training import load_digits, load_npz
from paper_checks.training.data import split


def test_digits_are_split_by_class() -> None:
    data = load_digits()
    assert data.classes == tuple(range(10))
    assert len(data.train_x) + len(data.test_x) == 1797
    assert data.train_x.shape[1] == data.features == 64
    assert data.train_x.dtype == torch.float32
    counts = torch.bincount(torch.cat([data.train_y, data.test_y]))
    assert torch.bincount(data.test_y).tolist() == [round(0.2 * int(n)) for n in counts]


def test_split_follows_the_seed_only() -> None:
    assert load_digits(3).fingerprint() == load_digits(3).fingerprint()
    assert load_digits(3).fingerprint() != load_digits(4).fingerprint()


def test_no_sample_is_in_both_sets_or_in_none() -> None:
    """Each sample carries its own number, which the split may only standardise."""
    x = np.arange(60.0)[:, None]
    data = split("numbered", x, np.arange(60) % 3)
    values = torch.cat([data.train_x, data.test_x])[:, 0].sort().values
    labels = torch.cat([data.train_y, data.test_y])[
        torch.cat([data.train_x, data.test_x])[:, 0].argsort()
    ]
    steps = values.diff()
    # Evenly spaced again: float32 rounds values of size ≤ 2 by 2⁻²³, their differences by twice.
    assert float((steps - steps.mean()).abs().max()) <= 2 * 2.0**-23
    assert labels.tolist() == [i % 3 for i in range(60)]


def test_tables_by_column_images_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * np.arange(1.0, 7.0) + np.arange(6.0)
    x[:, 0] = 7.0
    y = np.arange(200) % 2
    table = split("table", x, y).train_x.double()
    # n float32 values of size O(1) sum up to n roundings; one more for each after the division.
    tolerance = 4 * 2.0**-23
    assert float(table.mean(0).abs().max()) <= tolerance
    deviations = table.std(0, correction=0)
    assert float((deviations[1:] - 1.0).abs().max()) <= tolerance
    assert table[:, 0].tolist() == [0.0] * len(table)  # a constant column
    image = split("image", x.reshape(200, 2, 3), y).train_x.double()
    assert abs(float(image.std(correction=0)) - 1.0) <= tolerance
    # Columns keep their relative sizes, 6 : 2 with a sampling deviation of 0.24.
    assert float(image.std(0)[5] / image.std(0)[1]) > 2.0


def test_scale_of_the_numbers_does_not_matter() -> None:
    """Powers of two change no bit, even where squares over- or underflow."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    x[:, 3] = 0.1  # whose mean rounds to something else
    same = split("x", x, y)
    assert not same.train_x[:, 3].any()
    for scale in (2.0**-900, 2.0**900):
        assert split("x", x * scale, y).fingerprint() == same.fingerprint()


def test_outliers_beyond_float32() -> None:
    """Refused in the test set; in the training set they are what the scale is made of."""
    x, y = np.arange(1.0, 41.0)[:, None], np.arange(40) % 2
    # The split depends on the labels only, so another x tells which rows are in the test set.
    marked = split("rows", np.eye(40), y)
    # A row that is only in the test set has no entry in the training set: its column is 0 there.
    tested = np.flatnonzero(~marked.train_x.any(0).numpy())
    assert len(tested) == len(marked.test_x) == 8
    outlier = x.copy()
    outlier[tested[0]] = 1e300
    with pytest.raises(ValueError, match="x must be finite in float32 once standardised"):
        split("outlier", outlier, y)
    outlier = x.copy()
    outlier[np.setdiff1d(np.arange(40), tested)[0]] = 1e300
    assert split("outlier", outlier, y).train_x.isfinite().all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.bool_])
def test_number_types(tmp_path: Path, dtype: Any) -> None:
    x = (np.arange(48).reshape(12, 4) % 2).astype(dtype)
    np.savez(tmp_path / "d.npz", x=x, y=np.array([5, -3] * 6, dtype=np.int16))
    data = load_npz(tmp_path / "d.npz")
    assert data.name == "d"
    assert data.classes == (-3, 5)
    assert sorted(torch.cat([data.train_y, data.test_y]).tolist()) == [0] * 6 + [1] * 6


X, Y = np.arange(24.0).reshape(8, 3), np.array([0, 1] * 4)
NAN = X.copy()
NAN[3, 1] = np.nan
INF = X.copy()
INF[0, 2] = -np.inf
REFUSED = {
    "x has the wrong kind": (X.astype(str), Y, "x must be real numbers, got dtype <U"),
    "x is complex": (X.astype(complex), Y, "x must be real numbers, got dtype complex128"),
    "x is a vector": (X[:, 0], Y, r"x must have shape \(N, …\).*got \(8,\)"),
    "x is a number": (np.array(1.0), Y, r"x must have shape \(N, …\).*got \(\)"),
    "x is empty": (X[:0], Y[:0], r"x must have shape \(N, …\).*got \(0, 3\)"),
    "x has no features": (X[:, :0], Y, r"x must have shape \(N, …\).*got \(8, 0\)"),
    "x has a nan": (NAN, Y, r"x must be finite, got nan at index \[3, 1\]"),
    "x has an inf": (INF, Y, r"x must be finite, got -inf at index \[0, 2\]"),
    "y is real": (X, Y / 2, "y must be integer labels, got dtype float64"),
    "y is text": (X, Y.astype(str), "y must be integer labels, got dtype <U"),
    "y is one-hot": (X, np.eye(2, dtype=int)[Y], r"y must have one label for each of the 8.*8, 2"),
    "y is shorter": (X, Y[:5], r"y must have one label for each of the 8 samples, got \(5,\)"),
    "one class": (X, 0 * Y + 4, r"y must have at least 2 classes, got only \[4\]"),
    "a lonely class": (X, np.array([0, 1, 0, 1, 7, 0, 1, 0]), "at least 2 samples.*1 of class 7"),
}


@pytest.mark.parametrize(("x", "y", "message"), REFUSED.values(), ids=REFUSED)
def test_malformed_arrays(tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "bad.npz")


def test_object_arrays_are_not_unpickled(tmp_path: Path) -> None:
    """The pickle would create a file; nothing may run it."""
    harm = tmp_path / "harm"
    np.savez(tmp_path / "o.npz", x=np.array([_Harm(harm)] * 2, dtype=object), y=Y)
    with pytest.raises(
        ValueError, match=r"x must be an array of numbers, .* it is an object array"
    ):
        load_npz(tmp_path / "o.npz")
    assert not harm.exists()


class _Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(self.path), "w")


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    with pytest.raises(ValueError, match=r"data must be an existing \.npz file, got '.*f\.npz'"):
        load_npz(path)
    for content in (b"", b"text, no archive", b"PK\x03\x04 and nothing behind"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"data must be an \.npz archive of arrays, .* is none"
        ):
            load_npz(path)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(ValueError, match=r"is one \.npy array"):
        load_npz(path)


def test_archives_that_lack_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, labels=Y)
    with pytest.raises(ValueError, match="must hold the arrays x and y, got x, labels"):
        load_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00 cut off")
        archive.writestr("y.npy", b"")
    with pytest.raises(ValueError, match=r"x must be an array of numbers, in .* it is unreadable"):
        load_npz(tmp_path / "b.npz")


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(100, 50)), y=np.arange(100))
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x must be an array of numbers, in .* it is unreadable"):
        load_npz(path)
