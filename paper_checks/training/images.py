"""Images in the formats that people have them in, decoded once.

An .npz of encoded images (keys jpeg, offset, label, is_test, classes) or of raw ones (x uint8, y,
is_test), CIFAR's python version as torchvision unpacks it, or folders train/ and test/, in each a
folder of images for each class.
"""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paper_checks.training.data import Dataset

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def load_images(path: str | Path, samples: int | None = None) -> Dataset:
    """Images as float32, standardised by channel with mean and deviation of the training set.

    samples: how many training images to keep, drawn at random; all if None. Raises ValueError for
    what is in none of the formats, images of different sizes and labels that do not fit; OSError
    for what cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"data must be an existing file or folder, got {str(path)!r}")
    x, y, test, classes = _reader(path)(path)
    if x.dtype != np.uint8 or x.ndim != 4:
        raise ValueError(f"images must be uint8 of shape (N, C, H, W), got {x.dtype} {x.shape}")
    if not len(x) == len(y) == len(test):
        raise ValueError(
            f"images, labels and is_test must be as many, got {len(x)}, {len(y)}, {len(test)}"
        )
    if test.all() or not test.any():
        raise ValueError("images must be for training and for the test, got only one of both")
    if y.min() < 0 or y.max() >= len(classes):
        raise ValueError(f"labels must be in [0, {len(classes)}), got {y.min()} to {y.max()}")
    rows = np.flatnonzero(~test)
    if samples is not None:
        if not 1 <= samples <= len(rows):
            raise ValueError(f"samples must be in [1, {len(rows)}], got {samples}")
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:samples])
    train = x[rows]
    mean = train.mean(axis=(0, 2, 3), dtype=np.float64)
    deviation = np.maximum(train.std(axis=(0, 2, 3), dtype=np.float64), 1e-12)

    def standardised(images: np.ndarray) -> torch.Tensor:
        shift, scale = (v.astype(np.float32)[:, None, None] for v in (mean, deviation))
        return torch.from_numpy(((images - shift) / scale).reshape(len(images), -1))

    labels = torch.from_numpy(y.astype(np.int64))
    return Dataset(
        path.stem,
        standardised(train),
        labels[torch.from_numpy(rows)],
        standardised(x[test]),
        labels[torch.from_numpy(test)],
        classes,
        tuple(x.shape[1:]),
    )


Images = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]


def _reader(path: Path) -> Callable[[Path], Images]:
    if path.is_file() and path.suffix == ".npz":
        return _archive
    if (path / "data_batch_1").is_file() or (path / "train").is_file():
        return _cifar
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _folders
    raise ValueError(
        f"data must be an .npz, CIFAR's python version or hold train/ and test/, got {path}"
    )


def _archive(path: Path) -> Images:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"data must be an .npz archive of arrays, {path} is none") from error
    encoded = {"jpeg", "offset", "label", "is_test", "classes"}
    if encoded <= arrays.keys():
        offset = arrays["offset"]
        x = np.stack(
            [
                _decoded(arrays["jpeg"][a:b].tobytes())
                for a, b in itertools.pairwise(offset.tolist())
            ]
        )
        y, names = arrays["label"], arrays["classes"]
    elif {"x", "y", "is_test"} <= arrays.keys():
        x, y = arrays["x"], arrays["y"]
        if x.ndim == 4 and x.shape[3] in (1, 3):
            x = x.transpose(0, 3, 1, 2)
        names = arrays.get("classes", np.arange(int(y.max()) + 1))
    else:
        raise ValueError(
            f"{path} must hold {', '.join(sorted(encoded))}, or x, y and is_test, "
            f"got {', '.join(arrays) or 'nothing'}"
        )
    return x, y, arrays["is_test"].astype(bool), tuple(str(name) for name in names)


def _cifar(path: Path) -> Images:
    """data_batch_1 … 5 and test_batch of CIFAR-10, or train and test of CIFAR-100."""
    ten = (path / "data_batch_1").is_file()
    parts = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if ten else ["train", "test"]
    label, meta, names = (
        ("labels", "batches.meta", "label_names") if ten
        else ("fine_labels", "meta", "fine_label_names")
    )  # fmt: skip
    found = [_unpickled(path / part) for part in parts]
    x = np.concatenate([part["data"] for part in found]).reshape(-1, 3, 32, 32)
    y = np.concatenate([np.asarray(part[label]) for part in found])
    test = np.concatenate(
        [
            np.full(len(part["data"]), "test" in name)
            for name, part in zip(parts, found, strict=True)
        ]
    )
    return x, y, test, tuple(str(name) for name in _unpickled(path / meta)[names])


class _Arrays(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            module = module.replace("numpy.core", "numpy._core")
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"only arrays are unpickled, got {module}.{name}")


def _unpickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            return _Arrays(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
            raise ValueError(
                f"{path} must be a batch of CIFAR's python version: {error}"
            ) from error


def _folders(path: Path) -> Images:
    classes = tuple(sorted(folder.name for folder in (path / "train").iterdir() if folder.is_dir()))
    images, labels, test = [], [], []
    for part in ("train", "test"):
        for number, name in enumerate(classes):
            for file in sorted((path / part / name).glob("*")):
                if file.suffix.lower() in _SUFFIXES:
                    images.append(_decoded(file.read_bytes()))
                    labels.append(number)
                    test.append(part == "test")
    if not images:
        raise ValueError(
            f"data must hold images, {path} has none with suffix {', '.join(_SUFFIXES)}"
        )
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(f"images must have one size, got {', '.join(map(str, sorted(shapes)))}")
    return np.stack(images), np.array(labels), np.array(test), classes


def _decoded(content: bytes) -> np.ndarray:
    """The image in a file's content, uint8 of shape (3, H, W)."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("images are decoded by Pillow: pip install pillow") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise ValueError("images must be in a format that Pillow reads, got another one") from error
