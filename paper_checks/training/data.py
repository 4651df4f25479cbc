"""Labelled data as a network takes them: flat, standardised, in a training and a test set."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set.

    train_x, test_x: float32 of shape (N, features), standardised with the mean and the standard
        deviation of the training set; or int64 tokens of the same shape.
    train_y, test_y: int64 of shape (N,), indices into `classes`; for tokens (N, features), the
        token that follows each.
    classes: the labels as the source has them, ascending.
    image: of what is an image, its shape (channels, height, width); else empty.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[int | str, ...]
    image: tuple[int, ...] = ()

    @property
    def features(self) -> int:
        """Numbers per sample."""
        return self.train_x.shape[1]

    def fingerprint(self) -> str:
        """SHA-256 of the four arrays, in hexadecimal."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def load_digits(seed: int = 0, test_fraction: float = TEST_FRACTION) -> Dataset:
    """The 1797 images of handwritten digits, 8×8 pixels, that scikit-learn ships with.

    seed, test_fraction: of the split, see `split`.
    """
    from sklearn.datasets import load_digits as bundled

    digits = bundled()
    data = split("digits", digits.images, digits.target, seed, test_fraction)
    return replace(data, image=(1, 8, 8))


def holdout(data: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(for tuning, for testing): both train on the same part of the training set.

    The first has the rest of it, `fraction` of each class and at least one sample, in place of the
    test set, so that what is tuned on it has not seen a test sample; the second has the test set.

    seed: of the random choice. Raises ValueError unless 0 < fraction < 1 and each class keeps a
    sample to train on.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be in (0, 1), got {fraction!r}")
    # Sequences of tokens have no class: any of them may be held out.
    y = data.train_y.numpy() if data.train_y.ndim == 1 else np.zeros(len(data.train_y), np.int64)
    held = torch.from_numpy(_chosen(y, fraction, np.random.default_rng(seed)))
    left = np.unique(y[~held.numpy()])
    if len(left) < len(np.unique(y)):
        raise ValueError(f"fraction must leave each class a sample to train on, got {fraction!r}")
    x, y_ = data.train_x, data.train_y
    return (
        replace(data, train_x=x[~held], train_y=y_[~held], test_x=x[held], test_y=y_[held]),
        replace(data, train_x=x[~held], train_y=y_[~held]),
    )


def load_npz(path: str | Path, seed: int = 0) -> Dataset:
    """The arrays x and y of an .npz file, see `split`.

    Nothing is unpickled. Raises ValueError if the file is not such an archive, and for arrays that
    `split` refuses; OSError if it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data must be an existing .npz file, got {str(path)!r}")
    with path.open("rb") as file:
        try:
            archive: Any = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"data must be an .npz archive of arrays, {path} is none") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"data must be an .npz archive of arrays, {path} is one .npy array")
        x, y = (_member(archive, name, path) for name in ("x", "y"))
    return split(path.stem, x, y, seed)


def split(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    seed: int = 0,
    test_fraction: float = TEST_FRACTION,
) -> Dataset:
    """Standardise x, and put a fifth of each class, at least one sample, into the test set.

    x: real numbers of shape (N, …), N samples. Tables, (N, d), are standardised by column; images
        and all else with more axes with one mean and one deviation, which keeps the background
        where it was. What is constant in the training set becomes 0.
    y: N integer labels, at least two different ones and at least two samples of each.
    seed: of the random split; the same seed gives the same split.
    test_fraction: if not a fifth, the part of each class that goes into the test set.

    Raises ValueError for other arrays, and unless 0 < test_fraction < 1.
    """
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"test_fraction must be in (0, 1), got {test_fraction!r}")
    x, labels = _checked_x(x), _checked_y(y, len(x))
    classes, y, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"y must have at least 2 classes, got only {classes.tolist()}")
    if counts.min() < 2:
        lonely = classes[counts.argmin()]
        raise ValueError(
            f"y must have at least 2 samples of each class, one to train and one to test, "
            f"got {counts.min()} of class {lonely}"
        )
    test = _chosen(y, test_fraction, np.random.default_rng(seed))

    across = 0 if x.ndim == 2 else None
    with np.errstate(over="ignore"):  # checked below, with a better message
        # By the largest entry first: no square over- or underflows, and a constant is ±1 exactly.
        x = x / _positive(np.abs(x[~test]).max(axis=across))
        mean, deviation = x[~test].mean(axis=across), x[~test].std(axis=across)
        x = ((x - mean) / _positive(deviation)).reshape(len(x), -1).astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(
            "x must be finite in float32 once standardised, got a test sample beyond 3e38 standard "
            "deviations of the training set"
        )
    features, targets = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    test_rows = torch.from_numpy(test)
    return Dataset(
        name,
        features[~test_rows],
        targets[~test_rows],
        features[test_rows],
        targets[test_rows],
        tuple(classes.tolist()),
    )


def _chosen(y: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of `fraction` of each class of y = 0, 1, …, at least one sample of each."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        of_class = rng.permutation(np.flatnonzero(y == label))
        chosen[of_class[: max(1, round(fraction * len(of_class)))]] = True
    return chosen


def _positive(scale: np.ndarray) -> np.ndarray:
    return np.where(scale > 0, scale, 1.0)


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    if name not in archive.files:
        found = ", ".join(archive.files) or "nothing"
        raise ValueError(f"{path} must hold the arrays x and y, got {found}")
    try:
        return np.asarray(archive[name])
    except (
        ValueError,
        EOFError,
        RuntimeError,
        MemoryError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        # numpy says "Object arrays cannot be loaded when allow_pickle=False".
        what = "an object array" if "Object" in str(error) else f"unreadable ({error})"
        raise ValueError(f"{name} must be an array of numbers, in {path} it is {what}") from error


def _checked_x(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "fiub":
        raise ValueError(f"x must be real numbers, got dtype {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must have shape (N, …) with N samples of numbers, got {x.shape}")
    x = x.astype(np.float64)
    finite = np.isfinite(x)
    if not finite.all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"x must be finite, got {x[at]} at index {list(at)}")
    return x


def _checked_y(y: np.ndarray, samples: int) -> np.ndarray:
    if y.dtype.kind not in "iub":
        raise ValueError(f"y must be integer labels, got dtype {y.dtype}")
    if y.shape != (samples,):
        raise ValueError(f"y must have one label for each of the {samples} samples, got {y.shape}")
    return y
