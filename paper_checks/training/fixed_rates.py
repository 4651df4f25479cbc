"""Figure 3 of the paper on a network that trains in seconds: the angle at constant rates.

The setting is plain SGD on the digits with a weight decay that keeps the network from fitting its
training set perfectly: where it does, the noise of the gradient vanishes at the minimum and there
is no stationary state whose angle could saturate.

How the mini-batches are drawn decides the level. With `sampling="independent"`, the noise of the
theory, the window law of plain SGD applies (75.5° to 120°). With `sampling="shuffled"` every epoch
sees each sample once, the noise of a whole epoch nearly cancels, and window means one epoch long
are nearly independent of each other: independent means have steps at 120° whatever the rate is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset, load_digits
from paper_checks.training.record import Record
from paper_checks.training.run import train

RATES = (0.4, 0.2, 0.1)
SETTING = Config(epochs=200, batch_size=64, momentum=0.0, weight_decay=0.02, schedule="constant")


def angle_at_fixed_rates(
    rates: Sequence[float] = RATES,
    *,
    config: Config = SETTING,
    seed: int = 0,
    data: Dataset | None = None,
) -> tuple[Record, ...]:
    """One run at each constant rate: `.angles` in degrees, one per epoch, and `.curves`.

    The window is one epoch, as in Figure 3 (UAI 2024, p. 3606); entry i of the angles is from
    epochs i, i+1, i+2. All runs share the first weights and the samples' order.

    config: the rest of the setting; its rate, window, schedule and seed are not used.
    data: the digits if not given.
    """
    data = load_digits() if data is None else data
    epoch = math.ceil(len(data.train_x) / config.batch_size)
    given = dataclasses.replace(config, window=epoch, schedule="constant", seed=seed)
    return tuple(train(dataclasses.replace(given, learning_rate=rate), data) for rate in rates)


def level(record: Record, quarter: int = 4) -> float:
    """Mean angle of the last quarter of the windows, or of another one (1 to 4), in degrees."""
    if quarter not in (1, 2, 3, 4):
        raise ValueError(f"quarter must be 1, 2, 3 or 4, got {quarter!r}")
    if len(record.angles) < 4:
        raise ValueError(f"a level needs at least 4 angles, got {len(record.angles)}")
    return float(np.array_split(record.angles, 4)[quarter - 1].mean())


def epochs_to(record: Record, degrees: float, width: int = 5) -> float:
    """Epochs until the mean of `width` successive angles first reaches `degrees`; inf if never."""
    if not 1 <= width <= len(record.angles):
        raise ValueError(f"width must be in [1, {len(record.angles)}], got {width!r}")
    means = np.convolve(record.angles, np.full(width, 1 / width), "valid")
    reached = np.flatnonzero(means >= degrees)
    if not len(reached):
        return math.inf
    return record.angle_iterations[int(reached[0]) + width - 1] / record.epoch_length
