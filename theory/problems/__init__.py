"""Problems whose every constant is known."""

from theory.problems.quadratic import NoisyQuadratic

__all__ = ["NoisyQuadratic"]
