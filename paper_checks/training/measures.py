"""What the protocol measures of a run: the curve of its test error, kept small.

Errors are counts of wrong test samples, integers, so that two machines can agree exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

QUARTERS = (0.25, 0.5, 0.75, 1.0)
_POINTS = 20  # of a curve that are kept
CHANCE = 0.9  # the error that a diverged run is given


@dataclass(frozen=True)
class Curve:
    """Test error of one run over its budget.

    of: test samples. epochs: the budget.
    points: (epoch, wrong) at up to 20 evenly spaced epochs, the quarters among them.
    total: Σ wrong over all epochs.
    lowest: (epoch, wrong) wherever the error was lower than ever before.
    """

    of: int
    epochs: int
    points: tuple[tuple[int, int], ...]
    total: int
    lowest: tuple[tuple[int, int], ...]

    @classmethod
    def of_counts(cls, wrong: Sequence[int], of: int, epochs: int) -> Curve:
        """From the count after every epoch; what a diverged run lacks is `CHANCE`.

        Raises ValueError for more counts than epochs, none and no epochs, or counts beyond `of`.
        """
        if epochs < 1 or len(wrong) > epochs:
            raise ValueError(f"counts must be at most one an epoch, got {len(wrong)} for {epochs}")
        if any(not 0 <= count <= of for count in wrong):
            raise ValueError(f"counts must be in [0, {of}], got {min(wrong)} to {max(wrong)}")
        counts = [*wrong, *[round(CHANCE * of)] * (epochs - len(wrong))]
        lowest: list[tuple[int, int]] = []
        for epoch, count in enumerate(counts, start=1):
            if not lowest or count < lowest[-1][1]:
                lowest.append((epoch, count))
        points = tuple((epoch, counts[epoch - 1]) for epoch in _kept(epochs))
        return cls(of, epochs, points, sum(counts), tuple(lowest))

    @property
    def final(self) -> float:
        """Test error at the end of the budget, %."""
        return 100 * self.points[-1][1] / self.of

    @property
    def area(self) -> float:
        """Mean test error over the epochs, %."""
        return 100 * self.total / (self.of * self.epochs)

    @property
    def least(self) -> float:
        """The least test error of any epoch, %: it selects on the test set."""
        return 100 * self.lowest[-1][1] / self.of

    def at(self, part: float) -> float:
        """Test error after that part of the budget (a quarter, half, …), %."""
        wrong = dict(self.points)[max(1, round(part * self.epochs))]
        return 100 * wrong / self.of

    def epochs_to(self, target: float) -> int:
        """The first epoch with a test error of at most `target` %, else the budget."""
        for epoch, wrong in self.lowest:
            if 100 * wrong / self.of <= target:
                return epoch
        return self.epochs

    def as_list(self) -> list[Any]:
        """As JSON has it: counts at the points, their total, and the pairs of `lowest` in turn."""
        flat = [number for pair in self.lowest for number in pair]
        return [[wrong for _, wrong in self.points], self.total, flat]

    @classmethod
    def from_list(cls, entry: list[Any], of: int, epochs: int) -> Curve:
        """From `as_list`."""
        counts, total, flat = entry
        points = tuple(zip(_kept(epochs), counts, strict=True))
        lowest = tuple(zip(flat[::2], flat[1::2], strict=True))
        return cls(of, epochs, points, total, lowest)


def _kept(epochs: int) -> list[int]:
    """The epochs that are kept of a curve."""
    at = {max(1, round(part * epochs)) for part in QUARTERS}
    return sorted(at | {max(1, round(i * epochs / _POINTS)) for i in range(1, _POINTS + 1)})


def final_error(accuracies: Sequence[float], of: int, diverged: bool) -> float:
    """The error (%) after the last of the evaluations; of a run that diverged, `CHANCE`."""
    return 100 * CHANCE if diverged else 100 * counts_of(accuracies, of)[-1] / of


def counts_of(accuracies: Sequence[float], of: int) -> list[int]:
    """Wrong samples from accuracies that are (of − wrong)/of."""
    return [int(np.rint((1.0 - accuracy) * of)) for accuracy in accuracies]
