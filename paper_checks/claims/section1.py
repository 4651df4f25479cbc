"""Section 1: the operator ∠(·, ·) of eq. (2), its ε, and what float32 makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy as sp
import torch

from autodrop import angle_between
from paper_checks import style
from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim

EPS = np.finfo(np.float64).eps
FIRST_VERSION_EPSILON = 1e-8  # arXiv 2111.15317, in the authors' published code


def printed_angle(u: np.ndarray, v: np.ndarray, epsilon: float = 0.0) -> Any:
    """(180/π)·arccos(⟨u, v⟩/(‖u‖‖v‖ + ε)), eq. (2) as printed, in the dtype of u and v; degrees.

    The cosine is clipped to [−1, 1], which it leaves by rounding.
    """
    number = u.dtype.type
    norms = np.sqrt((u * u).sum(-1)) * np.sqrt((v * v).sum(-1))
    cosine = (u * v).sum(-1) / (norms + number(epsilon))
    return np.degrees(np.arccos(np.clip(cosine, number(-1), number(1))))


def damped_cosine(cosine: Any, norms: Any, epsilon: Any) -> Any:
    """cos∠ · ‖s‖‖s'‖/(‖s‖‖s'‖ + ε): the cosine that eq. (2) reads; exact numbers stay exact."""
    return cosine * norms / (norms + epsilon)


def planar_angle(u: np.ndarray, v: np.ndarray) -> float:
    """atan2(‖v − ⟨v, û⟩û‖, ⟨v, û⟩): polar angle of v in the plane of u and v; radians."""
    û = u / math.sqrt(u @ u)
    along = float(v @ û)
    across = v - along * û
    return math.atan2(math.sqrt(across @ across), along)


def exact_angle(u: np.ndarray, v: np.ndarray) -> float:
    """arccos(⟨u, v⟩/√(⟨u, u⟩⟨v, v⟩)) of integer vectors, to 30 digits before rounding; radians."""
    uv, uu, vv = (sp.Integer(int(x @ y)) for x, y in ((u, v), (u, u), (v, v)))
    return float(sp.acos(uv / sp.sqrt(uu * vv)).evalf(30))


def _integer_pairs(rng: np.random.Generator, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of integer vectors: in general position, collinear, and nearly collinear."""
    for i in range(count):
        n = 1 + i % 40
        u = rng.integers(1, 1000, n)
        factor = (1, -1)[i % 2] * int(rng.integers(1, 50))
        yield u, rng.integers(-999, 1000, n) | 1
        yield u, factor * u
        yield u, factor * u + (np.arange(n) == 0)


@claim(
    id="eq-2-operator",
    place="eq. (2), p. 3604",
    title="Without ε, eq. (2) is the angle between two vectors",
    statement="With ε = 0, ∠(u, v) = (180°/π) arccos(⟨u, v⟩/(‖u‖‖v‖)) is the angle of elementary "
    "geometry: it is symmetric, does not change when u and v are rotated together or multiplied by "
    "positive numbers, and takes its values in [0°, 180°], both ends included.",
    kind=Kind.IDENTITY,
    hypotheses="u ≠ 0, v ≠ 0; of zero vectors there is no angle",
    expected=Verdict.HOLDS,
)
def eq_2_operator(context: Context) -> Outcome:
    evidence = Evidence()
    rng = context.rng("eq-2-operator")
    pairs = list(_integer_pairs(rng, context.pick(40, 400)))

    computed = np.array([float(angle_between(u, v)) for u, v in pairs])
    exact = np.array([exact_angle(u, v) for u, v in pairs])
    planar = np.array([planar_angle(u.astype(float), v.astype(float)) for u, v in pairs])
    rounding = np.array([16 * (len(u) + 4) * EPS for u, _ in pairs])
    smallest = math.degrees(exact[exact > 0].min())
    evidence.route("2·atan2(‖û − v̂‖, ‖û + v̂‖)", f"`angle_between` on {len(pairs)} integer pairs")
    evidence.route(
        "arccos of the cosine, exactly",
        f"integer products, 30 digits; angles from {smallest:.2g}° to 180°",
    )
    evidence.route("planar atan2", "polar angle of v in the plane of u and v")
    source = "rounding, 16 (n + 4) ε radians"
    evidence.equal("2·atan2 = exact arccos", computed, exact, rounding, source=source)
    evidence.equal("planar atan2 = exact arccos", planar, exact, rounding, source=source)
    cosine_reading = np.array([printed_angle(1.0 * u, 1.0 * v) for u, v in pairs])
    evidence.equal(
        "cosine of eq. (2) in float64 = exact cosine",
        np.cos(np.radians(cosine_reading)),
        np.cos(exact),
        rounding,
        source="rounding, 16 (n + 4) ε in the cosine",
    )

    u, v = rng.standard_normal((2, 200, 12))
    Q, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    scales = 10.0 ** rng.uniform(-150, 150, (2, 200, 1))
    tolerance, source = 64 * 12 * EPS, "rounding, 64 n ε radians"
    plain = angle_between(u, v)
    evidence.exact("symmetric", bool((angle_between(v, u) == plain).all()), True)
    evidence.equal("rotation", angle_between(u @ Q, v @ Q), plain, tolerance, source=source)
    scaled = angle_between(scales[0] * u, scales[1] * v)
    evidence.equal("scale, 1e−150 … 1e150", scaled, plain, tolerance, source=source)
    evidence.at_least("≥ 0°", computed, 0.0)
    evidence.at_most("≤ 180°", computed, math.pi)
    evidence.exact("0° is attained", float(angle_between([3, 4], [6, 8])), 0.0)
    evidence.exact("180° is attained", float(angle_between([3, 4], [-6, -8])), math.pi)
    try:
        angle_between([0.0, 0.0], [1.0, 0.0])
        detail = "returned a number"
    except ValueError as error:
        detail = str(error)
    evidence.require("a zero vector is refused", "zero" in detail, detail)

    return evidence.outcome(
        Verdict.HOLDS,
        "Three independent routes give the same angle to rounding, from "
        f"{smallest:.2g}° to 180°; symmetry is exact, rotation and scale change nothing.",
        cases=len(pairs) + len(u),
    )


@claim(
    id="eq-2-epsilon",
    place="eq. (2) and footnote 1, p. 3604; eq. (8), p. 3606",
    title="ε in eq. (2) only prevents a division by zero",
    statement="ε in ‖s‖‖s'‖ + ε is a small number that only prevents the division by zero, so it "
    "can be left out of the theory.",
    kind=Kind.IDENTITY,
    hypotheses="ε > 0; the authors' first version takes ε = 1e−8",
    expected=Verdict.REFUTED,
)
def eq_2_epsilon(context: Context) -> Outcome:
    evidence = Evidence()
    ε = FIRST_VERSION_EPSILON

    # Two equal steps of norm 1e-4: ‖s‖² = ε, in exact arithmetic.
    exact_ε = sp.Rational(1, 10**8)
    reading = sp.acos(damped_cosine(sp.Integer(1), exact_ε, exact_ε)) * 180 / sp.pi
    step = np.array([6e-5, 8e-5])
    printed = float(printed_angle(step, step, ε))
    evidence.route("exact", f"arccos(ε/(ε + ε)) = {reading}°")
    evidence.route("eq. (2) in float64", f"{printed:.10f}° for s = s' = (6e−5, 8e−5)")
    evidence.route("scaled first", "2·atan2 of the unit vectors, which has no ε: 0°")
    evidence.exact("two equal steps of norm 1e−4 read 60°", reading, sp.Integer(60))
    evidence.equal("float64 = exact", printed, 60.0, 64 * EPS * 60, source="rounding, 64 ε")
    evidence.exact("their angle is 0°", float(angle_between(step, step)), 0.0)

    angles = np.radians([0.0, 45.0, 90.0, 120.0])
    norms = np.logspace(-7, 1, 161)
    u = norms[:, None, None] * np.array([1.0, 0.0])
    v = norms[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    formula = damped_cosine(np.cos(angles), norms[:, None] ** 2, ε)
    readings = printed_angle(np.broadcast_to(u, v.shape).copy(), v, ε)
    evidence.equal(
        "cosine of the reading = cos∠ · N/(N + ε), N = ‖s‖‖s'‖",
        np.cos(np.radians(readings)),
        formula,
        32 * EPS,
        source="rounding, 32 ε",
    )
    evidence.apart(
        "a drop by ρ = 0.1 turns equal steps of norm 1e−3",
        printed_angle(step, step, 1e-2 * ε),
        printed_angle(step, step, ε),
        by=30.0,
        source="shrinking both steps by 0.1 acts like raising ε a hundredfold",
    )

    # N/(N + ε) ≥ cos τ ⇔ N ≥ ε cos τ/(1 − cos τ); 1 − cos τ = 2 sin²(τ/2) without cancellation
    τ = math.radians(0.01)
    needed = math.sqrt(ε * math.cos(τ) / (2 * math.sin(τ / 2) ** 2))
    below, above = (np.array([factor * needed, 0.0]) for factor in (0.99, 1.01))
    evidence.at_least("shorter steps: error > 0.01°", printed_angle(below, below, ε), 0.01)
    evidence.at_most("longer steps: error < 0.01°", printed_angle(above, above, ε), 0.01)
    evidence.number("step norm above which 0° reads < 0.01° (ε = 1e−8)", needed)

    figure, (left, right) = style.new_figure(1, 2, height=3.4, sharey=True)
    colors = [style.PALETTE[name] for name in ("blue", "green", "ink", "vermillion")]
    for j, (angle, color) in enumerate(zip(np.degrees(angles), colors, strict=True)):
        left.semilogx(norms, readings[:, j], color=color)
        left.annotate(f"{angle:.0f}°", (1e1, angle + 2), ha="right", color=color)
    left.plot(1e-4, 60, "o", color=style.PALETTE["blue"])
    left.annotate(
        "equal steps of\nnorm 1e−4 read 60°", (1e-4, 60), (1.5e-7, 24), fontsize=9,
        arrowprops={"arrowstyle": "-", "color": style.PALETTE["grey"]},
    )  # fmt: skip
    left.set(
        title="ε = 1e−8, four true angles",
        xlabel="norm of both steps",
        ylabel="reading of eq. (2) (degrees)",
    )
    left.set(yticks=range(0, 121, 30))
    for exponent, name in zip((6, 8, 10, 12), ("orange", "blue", "green", "purple"), strict=True):
        curve = np.degrees(np.arccos(damped_cosine(1.0, norms**2, 10.0**-exponent)))
        right.semilogx(norms, curve, color=style.PALETTE[name], label=f"ε = 1e−{exponent}")
    right.set(title="true angle 0°, four values of ε", xlabel="norm of both steps")
    right.legend(loc="center right")
    evidence.figure(
        "ε turns short steps to a right angle",
        "Left: reading against the norm of the two steps for four true angles; every curve ends at "
        "90° as the steps shrink, and late in training, after many drops, steps are short. Right: "
        "two equal steps for four values of ε; the error starts near ‖s‖ = 10⁴√ε.",
        figure,
    )
    return evidence.outcome(
        Verdict.REFUTED,
        "Two equal steps of norm 1e−4 read 60° instead of 0°. Any ε pulls the reading towards 90°, "
        f"and with ε = 1e−8 an angle of 0° is read to 0.01° only for steps longer than "
        f"{needed:.2f}.",
        cases=readings.size,
        correction="Scale the vectors to length 1 first and use no ε: of a zero step there is no "
        "angle to be protected. With ε the reading is arccos(cos∠ · N/(N + ε)), N = ‖s‖‖s'‖, "
        "which is the angle only for N ≫ ε or at 90°.",
        counterexample=(
            "import numpy as np\n"
            "from autodrop import angle_between\n"
            "\n"
            "s = np.array([6e-5, 8e-5])  # norm 1e-4\n"
            "printed = np.degrees(np.arccos(s @ s / (np.linalg.norm(s) ** 2 + 1e-8)))\n"
            "assert abs(printed - 60) < 1e-9 and angle_between(s, s) == 0"
        ),
    )


@claim(
    id="eq-2-float32",
    place="eq. (2), p. 3604; thresholds of 0.01° in Section 3, p. 3607, and of 0.1° in Algorithm 1",
    title="Eq. (2) as written is precise enough in float32",
    statement="Eq. (2) can be evaluated as written in float32, the precision in which networks are "
    "trained, at the resolution that the thresholds 0.01° and 0.1° need.",
    kind=Kind.LOWER_BOUND,
    hypotheses="the quotient is a float32 number, however accurately it was computed",
    expected=Verdict.REFUTED,
)
def eq_2_float32(context: Context) -> Outcome:
    evidence = Evidence()
    rng = context.rng("eq-2-float32")

    # The largest float32 below 1 is 1 − 2⁻²⁴.
    quantum = float((sp.acos(1 - sp.Rational(1, 2**24)) * 180 / sp.pi).evalf(30))
    gap = float(np.float32(1) - np.nextafter(np.float32(1), np.float32(0)))
    evidence.route(
        "exact",
        f"no float32 lies between 1 − 2^−24 and 1, so no reading between 0° and {quantum:.6f}°",
    )
    evidence.exact("spacing of float32 below 1", gap, 2.0**-24)
    evidence.number("smallest positive reading in float32 (degrees)", quantum)
    evidence.at_least("it exceeds the threshold 0.01°", quantum, 0.01)

    n, count = 2000, context.pick(120, 600)
    true = np.linspace(0.0005, 0.1, count)
    e1, e2 = np.linalg.qr(rng.standard_normal((n, 2)))[0].T
    u = np.broadcast_to(e1, (count, n)).astype(np.float32)
    v = (np.cos(np.radians(true))[:, None] * e1 + np.sin(np.radians(true))[:, None] * e2).astype(
        np.float32
    )
    numpy_reading = printed_angle(u, v).astype(float)
    tu, tv = torch.from_numpy(u), torch.from_numpy(v)
    cosine = torch.linalg.vecdot(tu, tv) / (tu.norm(dim=-1) * tv.norm(dim=-1))
    torch_reading = torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).numpy().astype(float)
    stable = np.degrees(angle_between(u, v))
    evidence.route("numpy in float32", f"eq. (2) on {count} pairs in R^{n}")
    evidence.route("torch in float32", "the same with torch.acos")
    for name, reading in (("numpy", numpy_reading), ("torch", torch_reading)):
        positive = reading[reading > 0]
        evidence.at_least(
            f"every positive reading of {name}",
            positive,
            quantum,
            8 * np.finfo(np.float32).eps * quantum,
            source="rounding of arccos and of the factor 180/π, 8 float32 ε",
        )
        error = np.abs(reading - true)[true <= 0.01].max()
        evidence.at_least(f"largest error of {name} on angles ≤ 0.01°", error, 0.005)
    evidence.equal(
        "2·atan2 in float64 of the same float32 vectors",
        stable,
        true,
        math.degrees(2 * 2.0**-24),
        source="rounding of the entries to float32 turns each vector by at most 2^−24 radians",
    )
    best = float(np.arccos(np.float64(np.float32(math.cos(math.radians(0.01))))))
    evidence.exact("0.01° with a correctly rounded cosine reads", best, 0.0)

    figure, ax = style.new_figure(height=3.6)
    fine = np.linspace(0, 0.1, 1201)
    steps = np.degrees(np.arccos(np.cos(np.radians(fine)).astype(np.float32).astype(np.float64)))
    ax.plot(true, torch_reading, ".", color=style.PALETTE["sky"], label="torch, n = 2000")
    ax.plot(true, numpy_reading, ".", color=style.PALETTE["orange"], label="numpy, n = 2000")
    ax.plot(fine, steps, color=style.PALETTE["vermillion"], label="best possible arccos")
    ax.plot(true, stable, color=style.PALETTE["blue"], label="2·atan2 in float64")
    ax.axvline(0.01, 0, 0.5, color=style.PALETTE["grey"], ls=":", lw=1.2)
    ax.annotate("threshold\n0.01°", (0.0107, 0.043), color=style.PALETTE["grey"], fontsize=9)
    ax.set(
        xlabel="true angle (degrees)",
        ylabel="reading (degrees)",
        xlim=(0, 0.1),
        ylim=(-0.003, 0.115),
    )
    ax.legend(loc="upper left")
    evidence.figure(
        "Small angles in float32",
        "The same pairs of float32 vectors read four ways. Even with a perfectly rounded cosine "
        f"eq. (2) jumps from 0° to {quantum:.4f}°; real sums of 2000 products are worse. "
        "2·atan2(‖û − v̂‖, ‖û + v̂‖) in float64 follows the diagonal.",
        figure,
    )
    return evidence.outcome(
        Verdict.REFUTED,
        f"In float32 every angle reads as 0° or at least {quantum:.4f}°: 0.01° cannot be resolved "
        "however the cosine is computed. The vectors themselves are precise to 7e−6°.",
        cases=count,
        correction="Take the angle as 2·atan2(‖û − v̂‖, ‖û + v̂‖) in float64, or at least sum the "
        "three products in float64; float32 parameters then give it to 7e−6°.",
        counterexample=(
            "import numpy as np\n"
            "from autodrop import angle_between\n"
            "\n"
            "t = np.radians(0.01)\n"
            "u, v = np.float32([1, 0]), np.float32([np.cos(t), np.sin(t)])\n"
            "cosine = (u @ v) / (np.linalg.norm(u) * np.linalg.norm(v))  # float32\n"
            "assert np.arccos(cosine) == 0 and abs(angle_between(u, v) - t) < 1e-9"
        ),
    )
