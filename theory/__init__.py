"""The theory of AutoDrop: exact laws of the angular velocity on problems with known constants."""

from theory import angles, closed_loop, moments, saturation, simulate
from theory.methods import UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = [
    "NoisyQuadratic",
    "StepwiseSchedule",
    "UnifiedMomentum",
    "angles",
    "closed_loop",
    "moments",
    "saturation",
    "simulate",
]
