"""Text that ships with Python, as bytes: the sources of its standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch

from paper_checks.training.data import Dataset

LENGTH = 128  # bytes of a sequence
_MODULES = 60  # the largest ones, which every installation has


def load_text(samples: int | None = None, length: int = LENGTH) -> Dataset:
    """Sequences of `length` bytes; what is predicted is the next one. A tenth is for the test.

    The text is that of the largest modules of the standard library, in the order of their names,
    so it depends on the version of Python; `Dataset.fingerprint` tells. The test set is the last
    tenth of every module.

    samples: how many training sequences to keep, all if None. Raises ValueError unless samples and
    length are ≥ 1.
    """
    for name, value in (("samples", 1 if samples is None else samples), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    folder = Path(sysconfig.get_path("stdlib"))
    modules = sorted(folder.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))
    train, test = [], []
    for path in sorted(modules[:_MODULES]):
        text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        count = (len(text) - 1) // length
        x = text[: count * length].reshape(count, length)
        y = text[1 : count * length + 1].reshape(count, length)
        cut = count - max(1, count // 10)
        train.append((x[:cut], y[:cut]))
        test.append((x[cut:], y[cut:]))
    train_x, train_y = _tokens(train)
    test_x, test_y = _tokens(test)
    if samples is not None:
        train_x, train_y = train_x[:samples], train_y[:samples]
    return Dataset("python source", train_x, train_y, test_x, test_y, tuple(range(256)))


def _tokens(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (np.concatenate(arrays).astype(np.int64) for arrays in zip(*pairs, strict=True))
    return torch.from_numpy(x), torch.from_numpy(y)
