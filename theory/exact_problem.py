"""A worst-case problem in exact numbers: what its proofs from above and from below share.

Setting: f convex on Rⁿ, n free, all its subgradients bounded by G, ‖x_0 − x*‖ ≤ R, no noise, and
a method x_{t+1} = x_0 − Σ_{i≤t} H[t, i] g_i with g_i a subgradient at x_i; F_t = f(x_t) − f*.
Two criteria: "best", min of F_0 … F_{T−1}, and "last", F_T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.methods import HasStepMatrix
from theory.potential import rate_list
from theory.worst_case import require, solving

__all__ = [
    "ExactProblem",
    "InvalidProof",
    "dot",
    "exact",
    "exact_problem",
    "normalised",
    "solve",
]

_CRITERIA = ("best", "last")

Matrix = list[list[Fraction]]
Exact = Fraction | int


class InvalidProof(ValueError):
    """A condition of a certificate or of a witness does not hold; the message says which."""


def exact(name: str, value: Any) -> Fraction:
    """The value as a Fraction; TypeError, with its name, unless it is an int or a Fraction."""
    if isinstance(value, bool) or not isinstance(value, Rational):
        raise TypeError(f"{name} must be exact (int or Fraction), got {value!r}")
    return Fraction(value)


def dot(u: Sequence[Fraction], v: Sequence[Fraction]) -> Fraction:
    """⟨u, v⟩."""
    return sum((a * b for a, b in zip(u, v, strict=True)), Fraction(0))


@dataclass(frozen=True, kw_only=True)
class ExactProblem:
    """The data of the problem; see the module.

    Parameters
    ----------
    rates : α_0 … α_{T−1}, T ≥ 1, exact.
    method : exact for exact rates.
    distance, subgradient : R > 0 and G > 0, exact.
    criterion : "best" or "last".

    Raises
    ------
    TypeError
        If a number is not exact (int or Fraction).
    ValueError
        If one is out of range, or the criterion is another.
    """

    rates: tuple[Fraction, ...]
    method: HasStepMatrix
    distance: Fraction
    subgradient: Fraction
    criterion: str = "best"

    def __post_init__(self) -> None:
        if self.criterion not in _CRITERIA:
            raise ValueError(f"criterion must be one of {_CRITERIA}, got {self.criterion!r}")
        rates = tuple(exact("every rate", rate) for rate in self.rates)
        if not rates:
            raise ValueError("rates must hold at least one rate")
        object.__setattr__(self, "rates", rates)
        for name in ("distance", "subgradient"):
            value = exact(name, getattr(self, name))
            if value <= 0:
                raise ValueError(f"{name} must be > 0, got {value}")
            object.__setattr__(self, name, value)

    @property
    def points(self) -> int:
        """The number of iterates at which f is evaluated: T for "best", T + 1 for "last"."""
        return len(self.rates) + (self.criterion == "last")

    @property
    def criterion_text(self) -> str:
        T = len(self.rates)
        return f"f(x_{T})" if self.criterion == "last" else f"min over t < {T} of f(x_t)"

    def require_entries(self, *names: str) -> None:
        """Raises `InvalidProof` unless each of these fields has one entry for every iterate."""
        for name in names:
            if len(getattr(self, name)) != self.points:
                raise InvalidProof(
                    f"{name} must have {self.points} entries for the criterion "
                    f"{self.criterion!r}, got {len(getattr(self, name))}"
                )

    def positions(self) -> Matrix:
        """x_t − x* in the basis (x_0 − x*, g_0, g_1, …), one row per iterate; x* last, all 0."""
        H, N = self.method.step_matrix(list(self.rates)), self.points
        rows = [[Fraction(0)] * (N + 1) for _ in range(N + 1)]
        for t in range(N):
            rows[t][0] = Fraction(1)
            for i in range(t):
                rows[t][i + 1] = -exact("every entry of the step matrix", H[t - 1, i])
        return rows


def exact_problem(
    rates: Any, method: HasStepMatrix, distance: Any, subgradient: Any, criterion: str = "best"
) -> ExactProblem:
    """The problem, of any sequence of rates."""
    return ExactProblem(
        rates=tuple(rate_list(rates)),
        method=method,
        distance=distance,
        subgradient=subgradient,
        criterion=criterion,
    )


def normalised(problem: ExactProblem) -> NDArray[np.float64]:
    """The positions in floats, in units with R = G = 1."""
    X = np.array([[float(entry) for entry in row] for row in problem.positions()])
    X[:, 1:] *= float(problem.subgradient / problem.distance)
    return X


def solve(objective: Any, constraints: list[Any]) -> None:
    """Solves a programme of cvxpy's with Clarabel, for its variables to be read off."""
    programme = require("cvxpy").Problem(objective, constraints)
    with solving("CLARABEL"):
        programme.solve(solver="CLARABEL")
    # An inaccurate solution costs tightness only: what is made of it is verified exactly.
    if programme.status not in ("optimal", "optimal_inaccurate"):
        raise RuntimeError(f"the semidefinite programme was not solved: {programme.status}")
