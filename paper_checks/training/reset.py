"""What a drop does to the angle of a network: one run to saturation, then several drops from there.

found = angles_around_drop(config, data, factors=(0.95, 0.5, 0.1), before=60, after=20)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paper_checks.training.config import Config
from paper_checks.training.data import Dataset
from paper_checks.training.run import Run, threads


@dataclass(frozen=True)
class Around:
    """Angles in degrees, one a window, before the drop and after it.

    The first two after it are from windows on both sides of the drop.
    """

    factor: float
    before: tuple[float, ...]
    after: tuple[float, ...]


def angles_around_drop(
    config: Config, data: Dataset, factors: Sequence[float], before: int, after: int
) -> tuple[Around, ...]:
    """For each factor: train `before` epochs at the rate, multiply it once, train `after` epochs.

    The run before the drop is the same for all, as are the samples' order after it. The factor 1
    is a control that drops nothing. config: with schedule "constant"; its epochs are not used.

    Raises ValueError for another schedule and factors outside (0, 1].
    """
    if config.schedule != "constant":
        raise ValueError(f"schedule must be 'constant', got {config.schedule!r}")
    for factor in factors:
        if not 0.0 < factor <= 1.0:
            raise ValueError(f"factors must be in (0, 1], got {factor!r}")
    config = replace(config, epochs=before + after, watch=True)
    with threads(config.threads):
        first = Run(config, data)
        while first.iteration < before * first.epoch_length:
            first.advance()
        state = first.state_dict()
        found = []
        for factor in factors:
            run = Run(config, data)
            run.load_state_dict(state)
            for group in run.optimizer.param_groups:
                group["lr"] *= factor
            while not run.finished:
                run.advance()
            record = run.record()
            cut = sum(t <= first.iteration for t in record.angle_iterations)
            found.append(Around(factor, record.angles[:cut], record.angles[cut:]))
    return tuple(found)
