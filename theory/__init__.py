"""The theory of AutoDrop: exact laws of the angular velocity on problems with known constants."""

from theory import (
    angle_noise,
    angles,
    bounds,
    certificates,
    closed_loop,
    designs,
    final_risk,
    ideal_regrets,
    ideal_rules,
    moments,
    multipliers,
    one_rate,
    oracle,
    reference_schedules,
    saturation,
    simulate,
    simulate_convex,
    truth,
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
    "angle_noise",
    "angles",
    "bounds",
    "certificates",
    "closed_loop",
    "designs",
    "final_risk",
    "ideal_regrets",
    "ideal_rules",
    "moments",
    "multipliers",
    "one_rate",
    "oracle",
    "reference_schedules",
    "saturation",
    "simulate",
    "simulate_convex",
    "truth",
    "velocity_model",
]
