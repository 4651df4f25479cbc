"""The exact worst case of a method over all convex Lipschitz functions (performance estimation).

The largest value that min_t F_t, F_T or a weighted average of the F_t can take, F_t = f(x_t) − f*,
is itself an optimization problem over functions.  It depends on f only through the values, the
subgradients and the iterates, and these belong to some convex G-Lipschitz f exactly when

    f_i ≥ f_j + ⟨g_j, x_i − x_j⟩ and ‖g_i‖ ≤ G for all i, j,

which is linear in the values and in the Gram matrix of x_0 − x*, g_0, g_1, …: a semidefinite
programme, exact in every dimension ≥ the number of these vectors.

Sources: Drori and Teboulle, Math. Program. 145 (2014) 451–482; Taylor, Hendrickx and Glineur,
SIAM J. Optim. 27 (2017) 1283–1313, Theorem 3.5 (these conditions suffice); Goujaud et al., PEPit,
Math. Program. Comput. 16 (2024) 337–367.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.methods import HasStepMatrix

__all__ = ["Multipliers", "WorstCase", "worst_case"]

Array = NDArray[np.float64]

MAX_ITERATIONS = 30
# Relative to max(GR, value).  Clarabel stops when the gap and the residuals are below 1e-8, or says
# `optimal_inaccurate`; up to T² of these errors add up in what is recomputed here.
ACCURACY = 1e-6

_PEPIT = threading.Lock()  # PEPit numbers points and functions by counters of its classes


@dataclass(frozen=True, eq=False)
class Multipliers:
    """The dual solution: what the constraints, multiplied by these and added, prove.

    In the units R = G = 1, where

        value / (GR) = distance + Σ_t subgradient[t] + gap · F_0^max / (GR).

    criterion : shape (rows,), the weights of the F (or their averages) whose minimum is taken;
        they sum to 1.
    distance : of ‖x_0 − x*‖² ≤ R².
    gap : of F_0 ≤ gap; 0 where no gap was given.
    subgradient : shape (N,), of ‖g_t‖² ≤ G².
    convexity : shape (N + 1, N + 1); entry i, j belongs to f_i ≥ f_j + ⟨g_j, x_i − x_j⟩, and
        the last row and column to x*.
    """

    criterion: Array
    distance: float
    gap: float
    subgradient: Array
    convexity: Array


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The value of a performance-estimation problem, with a function that attains it and its dual.

    value : the worst case, from the dual: no function does worse, to the solver's accuracy.
    attained : what the function below does; `value` is larger by
        at most 1e-6 max(GR, value).
    criterion, solver, status, rates : what was asked for, and the solver's verdict.
    iterates, subgradients, gaps : shapes (N, d), (N, d), (N,): x_t − x*, g_t and F_t of a worst
        function, for t < N; N = T + 1 if x_T counts, else T.  One such function is
        f(x) − f* = max(0, max_t F_t + ⟨g_t, x − x_t⟩).
    multipliers : the dual solution.
    """

    value: float
    attained: float
    criterion: str | tuple[float, ...]
    solver: str
    status: str
    rates: tuple[float, ...]
    iterates: Array
    subgradients: Array
    gaps: Array
    multipliers: Multipliers


@dataclass(frozen=True, eq=False)
class Normalized:
    """One checked question, in the units R = G = 1, F in units of GR.

    steps : H, shape (T, T).  objectives : shape (rows, N): the criterion is the least of
    objectives @ F, N the number of iterates that count.  gap : None if F_0 ≤ GR implies it.
    """

    rates: tuple[float, ...]
    criterion: str | tuple[float, ...]
    steps: Array
    objectives: Array
    gap: float | None
    scale: float


def positive(name: str, value: Any, zero: bool = False) -> float:
    """The value as a float, after checking that it is finite and > 0 (or also 0)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    if not (0 < number < math.inf or (zero and number == 0)):
        raise ValueError(f"{name} must be finite and {'>=' if zero else '>'} 0, got {value}")
    return number


def _objectives(criterion: Any, rates: Sequence[float]) -> tuple[str | tuple[float, ...], Array]:
    T = len(rates)
    if isinstance(criterion, str):
        rows = {
            "best": np.eye(T),
            "last": np.eye(1, T + 1, T),
            "average": np.array([rates]) / sum(rates),
        }
        if criterion not in rows:
            raise ValueError(f"criterion must be one of {list(rows)} or weights, got {criterion!r}")
        return criterion, rows[criterion]
    weights = np.asarray(criterion, dtype=float)
    if weights.shape not in {(T,), (T + 1,)}:
        raise ValueError(
            f"criterion must hold a weight for each of F_0 … F_{T - 1}, or of F_0 … F_{T}, "
            f"got shape {weights.shape}"
        )
    total = float(weights.sum())
    if not (np.isfinite(weights).all() and total > 0):
        raise ValueError(f"the weights of a criterion must be finite, of sum > 0, got sum {total}")
    return tuple(weights.tolist()), weights[None] / total


def normalize(
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    gap: float | None,
    criterion: Any,
    max_iterations: int,
) -> Normalized:
    """The question in the units R = G = 1, after all checks of its arguments.

    x is measured in R, gradients in G, so F in GR and a rate in R/G.
    """
    R, G = positive("distance", distance), positive("subgradient", subgradient)
    listed = np.asarray(rates).tolist() if hasattr(rates, "__array__") else list(rates)
    α = tuple(positive(f"rates[{t}]", rate) for t, rate in enumerate(listed))
    if not 1 <= len(α) <= max_iterations:
        raise ValueError(
            f"the exact worst case takes 1 <= T <= {max_iterations} iterations, got T = {len(α)}"
        )
    if not hasattr(method, "step_matrix"):
        raise TypeError(f"method must have a step_matrix, got {method!r}")
    H = np.asarray(method.step_matrix(α), dtype=float)
    if not np.isfinite(H).all():
        raise ValueError("the method's step_matrix must be finite: some step overflows")
    if gap is not None:
        gap = positive("gap", gap) / (G * R)
    name, objectives = _objectives(criterion, α)
    return Normalized(
        rates=α,
        criterion=name,
        steps=H * (G / R),
        objectives=objectives,
        gap=None if gap is None or gap >= 1 else gap,
        scale=G * R,
    )


def require(module: str) -> ModuleType:
    """The module, or an ImportError that names the extra which brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"exact worst cases need {module}: pip install 'autodrop[checks]'"
        ) from error


def installed_solver(solver: str) -> str:
    """The solver's name in capitals; ValueError unless cvxpy finds it."""
    installed = require("cvxpy").installed_solvers()
    if str(solver).upper() not in installed:
        raise ValueError(f"solver must be one of the installed {installed}, got {solver!r}")
    return str(solver).upper()


@contextlib.contextmanager
def solving(solver: str) -> Iterator[None]:
    """Turns the solver's own failures into a RuntimeError, and its warnings into nothing.

    The warning repeats what the status says; `check_solution` decides how accurate it is.
    """
    failure = require("cvxpy").error.SolverError
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        try:
            yield
        except failure as error:
            raise RuntimeError(f"{solver} could not solve the programme: {error}") from error


def check_solution(solver: str, value: float, attained: float, excess: float) -> None:
    """RuntimeError unless the two objectives agree and no constraint is exceeded (R = G = 1)."""
    tolerance = ACCURACY * max(1.0, abs(value))
    if not abs(value - attained) <= tolerance:
        raise RuntimeError(
            f"{solver}'s primal and dual values must agree to {tolerance:.1g} GR, "
            f"got {attained} and {value}"
        )
    if not excess <= tolerance:
        raise RuntimeError(
            f"{solver} must meet the constraints to {tolerance:.1g} (for R = G = 1), "
            f"got an excess of {excess:.1g}"
        )


def check_status(solver: str, status: str) -> None:
    """RuntimeError unless the solver reports an optimum, whose accuracy is `check_solution`'s."""
    if status not in {"optimal", "optimal_inaccurate"}:
        raise RuntimeError(f"{solver} must end with status optimal, got {status!r}")


def _excess(x: Array, g: Array, F: Array, gap: float | None) -> float:
    """By how much the points, subgradients and values fail to be those of an allowed function."""
    slopes = F + np.einsum("jk,ijk->ij", g, x[:, None] - x[None])  # what piece j says at x_i
    at_minimizer = F - np.einsum("jk,jk->j", g, x)
    return float(
        max(
            (slopes - F[:, None]).max(),
            at_minimizer.max(),
            (-F).max(),
            np.linalg.norm(g, axis=1).max() - 1,
            np.linalg.norm(x[0]) - 1,
            -np.inf if gap is None else F[0] - gap,
        )
    )


def worst_case(
    rates: Any,
    method: HasStepMatrix,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    criterion: str | ArrayLike = "best",
    solver: str = "CLARABEL",
) -> WorstCase:
    """max over f of min_{t<T} F_t, F_t = f(x_t) − f*: f convex, ‖∂f‖ ≤ G, ‖x_0 − x*‖ ≤ R.

    Over functions on spaces of every dimension, and over the subgradients that the method meets.
    Solved to about eight digits in units of GR, in 0.3 s at T = 12 and 2.5 s at T = 30.

    Parameters
    ----------
    rates : α_0 … α_{T−1}, each > 0, T ≤ 30: a `StepwiseSchedule` or a sequence.
    method : `UnifiedMomentum`, `TorchMomentum`, or whatever has a `step_matrix`.
    distance, subgradient : R > 0 and G > 0.
    gap : F_0 ≤ gap is assumed too; without it what follows from R and G, F_0 ≤ GR.
    criterion : "best", min_{t<T} F_t; "last", F_T after the T updates; "average",
        Σα_tF_t/Σα_t over t < T; or weights w, shape (T,) or (T + 1,), for Σw_tF_t/Σw_t.
    solver : as cvxpy names it; it must handle semidefinite programmes.

    Raises
    ------
    ImportError
        If PEPit or cvxpy is missing (extra `checks`).
    ValueError, TypeError
        If an argument is out of range, T > 30, or the solver is not installed.
    RuntimeError
        If the solver does not reach an optimum with agreeing primal and dual values.

    Source: UAI 2024, eq. (9) for the method; see the module's docstring for the programme.
    """
    question = normalize(
        rates,
        method,
        distance=distance,
        subgradient=subgradient,
        gap=gap,
        criterion=criterion,
        max_iterations=MAX_ITERATIONS,
    )
    require("PEPit")
    solver = installed_solver(solver)
    with _PEPIT:
        return _solve(question, float(distance), float(subgradient), solver)


def _solve(question: Normalized, R: float, G: float, solver: str) -> WorstCase:
    from PEPit import PEP, Expression
    from PEPit.functions import ConvexLipschitzFunction

    H, N = question.steps, question.objectives.shape[1]
    problem = PEP()  # sets the counters of PEPit's classes back
    f = problem.declare_function(ConvexLipschitzFunction, M=1.0)
    start = problem.set_initial_point()
    x: list[Any] = []
    g: list[Any] = []
    values: list[Any] = []
    for t in range(N):
        x.append(start)
        for i in range(t):
            x[t] = x[t] - float(H[t - 1, i]) * g[i]
        g_t, f_t = f.oracle(x[t])
        g.append(g_t)
        values.append(f_t)
    x_star = f.stationary_point()  # last, so that it has the last row of the multipliers
    F = [f_t - f(x_star) for f_t in values]

    within = (start - x_star) ** 2 <= 1
    problem.set_initial_condition(within)
    near = None
    if question.gap is not None:
        near = F[0] <= question.gap
        problem.set_initial_condition(near)
    worst = Expression()
    below = [
        worst <= sum(float(w) * F_t for w, F_t in zip(row, F, strict=True) if w)
        for row in question.objectives
    ]
    for constraint in below:
        problem.add_constraint(constraint)
    problem.set_performance_metric(worst)

    # PEPit prints a wide duality gap even when told to be silent; it is an error below.
    with solving(solver), contextlib.redirect_stdout(io.StringIO()):
        value = problem.solve(wrapper="cvxpy", solver=solver, verbose=0)
    status, used = problem.wrapper.prob.status, problem.wrapper.solver_name
    check_status(solver, status)
    origin = x_star.eval()
    iterates = np.array([point.eval() - origin for point in x])
    subgradients = np.array([point.eval() for point in g])
    gaps = np.array([F_t.eval() for F_t in F])
    attained = float((question.objectives @ gaps).min())
    check_solution(solver, value, attained, _excess(iterates, subgradients, gaps, question.gap))

    duals = f.get_class_constraints_duals()
    return WorstCase(
        value=question.scale * float(value),
        attained=question.scale * attained,
        criterion=question.criterion,
        solver=used,
        status=status,
        rates=question.rates,
        iterates=R * iterates,
        subgradients=G * subgradients,
        gaps=question.scale * gaps,
        multipliers=Multipliers(
            criterion=np.array([constraint.eval_dual() for constraint in below], dtype=float),
            distance=float(within.eval_dual()),
            gap=0.0 if near is None else float(near.eval_dual()),
            subgradient=duals["lipschitz_continuity"].to_numpy(dtype=float).ravel()[:N],
            convexity=duals["convexity"].to_numpy(dtype=float),
        ),
    )
