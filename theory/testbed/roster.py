"""Who competes: every rule at its recommended setting, and the grid over which it is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theory.testbed.contenders import Contender
from theory.testbed.controls import Pacemaker
from theory.testbed.displacement import GeometricAngle, VarianceRatioTest
from theory.testbed.plateau import Plateau
from theory.testbed.published import Gaussian, MovingAverage, Snapshots
from theory.testbed.sensors import Distance, GradientProducts, WeightNorm
from theory.testbed.stationarity import StationarityTest

__all__ = ["ROSTER", "Family", "contenders"]


@dataclass(frozen=True)
class Family:
    """A rule and its settings; the first one is the recommended one.

    control : whether it is here only to be exposed.
    """

    name: str
    settings: tuple[Contender, ...]
    control: bool = False

    @property
    def recommended(self) -> Contender:
        """The setting of its source."""
        return self.settings[0]


ROSTER: tuple[Family, ...] = (
    Family(
        "AutoDrop, UAI 2024",
        (
            Gaussian(64, 0.95),
            *(Gaussian(k, ρ) for k in (1, 4, 16) for ρ in (0.95, 0.5)),
            Gaussian(64, 0.5),
        ),
    ),
    Family(
        "AutoDrop, Section 3", (MovingAverage(), MovingAverage(0.5, 0.0), MovingAverage(0.8, 0.0))
    ),
    Family("AutoDrop, arXiv 2021", (Snapshots(), Snapshots(min_lr=0.0), Snapshots(8, 0.2, 0.0))),
    Family(
        "ReduceLROnPlateau",
        (Plateau(), Plateau(factor=0.5), Plateau(factor=0.5, patience=3), Plateau(patience=3)),
    ),
    Family("Pflug", (GradientProducts(), GradientProducts(10), GradientProducts(1000))),
    Family("distance", (Distance(), Distance(threshold=0.3), Distance(threshold=1.0))),
    Family(
        "SASA+",
        (
            StationarityTest(),
            StationarityTest(least=100, factor=0.5),
            StationarityTest(period=25, least=25, factor=0.5, warm_up=0),
        ),
    ),
    Family("ABEL", (WeightNorm(), WeightNorm(factor=0.5), WeightNorm(16, 0.5))),
    Family(
        "geometric angle",
        (GeometricAngle(), GeometricAngle(1), GeometricAngle(threshold=0.0)),
    ),
    Family(
        "variance ratio",
        (
            VarianceRatioTest(),
            *(VarianceRatioTest(k) for k in (1, 4, 64)),
            VarianceRatioTest(factor=0.5),
        ),
    ),
    Family("clock dressed as a sensor", (Pacemaker(),), control=True),
)


def contenders(
    families: Sequence[Family] = ROSTER, *, recommended: bool = False
) -> tuple[Contender, ...]:
    """All settings, or the recommended ones, in the order of the families."""
    return tuple(
        each
        for family in families
        for each in (family.settings[:1] if recommended else family.settings)
    )
