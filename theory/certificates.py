"""What can be guaranteed for a realised schedule: every theorem, its hypotheses and its bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from theory import bounds, designs, multipliers
from theory.constants import constants
from theory.earlier_iterates import earlier_iterates
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.potential import rate_list
from theory.schedules import StepwiseSchedule

__all__ = ["Certificate", "Guarantee", "certify"]

PROGRAMME_ITERATIONS = 30  # a third of a second; the time grows like T⁴


@dataclass(frozen=True)
class Guarantee:
    """One theorem on one schedule.

    Attributes
    ----------
    theorem : its name.
    about : "best iterate" (min_t F_t), "average" (Σα_tF_t/Σα_t) or "last iterate".
    value : the bound; None if the theorem does not apply.
    reason : which hypothesis fails and where; empty if the theorem applies.
    """

    theorem: str
    about: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Certificate:
    """All guarantees for a schedule; `str()` gives a page of text.

    Attributes
    ----------
    schedule : its stages.
    method : the method that ran.
    distance, gap, subgradient, noise : R, F_0, G, δ as used.
    kappa_1, kappa_2 : min_i k_iα̂_i and max_i (i+1)k_iα̂_iα̂_{i−1}, see `bounds.stages`.
    increases : the iterations t with α_t > α_{t−1}.
    guarantees : one for each theorem, in a fixed order.
    constant : what Theorem A guarantees for the best iterate at the constant rate
        (1−β)R/(√T√(G²+δ²)), or F_0 if that is less.
    """

    schedule: StepwiseSchedule
    method: UnifiedMomentum | TorchMomentum
    distance: float
    gap: float
    subgradient: float
    noise: float
    kappa_1: float
    kappa_2: float
    increases: tuple[int, ...]
    guarantees: tuple[Guarantee, ...]
    constant: float

    def best(self, about: str = "best iterate") -> Guarantee:
        """The sharpest guarantee about the "best iterate", the "average" or the "last iterate".

        One about the average or the last iterate also holds for the best one; it is not counted.
        Raises ValueError if no theorem applies, or `about` is something else.
        """
        found = [g for g in self.guarantees if g.about == about and g.value is not None]
        abouts = sorted({g.about for g in self.guarantees})
        if about not in abouts:
            raise ValueError(f"about must be one of {abouts}, got {about!r}")
        if not found:
            raise ValueError(f"no theorem gives a guarantee about the {about} for this schedule")
        return min(found, key=lambda g: g.value if g.value is not None else float("inf"))

    def __str__(self) -> str:
        α, k = self.schedule.rates, self.schedule.lengths
        shown = [f"{float(a):.4g} × {length}" for a, length in zip(α, k, strict=True)]
        if len(shown) > 8:
            shown = [*shown[:5], "…", *shown[-2:]]
        monotone = "the rate never increases"
        if self.increases:
            monotone = f"the rate increases at t = {self.increases[0]}"
            monotone += f" and {len(self.increases) - 1} more times" if self.increases[1:] else ""
        lines = [
            f"{self.method}",
            f"T = {len(self.schedule)} updates in {len(k)} stages: {', '.join(shown)}",
            (
                f"R = {self.distance:.4g}, F_0 <= {self.gap:.4g}, G = {self.subgradient:.4g}, "
                f"delta = {self.noise:.4g}; {monotone}"
            ),
            f"kappa_1 = {self.kappa_1:.4g}, kappa_2 = {self.kappa_2:.4g}",
            "",
        ]
        width = max(len(g.theorem) for g in self.guarantees)
        for about in ("best iterate", "average", "last iterate"):
            lines.append(f"E f - f* of the {about}:")
            for g in self.guarantees:
                if g.about == about:
                    value = "does not apply" if g.value is None else f"<= {g.value:.6g}"
                    reason = f": {g.reason}" if g.reason else ""
                    if g.value is not None and about != "last iterate" and g.value >= self.gap:
                        reason += " (says nothing: F_0 is not larger)"
                    lines.append(f"  {g.theorem:<{width}}  {value}{reason}")
        lines.append(
            "For comparison, Theorem A would guarantee "
            f"{self.constant:.6g} for the best iterate at one constant rate."
        )
        return "\n".join(lines)


def certify(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum | None = None,
    *,
    distance: float = 1.0,
    subgradient: float = 1.0,
    gap: float | None = None,
    noise: float = 0.0,
    previous_rate: float | None = None,
) -> Certificate:
    """The guarantees for E f(x_t) − f* that hold along the learning rates α_0 … α_{T−1}.

    They are for rates that are fixed in advance.  Rates that a rule chose from what it observed
    depend on the noise; what is guaranteed is then the run that takes the same rates again.

    `rates` may come from a real run, for example one entry per update of
    `scheduler.get_last_lr()[0]`, or be a `StepwiseSchedule`.  f is assumed convex with ‖∂f‖ ≤ G;
    `distance` = R, `subgradient` = G, `gap` = F_0 (default GR), `noise` = δ as in `theory.bounds`;
    with the defaults rates are in units of R/G and bounds in units of GR.  `method` defaults to
    SGD; `previous_rate` is the α̂_{−1} of Theorem 5.1.  For T ≤ 30, and with the extra `checks`
    installed, the best proof that compares with earlier iterates only is computed too
    (`theory.earlier_iterates`).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.  A theorem that does not apply is no error: it is in the
        result, with the hypothesis that fails.
    """
    method = UnifiedMomentum.sgd() if method is None else method
    if not isinstance(method, UnifiedMomentum | TorchMomentum):
        raise TypeError(f"method must be a UnifiedMomentum or a TorchMomentum, got {method!r}")
    α = [float(rate) for rate in rate_list(rates)]
    c = constants(distance, gap, subgradient, noise)
    schedule = StepwiseSchedule.from_rates(α)
    given: dict[str, Any] = {
        "distance": float(c.R),
        "gap": float(c.F0),
        "subgradient": float(c.G),
        "noise": float(c.δ),
    }

    def programme(*arguments: Any, **constants: Any) -> float:
        if len(α) > PROGRAMME_ITERATIONS:
            raise ValueError(
                f"left out for T > {PROGRAMME_ITERATIONS}, since it takes long: "
                "theory.earlier_iterates, or theory.virtual_steps"
            )
        return earlier_iterates(*arguments, **constants).value

    def theorem_c() -> float:
        value = multipliers.last_iterate(α, method, **given)
        if value >= multipliers.path_length(α, method, **given):
            raise ValueError("no multipliers satisfy its hypothesis")
        return value

    um: Any = method  # what is about Unified Momentum only raises TypeError for another method
    listed: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "(31) as printed",
            "best iterate",
            lambda: bounds.printed_31(α, um, previous_rate=previous_rate, **given),
        ),
        (
            "Theorem 5.1, corrected",
            "best iterate",
            lambda: bounds.theorem_5_1(
                α, um, previous_rate=previous_rate, form="corrected", **given
            ),
        ),
        (
            "Theorem 5.1 from Theorem A",
            "best iterate",
            lambda: bounds.theorem_5_1(α, um, previous_rate=previous_rate, **given),
        ),
        (
            "Theorem 5.2 from Theorem A",
            "best iterate",
            lambda: bounds.theorem_5_2(α, um, **given),
        ),
        ("Theorem A", "best iterate", lambda: bounds.unified(α, method, **given)),
        ("Theorem B", "best iterate", lambda: bounds.theorem_b(α, method, **given)),
        ("Theorem C", "best iterate", lambda: multipliers.best_iterate(α, method, **given)),
        ("earlier iterates (SDP)", "best iterate", lambda: programme(α, method, **given)),
        ("repaired (31)", "average", lambda: bounds.repaired(α, um, **given)),
        ("Theorem A, averaged", "average", lambda: bounds.averaged(α, um, **given)),
        ("Theorem C", "last iterate", theorem_c),
        ("length of the path", "last iterate", lambda: multipliers.path_length(α, method, **given)),
    ]
    guarantees = []
    only_um = {"(31) as printed", "repaired (31)", "Theorem A, averaged"}
    for theorem, about, evaluate in listed:
        about_um = theorem in only_um or theorem.startswith("Theorem 5")
        if about_um and not isinstance(method, UnifiedMomentum):
            guarantees.append(Guarantee(theorem, about, None, "it is about Unified Momentum"))
            continue
        try:
            guarantees.append(Guarantee(theorem, about, float(evaluate())))
        except (ValueError, ImportError, RuntimeError) as error:
            guarantees.append(Guarantee(theorem, about, None, str(error)))
    stages = bounds.stages(schedule, previous_rate)
    return Certificate(
        schedule,
        method,
        given["distance"],
        given["gap"],
        given["subgradient"],
        given["noise"],
        float(stages.kappa_1),
        float(stages.kappa_2),
        tuple(t for t, (before, after) in enumerate(pairwise(α), start=1) if after > before),
        tuple(guarantees),
        _at_constant_rate(len(α), method, given),
    )


def _at_constant_rate(
    T: int, method: UnifiedMomentum | TorchMomentum, given: dict[str, Any]
) -> float:
    """min(F_0, Theorem A at its best constant rate), where torch's momentum is Unified Momentum."""
    if isinstance(method, TorchMomentum):
        method = UnifiedMomentum(method.momentum, int(method.nesterov))
    known = {name: given[name] for name in ("distance", "subgradient", "noise")}
    if given["subgradient"] == 0 or given["distance"] == 0:
        return 0.0
    rate = designs.best_constant_rate(T, method, **known)
    return min(given["gap"], float(bounds.unified([rate] * T, method, **given)))
