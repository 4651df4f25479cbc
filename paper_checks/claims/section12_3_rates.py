"""Section 12: the final bound (40) and the rates of Theorems 5.1 and 5.2."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_checks import style
from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from theory import StepwiseSchedule, UnifiedMomentum, bounds, simulate_convex
from theory.exact_witnesses import witness
from theory.problems import AbsoluteValue, AdditiveNoise, GaussianNoise
from theory.velocity_model import (
    VelocityModel,
    algorithm_2,
    constant_gaps,
    proved_rates,
    stated_rates,
)
from theory.worst_case import worst_case

SGD = UnifiedMomentum.sgd()
FALSE_ALARM = 1e-6
SIGMAS = 4.9  # two-sided normal quantile for 1e-6


def _paper_schedule(*lengths: int) -> StepwiseSchedule:
    """α̂_i = 1/(i+2) with the given gaps."""
    return StepwiseSchedule([1 / (i + 2) for i in range(len(lengths))], lengths)


_EQ_40 = """from math import log
# n = 2, rates 1/2, 1/3, one iteration each, alpha_{-1} = 0.6; f(x) = |x|, G = 1, no noise, SGD
x, R, best, rates = 0.25, 0.25, 1.0, [1 / 2, 1 / 3]
for rate in rates:
    best, x = min(best, abs(x)), x - rate * (1 if x > 0 else -1)
kappa_1, kappa_2 = min(rates), max(rates[0] * 0.6, 2 * rates[1] * rates[0])
bound = R**2 / (2 * kappa_1 * 2) + kappa_2 * log(2) / (2 * kappa_1 * 2)
assert best > bound  # 0.25 > 0.2202"""


@claim(
    id="eq-40",
    place="Eq. (40), p. 3624, and the last line of the proof of Theorem 5.1, p. 3623",
    title="The final bound with κ_1, κ_2 and n",
    statement=(
        "min F ≤ βF_0[log(n+1) − log 2]/(κ_1(1−β)n) + (1−β)R^2/(2κ_1n) + "
        "(2sβ+1)(G^2+δ^2)κ_2 log n/(2(1−β)κ_1n)."
    ),
    kind=Kind.UPPER_BOUND,
    hypotheses="Theorem 5.1's: (10) with its best κ_1, κ_2; checked for finite n",
    expected=Verdict.CORRECTED,
)
def eq_40(context: Context) -> Outcome:
    evidence = Evidence()
    rows = []
    cases = (
        ((1,), 0.25), ((1, 1), 0.25), ((4, 6), 0.3), ((3, 3, 4), 0.2), ((8, 6, 8), 0.3),
        ((4, 3, 4, 5), 0.2),
    )  # fmt: skip
    for lengths, R in cases:
        schedule = _paper_schedule(*lengths)
        given: dict[str, Any] = {"distance": R, "subgradient": 1.0}
        form = {"previous_rate": 0.5001, **given}
        printed = bounds.theorem_5_1(schedule, SGD, form="printed", **form)
        corrected = bounds.theorem_5_1(schedule, SGD, form="corrected", **form)
        exact = worst_case(schedule, SGD, **given).value
        rows.append([len(lengths), str(lengths), R, exact, printed, corrected])
        evidence.at_least(
            f"n = {len(lengths)}, k = {lengths}: exact worst case / (40)", exact / printed, 1.01
        )
        evidence.at_most(
            f"n = {len(lengths)}, k = {lengths}: exact ≤ corrected form", exact, corrected
        )
    evidence.table(
        "SGD, α̂_i = 1/(i+2), G = 1, δ = 0, α̂_{−1} just above ½",
        ["n", "gaps k", "R", "exact worst case", "(40)", "corrected"],
        rows,
    )
    evidence.equal(
        "n = 3, k = (8, 6, 8), R = 0.3: exact and (40), to four digits",
        rows[4][3:5], [0.2034, 0.1906], 6e-5, source="four printed digits",
    )  # fmt: skip
    evidence.route("performance estimation", "exact worst cases over all convex 1-Lipschitz f")
    half, third = Fraction(1, 2), Fraction(1, 3)
    found = witness([half, half, third, third, third], SGD, distance=Fraction(3, 10), subgradient=1)
    found.verify()
    printed_2 = bounds.theorem_5_1(
        _paper_schedule(2, 3), SGD, distance=0.3, subgradient=1.0, previous_rate=0.5001,
        form="printed",
    )  # fmt: skip
    evidence.at_least(
        "n = 2, k = (2, 3), R = 0.3: an explicit function in rationals exceeds (40) by",
        float(found.bound) - printed_2, 0.03,
    )  # fmt: skip
    evidence.route(
        "explicit function", "max of affine pieces with rational slopes, run in Fractions"
    )
    return evidence.outcome(
        Verdict.CORRECTED,
        "As printed it is not a bound for n = 1, 2, 3, 4: the sums were replaced by smaller "
        "integrals "
        "(eq-32-34), and at n = 1 the noise term vanishes altogether.",
        correction=(
            "log(n+1) in place of log(n+1) − log 2 and 1 + log n in place of log n; sharper, from "
            "Theorem A, without the first term and without 2sβ + 1: `theory.bounds.theorem_5_1`."
        ),
        counterexample=_EQ_40,
        cases=len(rows) + 1,
    )


@claim(
    id="thm-5-1-rate",
    place="Theorem 5.1, p. 3609",
    title="The rate in the number of stages",
    statement="Under (10), min_t F_t ≤ O(log n/√n), n the number of stages.",
    kind=Kind.LIMIT,
    hypotheses="(10) with κ_1, κ_2 that do not depend on n; unbiased noise of variance ≤ δ^2",
    expected=Verdict.CORRECTED,
)
def thm_5_1_rate(context: Context) -> Outcome:
    evidence = Evidence()
    method = UnifiedMomentum.nesterov(0.5)
    κ = Fraction(2)
    problem = AdditiveNoise(AbsoluteValue(1.0, 0.0, 1.0), GaussianNoise(1.0))
    sizes = np.array(context.pick([3, 6, 12, 24, 48, 80], [3, 6, 12, 24, 48, 96, 160]))
    largest = [Fraction(1, i + 2) for i in range(int(sizes[-1]))]
    ends = np.cumsum(constant_gaps(largest, κ))
    schedule = StepwiseSchedule([float(α) for α in largest], constant_gaps(largest, κ))
    sample = simulate_convex.run(
        problem, method, schedule, trajectories=context.pick(300, 3000),
        seed=context.rng_seed("thm-5-1-rate"), device=context.device,
    )  # fmt: skip
    best = np.minimum.accumulate(sample.mean)[ends[sizes - 1] - 1]
    given = {**problem.constants()}
    curves = {
        form: np.array(
            [
                bounds.theorem_5_1(
                    StepwiseSchedule(schedule.rates[:n], schedule.lengths[:n]),
                    method,
                    form=form,
                    **given,
                )
                for n in sizes
            ]
        )
        for form in ("unified", "corrected")
    }
    margin = SIGMAS * sample.standard_error[ends[sizes - 1] - 1]
    evidence.at_most("simulated min F ≤ the bound from Theorem A", best - margin, curves["unified"])
    evidence.route(
        "simulation", f"Nesterov, β = ½, |x| with Gaussian noise, {len(sample.last)} runs"
    )
    found = bounds.stages(schedule)
    β, s = method.momentum, method.s
    for form, values, factor in (
        ("unified", curves["unified"], 1.0),
        ("corrected", curves["corrected"], 2 * s * β + 1),
    ):
        # log(n+1) ≤ 1 + log n, so the bound is at most this constant times (1 + log n)/n.
        constant = (1 - β) / 2 + β / (1 - β) + factor * 2 * found.kappa_2 / (2 * (1 - β))
        evidence.at_most(
            f"{form}: n/(1 + log n) times the bound stays below one constant",
            values * sizes / (1 + np.log(sizes)), constant / found.kappa_1,
        )  # fmt: skip
        evidence.number(f"{form}: bound at n = {sizes[-1]}", float(values[-1]))
    evidence.route("closed form", "the proof gives O(log n / n), explicitly")
    figure, ax = style.new_figure(height=3.2)
    ax.loglog(sizes, curves["corrected"], label="(31) with corrected sums")
    ax.loglog(sizes, curves["unified"], label="from Theorem A")
    ax.loglog(sizes, best, "o", color=style.PALETTE["ink"], label="simulated min F")
    ax.loglog(
        sizes, np.log(sizes) / np.sqrt(sizes), ":", color=style.PALETTE["grey"], label="log n/√n"
    )
    ax.loglog(sizes, np.log(sizes) / sizes, "--", color=style.PALETTE["grey"], label="log n/n")
    ax.set(xlabel="stages n", ylabel="min F (units of GR)")
    ax.legend()
    evidence.figure(
        "Theorem 5.1, in stages",
        "α̂_i = 1/(i+2), k_i = ⌈2/α̂_i⌉. The bounds fall like log n/n; the theorem says log n/√n.",
        figure,
    )
    return evidence.outcome(
        Verdict.CORRECTED,
        "True once κ_1 and κ_2 do not depend on n, and weak: the paper's own proof gives "
        "O(log n/n). Since T is of the order of n^2 "
        "for α̂_i = 1/(i+2), that is the O(log T/√T) of Theorem 5.2.",
        correction="min_t F_t = O(log n / n), with κ_1, κ_2 fixed as n grows.",
        cases=2 * len(sizes) + 1,
    )


def _stage_means(mean: NDArray[np.float64], schedule: StepwiseSchedule) -> NDArray[np.float64]:
    return np.array(
        [
            mean[a:b].mean()
            for a, b in zip(schedule.boundaries[:-1], schedule.boundaries[1:], strict=True)
        ]
    )


def _slope(
    context: Context, evidence: Evidence, name: str, rates: Any, expected: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], StepwiseSchedule]:
    """The slope of stage means of F against T: |x| with Gaussian noise, under Algorithm 2."""
    model, τ = VelocityModel(0.1, 0.5), 0.5
    schedule = algorithm_2([float(α) for α in rates], model, τ)
    problem = AdditiveNoise(AbsoluteValue(1.0, 0.0, 1.0), GaussianNoise(1.0))
    sample = simulate_convex.run(
        problem, SGD, schedule, trajectories=context.pick(400, 4000),
        seed=context.rng_seed(f"slope-{name}"), device=context.device,
    )  # fmt: skip
    α = np.asarray(schedule)
    # Exact for |x| with additive noise: 2Σα_tF_t = x_0² − E x_T² + (1+δ²)Σα_t².
    balance = 2 * α.sum() * sample.average + sample.last**2
    evidence.equal(
        f"{name}: 2Σα_tF_t + E x_T^2 = x_0^2 + (G^2+δ^2)Σα_t^2",
        balance.mean(), 1 + 2 * np.sum(α**2),
        SIGMAS * float(balance.std(ddof=1)) / math.sqrt(len(balance)),
        source="4.9 standard errors: false alarm 1e-6",
    )  # fmt: skip
    # E|y − αn| ≥ αE|n| for symmetric n, whatever y is: F_{t+1} ≥ α_tδ√(2/π).
    lowest = sample.mean[1:] / (math.sqrt(2 / math.pi) * α[:-1])
    evidence.at_least(
        f"{name}: F at t + 1 over α_tδ√(2/π), least", float(lowest.min()), 1.0,
        tolerance=0.25, source="sampling: 5 standard errors of a mean, at every t",
    )  # fmt: skip
    means = _stage_means(sample.mean, schedule)
    ends = np.array(schedule.boundaries[1:])
    late = ends > ends[-1] / 30
    slope = float(np.polyfit(np.log(ends[late]), np.log(means[late]), 1)[0])
    evidence.number(f"{name}: slope of log F against log T, last factor 30 in T", slope)
    evidence.equal(
        f"{name}: slope", slope, expected, 0.03,
        source="the log factor and the start; sampling moves it by less than 0.005",
    )  # fmt: skip
    half = len(means) // 2
    evidence.equal(
        f"{name}: stage mean of F over α̂_i(G^2+δ^2)/2, late stages",
        (means / np.asarray(schedule.rates))[half:].mean(), 1.0, 0.05,
        source="start and end of a stage weigh 1/k_i; sampling less than 0.01",
    )  # fmt: skip
    return slope, ends, means, schedule


_STATED = """from math import log, pi, sqrt
# f(x) = |x| with Gaussian noise n, delta = 1: E|y - a n| >= a E|n| for every y, by symmetry, so
# that
# F_{t+1} >= alpha_t sqrt(2/pi). With k_i alpha_i >= kappa_1, T updates hold at most
# (5T / (3 kappa_1))^(3/5) stages, and the last rate is that to the power -2/3.
least = lambda T, kappa_1=1.0: sqrt(2 / pi) * (5 * T / (3 * kappa_1)) ** (3 / 5 * -2 / 3)
ratios = [least(10.0**k) / (log(10.0**k) / sqrt(10.0**k)) for k in (10, 20, 40, 80, 160)]
assert all(after > 2 * before for before, after in zip(ratios, ratios[1:]))  # unbounded"""


@claim(
    id="thm-5-2-stated",
    place="Theorem 5.2, p. 3610",
    title="Algorithm 2 with α̂_i = (i+1)^{−2/3}",
    statement="With α̂_i = (i+1)^{−2/3}, min_t F_t ≤ O(log T/√T).",
    kind=Kind.LIMIT,
    hypotheses="f convex, ‖∂f‖ ≤ G, noise of variance ≤ δ^2, the gaps of Algorithm 2",
    expected=Verdict.REFUTED,
)
def thm_5_2_stated(context: Context) -> Outcome:
    evidence = Evidence()
    found = bounds.stages([float(α) for α in stated_rates(40)])
    evidence.require(
        "(10) fails for the stated rates at stage 0",
        ("α̂_i ≤ 1/(i+2)", 0) in found.failures and ("0 < α̂_i < 1", 0) in found.failures,
        str(found.failures),
    )
    evidence.route(
        "hypotheses", "α̂_{−1} = ∞, α̂_0 = 1 is not in (0, 1), α̂_i ≤ 1/(i+2) fails for all i"
    )
    stated, ends, means, schedule = _slope(
        context, evidence, "stated", stated_rates(context.pick(400, 1500)), -0.4
    )
    proved, ends_2, means_2, _ = _slope(
        context, evidence, "proved", proved_rates(context.pick(120, 400)), -0.5
    )
    evidence.at_least("the slopes differ", stated - proved, 0.06)
    evidence.route("simulation", f"|x| with Gaussian noise, T = {len(schedule)}")
    evidence.route(
        "lower bound and energy balance",
        "F_{t+1} ≥ α_tδ√(2/π) on |x|, which is of the order T^{−2/5}, above any multiple of "
        "log T/√T in the end; and "
        "at a fixed rate E x_{t+1}^2 = E x_t^2 − 2αF_t + α^2(G^2+δ^2), so that F ≈ α(G^2+δ^2)/2, "
        "and α̂_n is of the order T^{−2/5}",
    )
    figure, ax = style.new_figure(height=3.2)
    ax.loglog(ends, means, label=f"stated, slope {stated:.3f}")
    ax.loglog(ends_2, means_2, label=f"proved, slope {proved:.3f}")
    reference = np.geomspace(ends[0], ends[-1], 50)
    ax.loglog(
        reference,
        means[-1] * (reference / ends[-1]) ** -0.4,
        ":",
        color=style.PALETTE["grey"],
        label="T^(−2/5)",
    )
    ax.loglog(
        reference,
        means_2[-1] * (reference / ends_2[-1]) ** -0.5,
        "--",
        color=style.PALETTE["grey"],
        label="T^(−1/2)",
    )
    ax.set(xlabel="iterations T", ylabel="mean of F over a stage")
    ax.legend()
    evidence.figure(
        "Theorem 5.2: the rates as stated and as in the proof",
        "|x| with Gaussian noise (G = δ = 1), Algorithm 2 with γ = 0.5, ε = 0.1, τ_0 = ½.",
        figure,
    )
    return evidence.outcome(
        Verdict.REFUTED,
        "The statement's rates break (10), on which it rests, and on |x| the gap falls like "
        "T^{−2/5}, since it follows the rate.",
        correction="α̂_i = 1/(i+2), as in the proof: see thm-5-2-proved.",
        counterexample=_STATED,
        cases=2 * context.pick(400, 4000),
    )


@claim(
    id="thm-5-2-proved",
    place="Section 12.1, proof of Theorem 5.2, p. 3623-3624",
    title="Algorithm 2 with α̂_i = 1/(i+2)",
    statement="With α̂_i = (i+2)^{−1}, min_t F_t ≤ O(log T/√T), with the constants of (40), (41).",
    kind=Kind.UPPER_BOUND,
    hypotheses="f convex, ‖∂f‖ ≤ G, unbiased noise of variance ≤ δ^2, κ_1/α̂_i ≤ k_i ≤ κ_2/α̂_i",
    expected=Verdict.CORRECTED,
)
def thm_5_2_proved(context: Context) -> Outcome:
    evidence = Evidence()
    model = VelocityModel(0.1, 0.5)
    rng = context.rng("thm-5-2-proved")
    problem = AdditiveNoise(AbsoluteValue(1.0, 0.0, 1.0), GaussianNoise(1.0))
    given, method = problem.constants(), UnifiedMomentum.nesterov(0.5)
    horizons: list[int] = []
    simulated: list[float] = []
    bound: list[float] = []
    corrected: list[float] = []
    printed: list[float] = []
    for n in context.pick((5, 15, 40), (5, 15, 40, 100, 200)):
        schedule = algorithm_2([float(α) for α in proved_rates(n)], model, 0.5)
        sample = simulate_convex.run(
            problem, method, schedule, trajectories=context.pick(300, 3000),
            seed=context.rng_seed(f"thm-5-2-{n}"), device=context.device,
        )  # fmt: skip
        at = int(np.argmin(sample.mean))
        horizons.append(len(schedule))
        simulated.append(float(sample.mean[at]))
        for form, into in (("unified", bound), ("corrected", corrected), ("printed", printed)):
            try:
                into.append(bounds.theorem_5_2(schedule, method, form=form, **given))
            except ValueError:  # the printed form needs T > 9κ_2/2
                into.append(float("nan"))
        evidence.at_most(
            f"T = {len(schedule)}: simulated min F ≤ the bound", simulated[-1], bound[-1],
            tolerance=SIGMAS * float(sample.standard_error[at]), source="false alarm 1e-6",
        )  # fmt: skip
    evidence.route("simulation", "Nesterov, β = ½, on |x| with Gaussian noise")
    T = np.array(horizons, float)
    rate = np.array(bound) * np.sqrt(T) / np.log(T)
    evidence.at_most("the bound times √T/log T does not grow", rate[1:], rate[:-1])
    evidence.route("closed form", "Lemma 12.1 without n ≫ 1, Theorem 5.1 from Theorem A")
    checked = 0
    for _ in range(context.pick(6, 60)):
        n = int(rng.integers(1, 4))
        κ = Fraction(int(rng.integers(1, 3)))
        lengths = constant_gaps(proved_rates(n), κ)
        if sum(lengths) > 24:
            continue
        schedule = _paper_schedule(*lengths)
        R = float(rng.uniform(0.2, 2))
        exact = worst_case(schedule, SGD, distance=R, subgradient=1.0).value
        evidence.at_most(
            f"n = {n}, κ = {κ}, R = {R:.2f}: exact worst case ≤ the bound", exact,
            bounds.theorem_5_2(schedule, SGD, distance=R, subgradient=1.0),
        )  # fmt: skip
        checked += 1
    evidence.route("performance estimation", f"{checked} exact worst cases")
    evidence.table(
        "Nesterov, β = ½, |x|, Gaussian noise, G = δ = R = 1; γ = 0.5, τ_0 = ½",
        ["T", "simulated min F", "from Theorem A", "corrected", "as printed"],
        [
            [t, s, b, c, p if math.isfinite(p) else "undefined"]
            for t, s, b, c, p in zip(horizons, simulated, bound, corrected, printed, strict=True)
        ],
    )
    figure, ax = style.new_figure(height=3.2)
    ax.loglog(horizons, corrected, label="(31) with corrected sums")
    ax.loglog(horizons, bound, label="from Theorem A")
    ax.loglog(horizons, simulated, "o", color=style.PALETTE["ink"], label="simulated min F")
    ax.set(xlabel="iterations T", ylabel="min F")
    ax.legend()
    evidence.figure(
        "Theorem 5.2 with explicit constants",
        "Nesterov, β = ½, on |x| with Gaussian noise.",
        figure,
    )
    return evidence.outcome(
        Verdict.CORRECTED,
        "True for the rates of the proof, once the sums are bounded from above; with Theorem A "
        "there is no factor 2sβ + 1 and no logarithm from F_0.",
        correction=(
            "min F ≤ [(1−β)R^2/2 + max(0, (1−σ)β/(1−β) α_1 − α_0)F_0 + (G^2+δ^2)κ_2(1 + log ν_1)"
            "/(2(1−β))] / (κ_1ν_2) with ν_j from T = κν(ν+3)/2 at κ_1 and κ_2."
        ),
        cases=len(horizons) + checked,
    )
