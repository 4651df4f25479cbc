"""Step-wise learning-rate schedules, UAI 2024, eq. (11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["StepwiseSchedule"]


@dataclass(frozen=True, init=False)
class StepwiseSchedule:
    """α_t = α̂_i for t_i ≤ t < t_{i+1}, with t_{i+1} − t_i = k_i.

    `len(schedule)` is T = Σ k_i; `np.asarray(schedule)` has one rate per iteration, shape (T,).

    Parameters
    ----------
    rates : α̂_0, α̂_1, …; each > 0 and finite.  They need not decrease.  `Fraction`s are kept.
    lengths : k_0, k_1, …; positive integers, as many as rates.

    Raises
    ------
    ValueError, TypeError
        If the two differ in number, are empty, or an entry breaks its condition.

    Source: UAI 2024, eq. (11), p. 3609.
    """

    rates: tuple[Any, ...]
    lengths: tuple[int, ...]

    def __init__(self, rates: Sequence[Any], lengths: Sequence[int]) -> None:
        for name, value in (("rates", rates), ("lengths", lengths)):
            if not isinstance(value, Iterable):
                raise TypeError(f"{name} must be a sequence, one entry per stage, got {value!r}")
        rates, lengths = tuple(rates), tuple(lengths)
        if not rates or len(rates) != len(lengths):
            raise ValueError(
                "rates and lengths must be equally many and at least one, "
                f"got {len(rates)} and {len(lengths)}"
            )
        for rate in rates:
            if not 0 < rate < float("inf"):
                raise ValueError(f"every rate must be finite and > 0, got {rate}")
        for length in lengths:
            if not isinstance(length, Integral) or length < 1:
                raise ValueError(f"every length must be a positive integer, got {length!r}")
        object.__setattr__(self, "rates", rates)
        object.__setattr__(self, "lengths", tuple(int(length) for length in lengths))

    @classmethod
    def constant(cls, rate: Any, iterations: int) -> StepwiseSchedule:
        """α_t = rate for `iterations` iterations."""
        return cls((rate,), (iterations,))

    @classmethod
    def geometric(
        cls, rate: float, factor: float, lengths: Sequence[int], min_rate: float = 0.0
    ) -> StepwiseSchedule:
        """α̂_i = max(min_rate, rate · factorⁱ), one for each length."""
        if not 0 < factor <= 1:
            raise ValueError(f"factor must satisfy 0 < factor <= 1, got {factor}")
        return cls([max(min_rate, rate * factor**i) for i in range(len(lengths))], lengths)

    @classmethod
    def from_rates(cls, rates: Sequence[Any]) -> StepwiseSchedule:
        """The schedule that has `rates[t]` as α_t: equal neighbours are joined into a stage."""
        stages = [(rate, sum(1 for _ in run)) for rate, run in groupby(rates)]
        return cls([rate for rate, _ in stages], [length for _, length in stages])

    def __len__(self) -> int:
        return sum(self.lengths)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a StepwiseSchedule has no array to share: copy=False is impossible")
        return np.repeat(np.array(self.rates, dtype=dtype), self.lengths)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """t_0 = 0, t_1, …, T."""
        return tuple(accumulate(self.lengths, initial=0))

    def segments(self, start: int, stop: int) -> Iterator[tuple[Any, int]]:
        """(rate, number of iterations) of each stage that meets start ≤ t < stop, in order."""
        edges = self.boundaries
        if not 0 <= start <= stop <= edges[-1]:
            raise ValueError(f"need 0 <= start <= stop <= {edges[-1]}, got {start}, {stop}")
        for rate, left, right in zip(self.rates, edges[:-1], edges[1:], strict=True):
            count = min(stop, right) - max(start, left)
            if count > 0:
                yield rate, count
