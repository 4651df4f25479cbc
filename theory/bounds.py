"""Upper bounds on min_t E f(x_t) − f* for Unified Momentum under step-wise learning rates.

Throughout: f convex, ‖∂f‖ ≤ G, and given the past E G_t = ∂f(x_t), E‖G_t − ∂f(x_t)‖² ≤ δ²;
F_t = E f(x_t) − f*, R ≥ ‖x_0 − x*‖, and x_0 … x_{T−1} are the iterates at which the T gradients are
taken.  In the bounds of min_t F_t any point of comparison may stand for x*, F_t being the gap to f
there; `repaired` and `averaged` as bounds of an average need F_t ≥ 0.  Arguments that all share:

    rates : α_0 … α_{T−1}, a `StepwiseSchedule` or a sequence; each finite and > 0.
    method : `UnifiedMomentum` (where stated also `TorchMomentum`).
    distance : R ≥ 0.    subgradient : G ≥ 0.    noise : δ ≥ 0 (a standard deviation, not δ²).
    gap : an upper bound of f(x_0) − f*; default GR, which convexity implies.

The unit of a rate is that of R/G, that of a bound is that of GR.  Exact numbers (`Fraction`, SymPy)
stay exact as long as no root is taken: `noise=0`, or a method without a cross term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from theory import checks
from theory.constants import Constants, constants
from theory.methods import TorchMomentum, UnifiedMomentum
from theory.potential import potential, rate_list
from theory.schedules import StepwiseSchedule

__all__ = [
    "Stages",
    "averaged",
    "printed_31",
    "repaired",
    "stages",
    "theorem_5_1",
    "theorem_5_2",
    "theorem_b",
    "unified",
]


def _non_increasing(α: list[Any]) -> None:
    for t, (before, after) in enumerate(pairwise(α), start=1):
        if after > before:
            raise ValueError(
                f"rates must not increase, got rates[{t - 1}] = {before} < rates[{t}] = {after}"
            )


def _um(method: Any) -> tuple[Any, Any]:
    checks.instance("method", method, UnifiedMomentum)
    return method.momentum, method.s


def printed_31(
    rates: Any,
    method: UnifiedMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
    previous_rate: Any = None,
) -> Any:
    """[(1−β)R²/2 + β/(1−β) F_0 Σ_i α̂_i + (2sβ+1)(G²+δ²)/(2(1−β)) Σ_t α_t α_{t−1}] / Σ_t α_t.

    As the paper prints it; Σ_i runs over the stages.  True for non-increasing rates (it is weaker
    than `repaired`), though a step of the paper's proof is false.  `previous_rate` is α_{−1} ≥ α_0,
    default α_0.

    Raises ValueError if the rates increase, `previous_rate` is too small or a constant is out of
    range, TypeError for another method.  Source: UAI 2024, eq. (31), p. 3622.
    """
    α, (β, s) = rate_list(rates), _um(method)
    _non_increasing(α)
    c = constants(distance, gap, subgradient, noise)
    before = [α[0] if previous_rate is None else previous_rate, *α[:-1]]
    if before[0] < α[0]:
        raise ValueError(f"previous_rate must be >= rates[0] = {α[0]}, got {previous_rate}")
    drops = sum(StepwiseSchedule.from_rates(α).rates)
    cross = sum(a * b for a, b in zip(α, before, strict=True))
    numerator = (
        (1 - β) * c.R**2 / 2
        + β * c.F0 * drops / (1 - β)
        + (2 * s * β + 1) * c.second_moment / (2 * (1 - β)) * cross
    )
    return numerator / sum(α)


def repaired(
    rates: Any,
    method: UnifiedMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
) -> Any:
    """[(1−β)R²/2 + β/(1−β) α_1 F_0 + Σ_t (2sβ α_tα_{t−1} G√(G²+δ²) + α_t²(G²+δ²))/(2(1−β))] / Σα_t.

    The cross term starts at t = 1; α_1 = 0 if T = 1.  Bounds the α-weighted average of F_t, and so
    its minimum.  Requires non-increasing rates.

    The paper's proof, with the false step E[f(x_{t_i}) − f(x_{t_{i+1}})] ≤ f(x_0) − f* replaced by
    summation by parts: Σ_{t≥1} α_t (F_{t−1} − F_t) = α_1F_0 − Σ_{t≥1}(α_t − α_{t+1})F_t ≤ α_1F_0,
    with α_T := 0.

    Raises ValueError and TypeError as `printed_31`.  Source: after UAI 2024, eq. (31), p. 3622.
    """
    α, (β, s) = rate_list(rates), _um(method)
    _non_increasing(α)
    c = constants(distance, gap, subgradient, noise)
    cross = sum(a * b for a, b in pairwise(α)) * c.product if s * β else 0
    squares = sum(a * a for a in α) * c.second_moment
    first = α[1] if len(α) > 1 else 0
    numerator = (
        (1 - β) * c.R**2 / 2
        + β * first * c.F0 / (1 - β)
        + (2 * s * β * cross + squares) / (2 * (1 - β))
    )
    return numerator / sum(α)


def unified(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
) -> Any:
    """[R²/2 + e F_0 + ½ Ση_t²(G²+δ²)] / (Ση_t + e), Theorem A: no penalty for momentum.

    η_t = α_t/(1−β), e = max(0, −W_0), where W = `potential(method, rates).weights(η)`: in detail,
    with σ = (1−β)s, q = (1−σ)β/(1−(1−σ)β), r = (1−β)/(1−(1−σ)β),

        W_0 = η_0 − q Σ_{τ≥1} η_τ (1−r)^{τ−1},
        W_t = (1+q)η_t − q r Σ_{τ>t} η_τ (1−r)^{τ−1−t}   (t ≥ 1).

    Requires W_t ≥ 0 for t ≥ 1, which non-increasing rates imply (then W_t ≥ η_t).  e = 0 once
    (1−σ)β η_1 ≤ (1−β) η_0.  At e = 0 this is the bound of the plain subgradient method with the
    rates η; with η_t = R/(√T √(G²+δ²)) it is R√(G²+δ²)/√T.

    s > 1/(1−β): (σ−1) G√(G²+δ²) Σ_t η_t Σ_{j<t} β^{t−j} η_j is added to the numerator, e = 0.
    `TorchMomentum` (without Nesterov): η_t, q_t and r of its own, see `theory.potential`; a sharp
    drop can then make some W_t negative, and `theorem_b` applies instead.

    Proof.  z_{t+1} = z_t − η_tG_t and z_t = x_t + q_t(x_t − u_{t−1}) (`theory.potential`).  Sum
    E‖z_{t+1} − x*‖² = E‖z_t − x*‖² − 2η_tE⟨∂f(x_t), z_t − x*⟩ + η_t²E‖G_t‖² over t and use
    Σ_tη_tE⟨∂f(x_t), z_t − x*⟩ ≥ ΣW_tF_t.  ΣW_t = Ση_t.  If W_0 ≥ 0 divide; otherwise move W_0F_0
    to the right, where F_0 ≤ `gap`.

    Raises
    ------
    ValueError
        If W_t < 0 for some t ≥ 1, naming it, or an argument is out of range.

    Source: derived here; for constant rates and averages close to Ghadimi, Feyzmahdavian and
    Johansson (2015).
    """
    c = constants(distance, gap, subgradient, noise)
    if isinstance(method, UnifiedMomentum) and method.s * (1 - method.momentum) > 1:
        η, extra = _beyond_gradient_descent(rate_list(rates), method)
        W, extra = η, extra * c.product
    else:
        form = potential(method, rates)
        η, extra = list(form.steps), 0
        W = form.weights(η)
    for t, weight in enumerate(W[1:], start=1):
        if weight < 0:
            raise ValueError(
                f"Theorem A needs W_t >= 0 for t >= 1, got W_{t} = {weight}; "
                "use theory.bounds.theorem_b, which holds for any rates"
            )
    e = max(0, -W[0])
    numerator = c.R**2 / 2 + e * c.F0 + sum(step**2 for step in η) * c.second_moment / 2 + extra
    return numerator / (sum(η) + e)


def _beyond_gradient_descent(α: list[Any], method: UnifiedMomentum) -> tuple[list[Any], Any]:
    """η and (σ−1) Σ_t η_t Σ_{j<t} β^{t−j} η_j, for σ = (1−β)s > 1."""
    β, σ = method.momentum, (1 - method.momentum) * method.s
    η = [rate / (1 - β) for rate in α]
    total: Any = 0
    tail: Any = 0
    for before, step in pairwise(η):
        tail = β * (tail + before)
        total += step * tail
    return η, (σ - 1) * total


def averaged(
    rates: Any,
    method: UnifiedMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
) -> Any:
    """Σα_tF_t/Σα_t ≤ [R²/2 + ((1−σ)β/(1−β)) η_1F_0 + ½ Ση_t²(G²+δ²)] / Ση_t.

    Theorem A for the average weighted with the rates; η_1 = 0 if T = 1.  Requires s ≤ 1/(1−β) and
    non-increasing rates.

    Proof.  W_t ≥ η_t for t ≥ 1, and Σ_{t≥1}(W_t − η_t) = η_0 − W_0 ≤ (q/r) η_1.

    Raises ValueError and TypeError as `printed_31`, and ValueError for s > 1/(1−β).
    """
    α, (β, s) = rate_list(rates), _um(method)
    _non_increasing(α)
    c = constants(distance, gap, subgradient, noise)
    σ = (1 - β) * s
    if σ > 1:
        raise ValueError(f"s must be <= 1/(1 - momentum) = {1 / (1 - β)}, got {s}")
    η = [rate / (1 - β) for rate in α]
    first = η[1] if len(η) > 1 else 0
    start = (1 - σ) * β * first * c.F0 / (1 - β)
    return (c.R**2 / 2 + start + sum(step**2 for step in η) * c.second_moment / 2) / sum(η)


def theorem_b(
    rates: Any,
    method: UnifiedMomentum | TorchMomentum,
    *,
    distance: float,
    subgradient: float,
    gap: float | None = None,
    noise: float = 0.0,
) -> float:
    """min over θ, e of [R²/2 + eF_0 + ½Ση²V + G√V Σ(1−θ_t)η_tκ_t] / (Ση + e), V = G² + δ².

    Theorem B, for any rates.  Convexity is used for a share θ_t ∈ [0, 1] of the extrapolation
    z_t − x_t and Cauchy–Schwarz for the rest, where κ_t = Σ_i |c_i| with z_t − x_t = Σ_{i<t} c_iG_i
    (`theory.potential`).  Requires W_t(θ) ≥ 0 for t ≥ 1 and W_0(θ) + e ≥ 0, with
    W(θ) = η − η θ + weights(η θ); θ = 0 always does, θ = 1 gives Theorem A.  A linear programme
    after the scaling of Charnes and Cooper, solved by HiGHS; the θ it returns is used in the
    formula, so the result is a bound whatever the solver's accuracy.

    Never above `unified` where that applies, nor above `gap`.  Needs SciPy (extra `checks`).

    Raises ValueError for s > 1/(1−β) or torch's Nesterov momentum, or if an argument is out of
    range.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    c = constants(distance, gap, subgradient, noise)
    form = potential(method, [float(rate) for rate in rate_list(rates)])
    η, q = np.array(form.steps, float), np.array(form.extrapolation, float)[: len(form.steps)]
    r, κ, T = float(form.r), np.array(form.kernel, float), len(form.steps)
    rest = float(c.product) * η * κ
    base = float(c.R) ** 2 / 2 + float(c.second_moment) * float(np.sum(η**2)) / 2

    # Unknowns, all times a scale: φ_1 … φ_{T−1} (the θ_t), Q_0 … Q_{T−1}, e, and the scale itself.
    # W_t = η_t + q_tη_tφ_t − r Q_t ≥ 0, W_0 = η_0 − Q_0 ≥ −e, where
    # Q_t = q_{t+1}η_{t+1}φ_{t+1} + (1−r)Q_{t+1}.
    n = T - 1
    φ, Q, e, scale = np.arange(n), n + np.arange(T), n + T, n + T + 1
    t = np.arange(1, T)
    rows = np.concatenate([t, np.arange(T), np.arange(T), [0], T + φ, T + φ])
    columns = np.concatenate([φ, Q, np.full(T, scale), [e], φ, np.full(n, scale)])
    values = np.concatenate(
        [-(q * η)[1:], [1.0], np.full(n, r), -η, [-1.0], np.ones(n), -np.ones(n)]
    )
    upper = coo_array((values, (rows, columns)), shape=(T + n, n + T + 2)).tocsr()
    rows = np.concatenate([np.arange(T), φ, φ, [T, T]])
    columns = np.concatenate([Q, φ, Q[1:], [e, scale]])
    values = np.concatenate(
        [np.ones(T), -(q * η)[1:], np.full(n, r - 1.0), [1.0, float(np.sum(η))]]
    )
    equal = coo_array((values, (rows, columns)), shape=(T + 1, n + T + 2)).tocsr()
    cost = np.concatenate([-rest[1:], np.zeros(T), [float(c.F0), base + rest[1:].sum()]])
    solution = linprog(
        cost, upper, np.zeros(T + n), equal, np.append(np.zeros(T), 1.0), method="highs"
    )
    shares = [np.zeros(T), np.ones(T)]
    if solution.status == 0 and solution.x[scale] > 0:
        shares.append(np.append(1.0, np.clip(solution.x[φ] / solution.x[scale], 0, 1)))
    best = float(c.F0)  # min F ≤ F_0: the limit e → ∞
    for θ in shares:
        W = η - θ * η + np.array(form.weights(list(θ * η)), float)
        # W is affine in θ and η at θ = 0, so this share of θ keeps W_t ≥ 0 for t ≥ 1.
        lack = float(np.max(-W[1:] / η[1:], initial=0.0))
        θ = θ / (1 + 2 * lack)
        W = η - θ * η + np.array(form.weights(list(θ * η)), float)
        short = max(0.0, -float(W[0]))
        spent = base + short * float(c.F0) + float(np.sum((1 - θ) * rest))
        best = min(best, spent / (float(np.sum(η)) + short))
    return best


@dataclass(frozen=True)
class Stages:
    """The hypotheses (10) of Theorem 5.1, read off a schedule of n stages.

    Attributes
    ----------
    rates, lengths : α̂_0 … α̂_{n−1} and k_0 … k_{n−1}.
    previous_rate : α̂_{−1}.
    kappa_1 : min_i k_i α̂_i, the largest κ_1 allowed.
    kappa_2 : max_i (i + 1) k_i α̂_i α̂_{i−1}, the smallest κ_2 allowed.
    failures : what breaks: "α̂_i ≤ 1/(i+2)", "α̂_i < α̂_{i−1}" or "0 < α̂_i < 1", each with the
        first i at which it does.
    """

    rates: tuple[Any, ...]
    lengths: tuple[int, ...]
    previous_rate: Any
    kappa_1: Any
    kappa_2: Any
    failures: tuple[tuple[str, int], ...]


def stages(rates: Any, previous_rate: Any = None) -> Stages:
    """κ_1, κ_2 and the hypotheses of Theorem 5.1; `previous_rate` is α̂_{−1}, default α̂_0.

    Source: UAI 2024, Theorem 5.1 and eq. (10), p. 3609.
    """
    schedule = rates if isinstance(rates, StepwiseSchedule) else StepwiseSchedule.from_rates(
        rate_list(rates)
    )  # fmt: skip
    α, k = schedule.rates, schedule.lengths
    previous = α[0] if previous_rate is None else previous_rate
    before = (previous, *α[:-1])
    conditions = {
        "α̂_i ≤ 1/(i+2)": [a * (i + 2) <= 1 for i, a in enumerate(α)],
        "α̂_i < α̂_{i−1}": [a < b for a, b in zip(α, before, strict=True)],
        "0 < α̂_i < 1": [0 < a < 1 for a in α],
    }
    if previous_rate is None:
        conditions["α̂_i < α̂_{i−1}"][0] = True
    elif not 0 < previous_rate < 1:
        conditions["0 < α̂_i < 1"].insert(0, False)
    failures = []
    for name, holds in conditions.items():
        offset = len(holds) - len(α)  # 1 where i = −1 stands first
        if not all(holds):
            failures.append((name, holds.index(False) - offset))
    return Stages(
        α,
        k,
        previous,
        min(length * a for length, a in zip(k, α, strict=True)),
        max(
            (i + 1) * length * a * b
            for i, (length, a, b) in enumerate(zip(k, α, before, strict=True))
        ),
        tuple(failures),
    )


def _require_stages(found: Stages) -> None:
    for name, i in found.failures:
        raise ValueError(f"Theorem 5.1 requires {name}, which fails at stage i = {i}")


def theorem_5_1(
    rates: Any,
    method: UnifiedMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
    previous_rate: Any = None,
    form: str = "unified",
) -> Any:
    """Theorem 5.1 for n stages, in terms of κ_1 and κ_2 only: O(log n / n).

    form = "unified" (from Theorem A; s ≤ 1/(1−β)), with V = G² + δ²:

        [(1−β)R²/2 + max(0, (1−σ)β/(1−β) α_1 − α_0) F_0 + Vκ_2(1 + log n)/(2(1−β))] / (κ_1 n)

    form = "corrected" (from (31), with sums bounded from above):

        [(1−β)R²/2 + β/(1−β) F_0 log(n+1) + (2sβ+1)Vκ_2(1 + log n)/(2(1−β))] / (κ_1 n)

    form = "printed", eq. (40) as it stands, which is *not* a bound, since it replaces the sums
    by smaller integrals: log(n+1) − log 2 in place of log(n+1), and log n in place of 1 + log n.

    κ_1, κ_2 are the best that the schedule allows (`stages`); `previous_rate` is α̂_{−1} ∈ (0, 1),
    default α̂_0.

    Raises
    ------
    ValueError
        If a hypothesis of (10) fails, or `form` is something else.

    Source: UAI 2024, Theorem 5.1, p. 3609, and eq. (40), p. 3624.
    """
    β, s = _um(method)
    c = constants(distance, gap, subgradient, noise)
    found = stages(rates, previous_rate)
    _require_stages(found)
    n, κ_1, κ_2 = len(found.rates), found.kappa_1, found.kappa_2
    return _in_stages(c, β, s, form, _first_two(found), κ_1 * n, κ_2, n)


def _first_two(found: Stages) -> tuple[Any, Any]:
    """α_0 and α_1, the rates of the first two iterations; α_1 = 0 if there is only one."""
    return found.rates[0], found.rates[0] if found.lengths[0] > 1 else (*found.rates, 0)[1]


def _in_stages(
    c: Constants, β: Any, s: Any, form: str, first: tuple[Any, Any], κ_1n: Any, κ_2: Any, n: Any
) -> Any:
    """The three forms; n may be real: the number of stages in the numerator."""
    σ, V = (1 - β) * s, c.second_moment
    start = (1 - β) * c.R**2 / 2
    noise = V * κ_2 / (2 * (1 - β))
    if form == "unified":
        if σ > 1:
            raise ValueError(f"s must be <= 1/(1 - momentum) = {1 / (1 - β)}, got {s}")
        excess = max(0, (1 - σ) * β * first[1] / (1 - β) - first[0])
        return (start + excess * c.F0 + noise * (1 + math.log(n))) / κ_1n
    if form == "corrected":
        drops, harmonic = math.log(n + 1), 1 + math.log(n)
    elif form == "printed":
        drops, harmonic = math.log(n + 1) - math.log(2), math.log(n)
    else:
        raise ValueError(f"form must be 'unified', 'corrected' or 'printed', got {form!r}")
    return (start + β * c.F0 * drops / (1 - β) + (2 * s * β + 1) * noise * harmonic) / κ_1n


def theorem_5_2(
    rates: Any,
    method: UnifiedMomentum,
    *,
    distance: Any,
    subgradient: Any,
    gap: Any = None,
    noise: Any = 0,
    form: str = "unified",
) -> Any:
    """Theorem 5.2 for the schedule of its proof, α̂_i = 1/(i+2), in terms of T: O(log T / √T).

    With κ_1 = min k_iα̂_i, κ_2 = max k_iα̂_i, T = Σk_i and ν(κ) = (√(9 + 8T/κ) − 3)/2, Lemma 12.1
    gives ν(κ_2) ≤ n ≤ ν(κ_1); the bound is `theorem_5_1` with n → ν(κ_2) in the denominator and
    n → ν(κ_1) inside the logarithms.  form = "printed" has the paper's √(2T/κ_2) − 3 and √(2T/κ_1)
    instead, and its logarithms; it is not a bound, and meaningless unless T > 9κ_2/2.

    The theorem as *stated* has α̂_i = (i+1)^{−2/3}, for which no such bound holds.

    Raises
    ------
    ValueError
        If some α̂_i is not 1/(i+2) (up to rounding), or as `theorem_5_1`.

    Source: UAI 2024, Theorem 5.2, p. 3610, eq. (36), (40), (41), p. 3623-3624.
    """
    β, s = _um(method)
    c = constants(distance, gap, subgradient, noise)
    found = stages(rates)
    for i, rate in enumerate(found.rates):
        if abs(rate * (i + 2) - 1) > 4 * np.finfo(float).eps:
            raise ValueError(f"Theorem 5.2 requires rates[{i}] = 1/{i + 2}, got {rate}")
    products = [length * a for length, a in zip(found.lengths, found.rates, strict=True)]
    κ_1, κ_2, T = min(products), max(products), sum(found.lengths)
    if form == "printed":
        fewest, most = math.sqrt(2 * T / κ_2) - 3, math.sqrt(2 * T / κ_1)
        if fewest <= 0:
            raise ValueError(f"the printed form needs T > 9 κ_2/2 = {4.5 * κ_2}, got T = {T}")
    else:
        fewest, most = ((math.sqrt(9 + 8 * T / κ) - 3) / 2 for κ in (κ_2, κ_1))
    return _in_stages(c, β, s, form, _first_two(found), κ_1 * fewest, κ_2, most)
