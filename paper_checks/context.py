"""What a check is told about the run it is part of: level, device and seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

Level = Literal["quick", "full"]
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """Level, device and seed of an audit.

    ``level`` is "quick" (the whole audit in two minutes on two cores) or "full" (more cases, more
    samples); ``device`` is a torch device name; ``seed`` is a non-negative integer.

    Raises ValueError for an unknown level or a negative seed.
    """

    level: Level = "quick"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise ValueError(f"level must be one of {get_args(Level)}, got {self.level!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")

    def pick(self, quick: T, full: T) -> T:
        """Return ``quick`` at level "quick" and ``full`` at level "full"."""
        return quick if self.level == "quick" else full

    def rng_seed(self, name: str) -> int:
        """Return a 63-bit seed that depends only on the run's seed and on ``name``.

        Streams of different names are independent (``numpy.random.SeedSequence`` over the seed and
        the SHA-256 of the name), so running one claim alone draws what it draws in the whole audit.
        Fits ``numpy.random.default_rng`` and ``torch.Generator.manual_seed``.
        """
        digest = hashlib.sha256(name.encode()).digest()
        words = np.frombuffer(digest, dtype="<u4").tolist()
        state = np.random.SeedSequence([self.seed, *words]).generate_state(1, np.uint64)
        return int(state[0]) >> 1

    def rng(self, name: str) -> np.random.Generator:
        """Return the NumPy generator seeded by :meth:`rng_seed` of ``name``."""
        return np.random.default_rng(self.rng_seed(name))
