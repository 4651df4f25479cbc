"""Problems whose every constant is known."""

from theory.problems.convex import ConvexProblem
from theory.problems.finite_sums import (
    FiniteSum,
    hinge_loss,
    huber_regression,
    l1_regression,
    logistic_regression,
)
from theory.problems.noise import AdditiveNoise, GaussianNoise, TwoPointNoise
from theory.problems.piecewise import AbsoluteValue, MaxAffine, Norm
from theory.problems.quadratic import NoisyQuadratic

__all__ = [
    "AbsoluteValue",
    "AdditiveNoise",
    "ConvexProblem",
    "FiniteSum",
    "GaussianNoise",
    "MaxAffine",
    "NoisyQuadratic",
    "Norm",
    "TwoPointNoise",
    "hinge_loss",
    "huber_regression",
    "l1_regression",
    "logistic_regression",
]
