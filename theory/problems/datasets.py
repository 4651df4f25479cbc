"""The finite sums on real data that come with scikit-learn: standardised, with a constant column.

Nothing is downloaded.  Columns that do not vary are dropped; the constant column is the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.problems.convex import Array
from theory.problems.finite_sums import FiniteSum
from theory.problems.losses import LogisticLoss, Loss

__all__ = ["breast_cancer", "diabetes", "digits"]


def _load(name: str) -> tuple[Array, Array]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"the {name} data come with scikit-learn: install the extra `checks`"
        ) from error
    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(features, dtype=np.float64), np.asarray(targets)


def _standardised(features: Array) -> Array:
    """Columns of mean 0 and variance 1, and a last one of ones."""
    varying = features[:, np.ptp(features, axis=0) > 0]
    scaled = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    return np.hstack([scaled, np.ones((len(scaled), 1))])


def _require_classes(loss: Loss) -> None:
    if not loss.classes:
        raise ValueError(
            f"loss must be one of two classes, HingeLoss() or LogisticLoss(), got {loss!r}"
        )


def breast_cancer(loss: Loss | None = None, *, features: int = 10, **sampling: Any) -> FiniteSum:
    """N = 569 tumours, b = 1 malignant, by the first `features` of 30 measurements.

    loss : `HingeLoss()` or `LogisticLoss()`, the default.
    features : 1 … 30.  The first ten are the means, on which the classes overlap; on all thirty
        they are separable, so f* = 0 for the hinge loss and the logistic loss raises ValueError.
    sampling : `start`, `batch`, `replacement` as for `FiniteSum`.
    """
    loss = LogisticLoss() if loss is None else loss
    _require_classes(loss)
    if not 1 <= features <= 30:
        raise ValueError(f"features must be in 1 ... 30, got {features}")
    data, benign = _load("breast_cancer")
    return FiniteSum(_standardised(data[:, :features]), 1.0 - 2 * benign, loss, **sampling)


def digits(
    loss: Loss | None = None, *, digit: int = 8, resolution: int = 4, **sampling: Any
) -> FiniteSum:
    """N = 1797 images, b = 1 where one shows `digit`, −1 for the rest.

    loss : `LogisticLoss()`, the default, or `HingeLoss()`.
    resolution : 8 for the 8×8 pixels, 4 or 2 for means over blocks of them.  With all pixels (and
        for the 7 at resolution 4) the classes are separable, or weakly so: a pixel that is black
        in one class only gives a direction in which no margin falls.  Then the logistic loss
        raises ValueError and the hinge loss has the certificate 0 ≤ f* only.
    sampling : `start`, `batch`, `replacement` as for `FiniteSum`.
    """
    loss = LogisticLoss() if loss is None else loss
    _require_classes(loss)
    if digit not in range(10):
        raise ValueError(f"digit must be in 0 ... 9, got {digit}")
    if resolution not in (2, 4, 8):
        raise ValueError(f"resolution must be 2, 4 or 8, got {resolution}")
    pixels, shown = _load("digits")
    block = 8 // resolution
    blocks = pixels.reshape(-1, resolution, block, resolution, block).mean(axis=(2, 4))
    labels = np.where(shown == digit, 1.0, -1.0)
    return FiniteSum(_standardised(blocks.reshape(len(shown), -1)), labels, loss, **sampling)


def diabetes(loss: Loss, **sampling: Any) -> FiniteSum:
    """N = 442 patients, b the standardised progression of the disease, by 10 measurements.

    loss : `AbsoluteLoss()` or `HuberLoss(width)`.
    sampling : `start`, `batch`, `replacement` as for `FiniteSum`.
    """
    if loss.classes:
        raise ValueError(f"loss must be AbsoluteLoss() or HuberLoss(width), got {loss!r}")
    data, progression = _load("diabetes")
    targets = (progression - progression.mean()) / progression.std()
    return FiniteSum(_standardised(data), targets, loss, **sampling)
