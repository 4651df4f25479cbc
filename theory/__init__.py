"""The theory of AutoDrop: exact laws of the angular velocity on problems with known constants."""

from theory import (
    angles,
    bounds,
    certificates,
    closed_loop,
    designs,
    final_risk,
    moments,
    multipliers,
    oracle,
    reference_schedules,
    saturation,
    simulate,
    simulate_convex,
    velocity_model,
)
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.problems import NoisyQuadratic
from theory.schedules import StepwiseSchedule

__all__ = [
    "NoisyQuadratic",
    "StepwiseSchedule",
    "TorchMomentum",
    "UnifiedMomentum",
    "angles",
    "bounds",
    "certificates",
    "closed_loop",
    "designs",
    "final_risk",
    "moments",
    "multipliers",
    "oracle",
    "reference_schedules",
    "saturation",
    "simulate",
    "simulate_convex",
    "velocity_model",
]
