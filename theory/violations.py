"""Search for the smallest schedule whose exact worst case exceeds a claimed bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise, product

from theory.checks import positive_integer
from theory.methods import HasStepMatrix, UnifiedMomentum
from theory.noise_trees import noise_tree_worst_case
from theory.schedules import StepwiseSchedule
from theory.worst_case import positive

__all__ = ["Case", "Violation", "smallest_violation", "stepwise_cases"]

_SGD = UnifiedMomentum.sgd()


@dataclass(frozen=True)
class Case:
    """What a bound is about: α_t, the method, R, G, δ, and F_0 ≤ gap where that is assumed."""

    schedule: StepwiseSchedule
    method: HasStepMatrix = _SGD
    distance: float = 1.0
    subgradient: float = 1.0
    noise: float = 0.0
    gap: float | None = None


@dataclass(frozen=True)
class Violation:
    """A case with exact > bound.

    exact : the criterion of a worst function and, for δ > 0, worst two-point noise.
    bound : what was claimed to be ≥ it.
    tried, solved : how many cases were met, and for how many the exact value was needed.
    """

    case: Case
    exact: float
    bound: float
    tried: int
    solved: int

    @property
    def ratio(self) -> float:
        """exact / bound > 1; inf for a bound ≤ 0."""
        return self.exact / self.bound if self.bound > 0 else float("inf")


def stepwise_cases(
    stage_rates: Callable[[int], Sequence[float]],
    max_iterations: int,
    *,
    stages: Iterable[int],
    methods: Sequence[HasStepMatrix] = (_SGD,),
    distances: Sequence[float] = (1.0,),
    noises: Sequence[float] = (0.0,),
) -> Iterator[Case]:
    """Every (k_0, …, k_{n−1}) with Σk_i = T, for T = 1, 2, …, in increasing T; G = 1.

    Parameters
    ----------
    stage_rates : n ↦ (α̂_0, …, α̂_{n−1}).
    max_iterations : the largest T.
    stages : the n; a T < n has no such schedule.
    methods, distances, noises : combined with every schedule.  G = 1 loses nothing where the bound
        has the right units: only α_tG/R, δ/G and F_0/(GR) matter.
    """
    chosen = [positive_integer("stages", n) for n in stages]
    for T in range(1, positive_integer("max_iterations", max_iterations) + 1):
        for n in chosen:
            for cuts in combinations(range(1, T), n - 1):
                lengths = [right - left for left, right in pairwise((0, *cuts, T))]
                schedule = StepwiseSchedule(stage_rates(n), lengths)
                for method, R, δ in product(methods, distances, noises):
                    yield Case(schedule, method, distance=R, noise=δ)


def smallest_violation(
    bound: Callable[[Case], float],
    cases: Iterable[Case],
    *,
    proven: Callable[[Case], float] | None = None,
    tolerance: float = 1e-5,
    criterion: str = "best",
    solver: str = "CLARABEL",
) -> Violation | None:
    """The case of least T with exact > (1 + tolerance)·bound; of these, that of largest ratio.

    None if there is none.  The exact value is `noise_tree_worst_case`, which without noise equals
    `worst_case`, and the smaller of its primal and dual values, so that a function attains it.

    Parameters
    ----------
    bound : the claimed upper bound of the criterion; bounds that are not numbers raise.
    cases : in non-decreasing T; read only as far as the first T with a violation.
    proven : a true upper bound; a case where the claim is at least as large is not solved.
    tolerance : relative, > 0.  The default is ten times the accuracy of the exact value where
        that is of order GR; with smaller values choose a larger one.
    criterion, solver : as for `worst_case`.

    Raises
    ------
    ValueError
        If the cases are not in non-decreasing T, the bound is NaN, or the tolerance is not > 0;
        and as `noise_tree_worst_case`.
    """
    tolerance = positive("tolerance", tolerance)
    tried = solved = last = 0
    for iterations, group in groupby(cases, key=lambda case: len(case.schedule)):
        if iterations < last:
            raise ValueError(
                f"cases must come in non-decreasing T, got T = {iterations} after {last}"
            )
        last = iterations
        found: list[tuple[Case, float, float]] = []
        for case in group:
            tried += 1
            claim = float(bound(case))
            if claim != claim:
                raise ValueError(f"bound must be a number, got {claim} for {case}")
            if proven is not None and claim >= proven(case):
                continue
            solved += 1
            exact = noise_tree_worst_case(
                case.schedule,
                case.method,
                distance=case.distance,
                subgradient=case.subgradient,
                noise=case.noise,
                gap=case.gap,
                criterion=criterion,
                solver=solver,
            )
            attained = min(exact.attained, exact.value)
            if attained > (1 + tolerance) * claim:
                found.append((case, attained, claim))
        if found:
            violations = [Violation(*witness, tried=tried, solved=solved) for witness in found]
            return max(violations, key=lambda violation: violation.ratio)
    return None
