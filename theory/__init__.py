"""The theory of AutoDrop: exact laws of the angular velocity on problems with known constants."""

from theory import angles, moments, saturation, simulate
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = [
    "NoisyQuadratic",
    "StepwiseSchedule",
    "UnifiedMomentum",
    "angles",
    "moments",
    "saturation",
    "simulate",
]
