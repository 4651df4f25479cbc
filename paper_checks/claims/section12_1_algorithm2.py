"""Section 12.1: the gaps k_i of Algorithm 2, their constants κ_1 and κ_2, and Lemma 12.1."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from paper_checks import style
from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from paper_checks.claims.section5_2_model import (
    EPS,
    PI_ABOVE,
    PI_BELOW,
    Case,
    cases,
    precise_gaps,
    α,
    γ,
    ε,
    τ,
)
from paper_checks.claims.section5_2_model import t as time_symbol
from theory import velocity_model
from theory.velocity_model import VelocityModel


def printed_derivative(e: Any, g: Any, a: Any, time: Any, pi: Any) -> Any:
    """π(1 + εα)/(2γα(t + 1/(γα))²)."""
    return pi * (1 + e * a) / (2 * g * a * (time + 1 / (g * a)) ** 2)


@claim(
    id="eq-12-derivative",
    place="Section 12.1, p. 3623",
    title="Derivative of the model, and when it meets the threshold",
    statement="v'(t) = π(1+εα)/(2γα(t+1/(γα))^2), and v'(k) = τ at "
    "k = (γα)^{−1/2}√(π(1+εα)/(2τ)) − (γα)^{−1}.",
    kind=Kind.IDENTITY,
    hypotheses="ε, γ, α, τ > 0; k a real number",
    expected=Verdict.HOLDS,
)
def eq_12_derivative(context: Context) -> Outcome:
    evidence = Evidence()
    t = time_symbol
    model = VelocityModel(ε, γ)
    v = sp.pi / 2 * (1 + ε * α) * (1 - 1 / (γ * α * (t + 1 / (γ * α))))
    printed = printed_derivative(ε, γ, α, t, sp.pi)
    evidence.exact("d/dt of (12) − the printed formula", sp.simplify(sp.diff(v, t) - printed), 0)
    evidence.exact(
        "`theory` − the printed formula",
        sp.simplify(model.derivative(α, t, pi=sp.pi) - printed),
        0,
    )
    k = (γ * α) ** sp.Rational(-1, 2) * sp.sqrt(sp.pi * (1 + ε * α) / (2 * τ)) - 1 / (γ * α)
    evidence.exact("printed v' at the printed k, over τ", sp.simplify(printed.subs(t, k) / τ), 1)
    evidence.exact("`theory`'s k − the printed", sp.simplify(model.gap(α, τ, pi=sp.pi) - k), 0)
    evidence.exact(
        "v'(0)/(γα/2): above 1, so k > 0 in Algorithm 2",
        sp.simplify(printed.subs(t, 0) / (γ * α / 2) - sp.pi * (1 + ε * α)),
        0,
    )
    evidence.route("symbolic", "differentiation of (12), substitution of k")

    # The difference quotient of a function u/(1+u) is exact: v(t+d) − v(t) = v'(t) d (1+u)/(1+u_d).
    rng = context.rng("eq-12-derivative")
    count = context.pick(300, 10_000)
    quotients, falls = [], []
    for case in cases(rng, count):
        m, a = case.model, case.rates[0]
        s, d = (Fraction(int(rng.integers(1, 500)), 20) for _ in range(2))
        rise = m.angle(a, s + d, pi=PI_BELOW) - m.angle(a, s, pi=PI_BELOW)
        g = m.curvature * a
        slope = printed_derivative(m.asymptote, m.curvature, a, s, PI_BELOW)
        quotients.append(rise / d == slope * (1 + g * s) / (1 + g * (s + d)))
        falls.append(slope > rise / d > m.derivative(a, s + d, pi=PI_BELOW))
    evidence.route("difference quotients", f"{count} models in exact rationals")
    evidence.require(
        "difference quotients of (12)", all(quotients), f"{sum(quotients)} of {count} equal"
    )
    evidence.require(
        "each between the slopes at its ends", all(falls), f"{sum(falls)} of {count}: v is concave"
    )
    return evidence.outcome(
        Verdict.HOLDS,
        "Both formulas are right. v' falls from (π/2)(1+εα)γα to 0, so that every τ_i ≤ γα̂_i/2 is "
        "met at one k_i > 0. Algorithm 2 takes the first integer after it.",
        cases=count,
    )


def products(case: Case) -> list[Fraction]:
    """γk_iα̂_i with k_i rounded up, exactly."""
    gaps = velocity_model.gaps(*case, pi=PI_BELOW).rounded
    return [case.model.curvature * k * a for k, a in zip(gaps, case.rates, strict=True)]


def real_products(case: Case) -> list[float]:
    """γk_iα̂_i with the real k_i."""
    gaps = velocity_model.gaps(*case).real
    g = float(case.model.curvature)
    return [g * k * float(a) for k, a in zip(gaps, case.rates, strict=True)]


@claim(
    id="eq-37",
    place="Section 12.1, eq. (37), p. 3623",
    title="Lower bound of the gaps, κ_1",
    statement="k_i α̂_i ≥ κ_1 = (√π − 1)/γ.",
    kind=Kind.TIGHT,
    hypotheses="0 < ε < 1/(3α̂_0), γ, τ_0 > 0; k_i real or rounded up",
    expected=Verdict.HOLDS,
)
def eq_37(context: Context) -> Outcome:
    evidence = Evidence()
    # The printed chain at τ = γα/2, where τ is largest and k smallest.
    product = VelocityModel(ε, γ).gap(α, γ * α / 2, pi=sp.pi) * γ * α
    smallest = sp.sqrt(sp.pi * (1 + ε * α)) - 1
    evidence.exact("γkα at τ = γα/2", sp.simplify(product - smallest), 0)
    evidence.exact("its limit for ε → 0 is γκ_1", sp.limit(smallest, ε, 0), sp.sqrt(sp.pi) - 1)
    evidence.require("it grows with ε", sp.diff(smallest, ε).is_positive is True,
                     str(sp.diff(smallest, ε)))  # fmt: skip
    evidence.route("symbolic", "γkα = √(π(1+εα)) − 1 at the largest τ, which is > √π − 1")

    count = context.pick(300, 5000)
    κ_1 = velocity_model.printed_gap_constants(VelocityModel(1, 1), 1).lower
    evidence.equal("`theory`: γκ_1", κ_1, math.sqrt(math.pi) - 1, 4 * EPS, source="rounding, 4 ε")
    exact, real = [], []
    for case in cases(context.rng("eq-37"), count):
        # (1 + γkα)² > π, decided by a rational above π
        exact += [(1 + x) ** 2 > PI_ABOVE for x in products(case)]
        real += real_products(case)
    evidence.require("rounded up: (1 + γk_iα̂_i)² > π, exactly", all(exact), f"{len(exact)} stages")
    evidence.at_least("real k_i: γk_iα̂_i", real, κ_1, 8 * EPS, source="rounding, 8 ε")
    tight = real_products(Case((Fraction(1),), VelocityModel(Fraction(1, 10**6), 1), Fraction(1)))
    evidence.at_most("attained for ε → 0: γkα/(√π − 1) at εα = 1e−6", tight[0] / κ_1, 1 + 2e-6)
    evidence.route("random cases", f"{len(exact)} stages, rounded up in exact arithmetic")
    return evidence.outcome(
        Verdict.HOLDS,
        "True for the real and for the rounded gaps, strictly, and the best constant that does not "
        "depend on ε.",
        cases=count,
    )


def widest(ratio: Any, threshold: Any) -> Any:
    """sup over ε of γk_iα̂_i before rounding: √(4π/3) max{√(γα̂/(2τ_0)), 1} − 1."""
    return np.sqrt(4 * np.pi / 3) * np.maximum(np.sqrt(ratio / (2 * threshold)), 1) - 1


@claim(
    id="eq-38",
    place="Section 12.1, eq. (38), p. 3624; Theorem 5.2, p. 3610",
    title="Upper bound of the gaps, κ_2",
    statement="k_i α̂_i ≤ κ_2 = (1/γ)√(2π/(3τ_0)).",
    kind=Kind.UPPER_BOUND,
    hypotheses="0 < ε < 1/(3α̂_0), γ > 0, 0 < τ_0 < 2",
    expected=Verdict.CORRECTED,
)
def eq_38(context: Context) -> Outcome:
    evidence = Evidence()
    half = sp.Rational(1, 2)
    κ_2 = sp.sqrt(2 * sp.pi / (3 * τ))  # γκ_2

    # The two steps of the proof that need what is not stated.
    c = sp.sqrt(4 * sp.pi / 3)
    evidence.exact("√(2π/(3τ_0)) ≥ √(4π/3) only for τ_0 ≤", sp.solve(sp.Eq(κ_2, c), τ), [half])
    ratio = sp.Symbol("h", positive=True)
    evidence.exact(
        "(γα̂)^{−1/2} ≤ (γα̂)^{−1} only for γα̂ ≤",
        sp.solve(sp.Eq(ratio ** (-half), 1 / ratio), ratio),
        [1],
    )
    # With both: γ k α < c √(1/(2τ_0)) − 1 + γα ≤ γκ_2.
    evidence.exact("√(4π/3)·√(1/(2τ_0)) − γκ_2", sp.simplify(c * sp.sqrt(1 / (2 * τ)) - κ_2), 0)
    exact = VelocityModel(ε, γ).gap(α, τ, pi=sp.pi) * γ * α
    evidence.exact(
        "γk_iα̂_i where τ_i = τ_0",
        sp.simplify(exact - (sp.sqrt(sp.pi * (1 + ε * α)) * sp.sqrt(γ * α / (2 * τ)) - 1)),
        0,
    )
    evidence.exact(
        "γk_iα̂_i where τ_i = γα̂_i/2",
        sp.simplify(exact.subs(τ, γ * α / 2) - (sp.sqrt(sp.pi * (1 + ε * α)) - 1)),
        0,
    )
    limit = sp.solve(sp.Eq(κ_2, c - 1), τ)
    largest = float(limit[0])
    evidence.equal("sup over ε exceeds κ_2, real k_i, from τ_0 =", largest, 1.9118, 5e-5,
                   source="five digits")  # fmt: skip
    evidence.number("largest τ_0 for which κ_2 can hold, real k_i", largest)
    evidence.route("symbolic", "where the two steps of the proof need τ_0 ≤ 1/2 and γα̂_i ≤ 1")

    # Where it fails: exactly, γ²k²α² > 2π/(3τ_0).
    near = VelocityModel(Fraction(333, 1000), 1)
    wide = VelocityModel(Fraction(1, 10), 2)
    half_exact = Fraction(1, 2)
    failing = {
        "τ_0 = 1.95, γα̂ = 1": Case((Fraction(1),), near, Fraction(39, 20)),
        "τ_0 = 0.1, γα̂ = 2": Case((Fraction(1),), wide, Fraction(1, 10)),
    }
    for name, case in failing.items():
        γκ_2 = math.sqrt(2 * math.pi / (3 * case.threshold))
        evidence.at_least(f"{name}: γkα, real k", real_products(case)[0], γκ_2)
        above = products(case)[0] ** 2 > 2 * PI_ABOVE / (3 * case.threshold)
        evidence.require(f"{name}: rounded up, exactly", above, f"γkα = {products(case)[0]}")
    # Rounding needs more: just outside of τ_0 ≤ ½, γα̂ ≤ 1.
    outside = {
        "τ_0 = 0.53, γα̂ = 1": Case((Fraction(1),), near, Fraction(53, 100)),
        "τ_0 = 1/2, γα̂ = 1.03": Case((Fraction(1),), VelocityModel(near.asymptote,
                                      Fraction(103, 100)), half_exact),
    }  # fmt: skip
    for name, case in outside.items():
        above = products(case)[0] ** 2 > 2 * PI_ABOVE / (3 * case.threshold)
        evidence.require(f"{name}: rounded up, exactly", above, f"γkα = {products(case)[0]}")

    # Where it holds.
    rng = context.rng("eq-38")
    count = context.pick(100, 5000)
    held, literal, corrected, room, same, stages = [], [], [], [], [], 0
    for case in cases(rng, count, largest=Fraction(1)):
        small = case._replace(threshold=case.threshold / 4)  # τ_0 < 1/2
        squares = [x**2 for x in products(small)]
        held += [x < 2 * PI_BELOW / (3 * small.threshold) for x in squares]
        if case.model.curvature * case.rates[0] <= half_exact:
            lengths = velocity_model.algorithm_2(*small, pi=PI_BELOW).lengths
            first = case.model.curvature * case.rates[0] * lengths[0]
            literal.append(first**2 < 2 * PI_BELOW / (3 * small.threshold))
        stages += len(small.rates)
    for case in cases(rng, count, largest=Fraction(8)):
        gaps = velocity_model.gaps(*case, pi=PI_BELOW).rounded
        same.append(list(gaps) == precise_gaps(case))
        upper = velocity_model.gap_constants(*case).upper
        corrected += [(k * float(a), upper) for k, a in zip(gaps, case.rates, strict=True)]
        lengths = velocity_model.algorithm_2(*case, pi=PI_BELOW).lengths
        upper = velocity_model.gap_constants(*case, literal=True).upper
        room += [(k * float(a), upper) for k, a in zip(lengths, case.rates, strict=True)]
        stages += len(gaps)
    evidence.require("k_i rounded up = the closed form, to 50 digits", all(same), f"{count} cases")
    evidence.require(
        "τ_0 ≤ 1/2, γα̂_i ≤ 1: holds, rounded up, exactly", all(held), f"{len(held)} stages"
    )
    evidence.require(
        "the same with γα̂_0 ≤ 1/2: also for the k_0 + 1 updates of stage 0",
        bool(literal) and all(literal), f"{len(literal)} cases",
    )  # fmt: skip
    for name, pairs in (("k_i", corrected), ("the loop's lengths", room)):
        values, bounds = np.array(pairs).T
        evidence.at_most(
            f"corrected κ_2, any τ_0 < 2, γα̂_i ≤ 8: {name}, over κ_2", values / bounds, 1,
            16 * EPS, source="rounding, 16 ε",
        )  # fmt: skip
    evidence.route("exact rationals", f"{stages} stages, π from below and from above")

    figure, ax = style.new_figure(height=3.8)
    grid_τ, grid_h = np.linspace(0.02, 2, 150), np.linspace(0.02, 3, 150)
    T, H = np.meshgrid(grid_τ, grid_h)
    bound, top = np.sqrt(2 * np.pi / (3 * T)), widest(H, T)
    rounded = np.ceil(top / H) * H
    where = np.where(top > bound, 2, np.where(rounded > bound, 1, 0))
    ax.contourf(T, H, where, levels=[-0.5, 0.5, 1.5, 2.5],
                colors=["#FFFFFF", style.PALETTE["orange"], style.PALETTE["vermillion"]],
                alpha=0.7)  # fmt: skip
    ax.plot([0, 0.5, 0.5], [1, 1, 0], color=style.PALETTE["ink"], lw=1.5)
    ax.annotate("τ$_0$ ≤ ½, γα̂ ≤ 1", (0.03, 0.45), fontsize=9)
    ax.annotate("fails", (0.2, 2.6), fontsize=9)
    ax.annotate("fails once k is rounded up", (1.0, 2.2), fontsize=9)
    ax.set(xlabel="τ$_0$", ylabel="γα̂", xlim=(0, 2), ylim=(0, 3))
    ax.grid(False)
    evidence.figure(
        "Where the printed κ_2 holds",
        "For the largest ε. Dark: it fails for the real k; light: for k rounded up; white: it "
        "holds. The theorem asks for τ_0 < 2 only, the whole picture.",
        figure,
    )
    return evidence.outcome(
        Verdict.CORRECTED,
        "The proof uses τ_0 ≤ 1/2 and γα̂_i ≤ 1, and neither is stated. Without them the bound "
        "fails, for example at τ_0 = 1.95, or at γα̂ = 2 and τ_0 = 0.1; with them it holds, for the "
        "rounded gaps too.",
        cases=2 * count,
        correction="κ_2 = (1/γ)√(2π/(3τ_0)) if τ_0 ≤ 1/2 and γα̂_i ≤ 1 (and γα̂_0 ≤ 1/2 for the "
        "k_0 + 1 updates of stage 0). For any τ_0 and γ: κ_2 = (1/γ)[√(π(1+εα̂_0)) "
        "max{√(γα̂_0/(2τ_0)), 1} − 1] + α̂_0, for rates that do not increase; + 2α̂_0 for the loop.",
        counterexample=(
            "import math\n"
            "from theory.velocity_model import VelocityModel, gaps\n"
            "\n"
            "α, γ, τ_0 = 1.0, 2.0, 0.1  # τ_0 < 2, and ε = 0.1 < 1/(3α)\n"
            "k = gaps([α], VelocityModel(asymptote=0.1, curvature=γ), τ_0).real[0]\n"
            "assert k * α > math.sqrt(2 * math.pi / (3 * τ_0)) / γ"
        ),
    )


def total(κ: Any, n: Any) -> Any:
    """κn(n + 3)/2."""
    return κ * n * (n + 3) / 2


@claim(
    id="lemma-12-1",
    place="Lemma 12.1, eq. (35), (36), p. 3623; Section 12.2, p. 3625",
    title="The schedule 1/(i + 2) meets (10), and T is quadratic in n",
    statement="If α̂_i = (i+2)^{−1} and κ_1/α̂_i ≤ k_i ≤ κ_2/α̂_i, then α̂_i ≤ (i+2)^{−1}, "
    "k_i α̂_i ≥ κ_1, k_i α̂_i α̂_{i−1} ≤ κ_2 (i+1)^{−1}; and for n ≫ 1, "
    "κ_1 n(n+3)/2 ≤ T ≤ κ_2 n(n+3)/2.",
    kind=Kind.TIGHT,
    hypotheses="as printed: {α̂_i}, i = −1 … n−1, in (0, 1); {k_i}, i = 0 … n; T = Σ_{i<n} k_i",
    expected=Verdict.CORRECTED,
)
def lemma_12_1(context: Context) -> Outcome:
    evidence = Evidence()
    i, n = sp.symbols("i n", positive=True, integer=True)
    evidence.exact(
        "Σ_{i<n} (i + 2) − n(n + 3)/2",
        sp.expand(sp.summation(i + 2, (i, 0, n - 1)) - total(1, n)),
        0,
    )
    evidence.exact("α̂_{−1}: not in (0, 1)", Fraction(1, -1 + 2), Fraction(1))
    evidence.route("symbolic", "Σ(i + 2) = n(n + 3)/2 for every n: no integral, no n ≫ 1")
    rng = context.rng("lemma-12-1")
    count = context.pick(300, 5000)
    first, second, sums, tight = [], [], [], []
    for _ in range(count):
        stages = int(rng.integers(1, 40))
        κ_1 = Fraction(int(rng.integers(1, 60)), 20)
        κ_2 = κ_1 + 1 + Fraction(int(rng.integers(0, 60)), 20)  # wide enough to hold integers
        rates = velocity_model.proved_rates(stages)
        before = (Fraction(1), *rates[:-1])
        k = [
            int(rng.integers(math.ceil(κ_1 / a), math.floor(κ_2 / a), endpoint=True)) for a in rates
        ]
        first += [a <= Fraction(1, j + 2) and x * a >= κ_1
                  for j, (x, a) in enumerate(zip(k, rates, strict=True))]  # fmt: skip
        second += [x * a * b <= κ_2 / (j + 1)
                   for j, (x, a, b) in enumerate(zip(k, rates, before, strict=True))]  # fmt: skip
        sums.append(total(κ_1, stages) <= sum(k) <= total(κ_2, stages))
        whole = int(rng.integers(1, 9))
        tight.append(sum(velocity_model.constant_gaps(rates, whole)) == total(whole, stages))
    evidence.route("exact rationals", f"{count} random sequences of 1 to 39 stages")
    evidence.require(
        "(35): α̂_i ≤ 1/(i+2), k_iα̂_i ≥ κ_1", all(first), f"{sum(first)} of {len(first)} stages"
    )
    evidence.require(
        "(35): k_iα̂_iα̂_{i−1} ≤ κ_2/(i+1), with α̂_{−1} = 1",
        all(second), f"{sum(second)} of {len(second)} stages",
    )  # fmt: skip
    evidence.require("(36), at every n ≥ 1", all(sums), f"{sum(sums)} of {count} sequences")
    evidence.require("(36) is attained: k_i = κ(i + 2)", all(tight), f"{sum(tight)} of {count}")
    return evidence.outcome(
        Verdict.CORRECTED,
        "(35) and (36) hold for every n, and (36) is attained. But no sequence has the hypotheses "
        "as printed: α̂_{−1} = 1 is not in (0, 1).",
        cases=count,
        correction="{α̂_i} in (0, 1], k_i for i = 0 … n − 1, and (36) for every n ≥ 1: "
        "Σ_{i<n} (i + 2) = n(n + 3)/2 exactly. In the proof, “α̂_{i=1}” is α̂_{i−1}.",
        counterexample=(
            "from fractions import Fraction\n"
            "\n"
            "rates = [Fraction(1, i + 2) for i in range(-1, 5)]  # the hypothesis on α̂_i …\n"
            "assert not all(0 < rate < 1 for rate in rates)  # … is at odds with (0, 1)"
        ),
    )


def least_kappa(stages: int) -> list[float]:
    """(i + 1) α̂_{i−1} for i = 1 … n − 1 and the stated rates: κ_2/κ_1 must be at least this."""
    rates = velocity_model.stated_rates(stages)
    return [(i + 1) * rates[i - 1] for i in range(1, stages)]


@claim(
    id="thm-5-2-schedule",
    place="Theorem 5.2, p. 3610; its proof, p. 3623",
    title="The rates of Theorem 5.2 meet the conditions of Theorem 5.1",
    statement="With α̂_i = (i+1)^{−2/3}, i = −1 … n−1, the rates lie in (0, 1) and meet (10): "
    "α̂_i ≤ (i+2)^{−1}, k_i α̂_i ≥ κ_1, k_i α̂_i α̂_{i−1} ≤ κ_2 (i+1)^{−1}.",
    kind=Kind.UPPER_BOUND,
    hypotheses="κ_1, κ_2 > 0 do not depend on n",
    expected=Verdict.REFUTED,
)
def thm_5_2_schedule(context: Context) -> Outcome:
    evidence = Evidence()
    n = context.pick(2000, 200_000)
    i = sp.Symbol("i", nonnegative=True)
    stated = (i + 1) ** sp.Rational(-2, 3)
    evidence.require("α̂_{−1} is infinite", sp.limit(stated, i, -1, "+") == sp.oo,
                     "lim (i + 1)^{−2/3} for i → −1")  # fmt: skip
    evidence.exact("α̂_0, not in (0, 1)", stated.subs(i, 0), 1)
    # (i+1)^{−2/3} > 1/(i+2) ⟺ (i+2)³ > (i+1)²
    difference = sp.Poly(sp.expand((i + 2) ** 3 - (i + 1) ** 2), i)
    evidence.require(
        "(i+2)³ − (i+1)² has positive coefficients only",
        all(c > 0 for c in difference.all_coeffs()),
        str(difference.as_expr()),
    )
    evidence.exact(
        "(i+1) α̂_{i−1}/i^{1/3} for i → ∞",
        sp.limit((i + 1) * stated.subs(i, i - 1) / i ** sp.Rational(1, 3), i, sp.oo), 1,
    )  # fmt: skip
    evidence.route("symbolic", "α̂_i > 1/(i+2) for every i ≥ 0; κ_2/κ_1 ≥ (i+1) i^{−2/3} → ∞")
    rates = np.array(velocity_model.stated_rates(n))
    over = rates * np.arange(2, n + 2)
    evidence.at_least("α̂_i (i + 2), which should be ≤ 1", over, 1.5)
    least = least_kappa(n)
    evidence.at_least(
        "κ_2/κ_1 needed at n stages, over (n − 1)^{1/3}", least[-1] / (n - 1) ** (1 / 3), 1
    )
    evidence.number(f"κ_2/κ_1 needed for n = {n}", least[-1])
    proved = velocity_model.proved_rates(n)
    before = (Fraction(1), *proved[:-1])
    evidence.require(
        "the proof's rates: (i+1) α̂_{i−1} = 1",
        all((j + 1) * b == 1 for j, b in enumerate(before)),
        f"every i < {n}, exactly; α̂_{{−1}} = 1",
    )
    model, τ_0 = VelocityModel(Fraction(1, 4), 1), Fraction(1, 2)
    some = velocity_model.stated_rates(context.pick(300, 3000))
    gaps = velocity_model.gaps(some, model, float(τ_0)).rounded
    needed = [k * a * b * (j + 2) for j, (k, a, b) in
              enumerate(zip(gaps[1:], some[1:], some[:-1], strict=True))]  # fmt: skip
    κ_2 = velocity_model.gap_constants(some, model, float(τ_0)).upper
    evidence.at_least("Algorithm 2's gaps: k_iα̂_iα̂_{i−1}(i + 1) at the last i, over κ_2",
                      needed[-1] / κ_2, 2)  # fmt: skip
    evidence.route("numbers", f"{n} stages; Algorithm 2's gaps for {len(some)} stages")

    figure, ax = style.new_figure(height=3.2)
    j = np.unique(np.geomspace(1, n - 1, 80).astype(int))
    ax.loglog(j, [least[x - 1] for x in j], label="stated, $(i+1)^{-2/3}$")
    ax.loglog(j, np.ones(len(j)), label="proved, $(i+2)^{-1}$")
    ax.set(xlabel="stage i", ylabel="least κ$_2$/κ$_1$")
    ax.legend()
    evidence.figure(
        "What (10) asks of κ_2",
        "k_iα̂_i ≥ κ_1 and k_iα̂_iα̂_{i−1} ≤ κ_2/(i + 1) leave κ_2/κ_1 ≥ (i + 1)α̂_{i−1}. The stated "
        "rates need a κ_2 that grows with the number of stages.",
        figure,
    )
    return evidence.outcome(
        Verdict.REFUTED,
        "The stated rates have α̂_{−1} = ∞ and α̂_0 = 1, exceed 1/(i+2) at every i, and leave no "
        "κ_1, κ_2 for all n. The proof works with other rates, 1/(i+2), which meet (10).",
        cases=n,
        correction="α̂_i = (i+2)^{−1}, as in the proof, with {α̂_i} in (0, 1] since α̂_{−1} = 1.",
        counterexample=(
            "from theory.velocity_model import stated_rates\n"
            "\n"
            "rates = stated_rates(1000)\n"
            "assert all(rate > 1 / (i + 2) for i, rate in enumerate(rates))"
        ),
    )
