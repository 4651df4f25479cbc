"""Section 6: does AutoDrop train better? The paper's own tables, and a comparison on real data.

The comparison follows paper_checks/training/PROTOCOL.md, which is older than its results. They are
committed; each claim here recomputes a slice of them and reads the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from paper_checks.claims import section3_4_networks
from paper_checks.claims.section3_4_networks import SETTING_IN_WORDS
from paper_checks.training import Record, comparison_figure, decide, load_digits, plan, tables
from paper_checks.training.config import SamplingName
from paper_checks.training.decide import MARGIN, Decision
from paper_checks.training.fixed_rates import RATES, SETTING, epochs_to, level
from paper_checks.training.measures import Curve, counts_of
from paper_checks.training.paired import Interval
from paper_checks.training.plan import Arm, Variant
from paper_checks.training.reset import Around, angles_around_drop
from paper_checks.training.results import SLICE, Results, Tested, named, unavailable
from paper_checks.training.run import Diverged, Run, threads
from paper_checks.training.schedules import SCHEDULES

# Table 2, p. 3611: test error, %, mean and standard deviation of four runs, least over the epochs.
RUNS = 4
TABLE_2: dict[str, dict[str, tuple[float, float]]] = {
    "ResNet18, CIFAR10": {
        "HD": (6.78, 0.23), "TLR": (5.70, 0.19), "CLR": (5.14, 0.11), "OneCycle": (4.86, 0.12),
        "ExpLR": (5.82, 0.10), "SOTA": (4.79, 0.17), "AutoDrop": (4.79, 0.99),
    },
    "WRN28x10, CIFAR10": {
        "HD": (9.12, 0.60), "TLR": (16.70, 2.2), "CLR": (5.48, 0.11), "OneCycle": (4.78, 0.16),
        "ExpLR": (6.80, 0.15), "SOTA": (3.77, 0.05), "AutoDrop": (3.73, 0.07),
    },
    "ResNet34, CIFAR100": {
        "HD": (26.89, 1.5), "TLR": (23.91, 0.35), "CLR": (22.69, 0.30), "OneCycle": (22.29, 0.09),
        "ExpLR": (24.29, 0.47), "SOTA": (21.92, 0.34), "AutoDrop": (21.82, 0.14),
    },
    "WRN40x10, CIFAR100": {
        "HD": (29.32, 0.46), "TLR": (39.54, 0.48), "CLR": (23.61, 0.38), "OneCycle": (22.60, 0.66),
        "ExpLR": (23.32, 0.24), "SOTA": (18.96, 0.05), "AutoDrop": (19.41, 0.10),
    },
}  # fmt: skip
# Table 16, p. 3628: least test error, %, up to an epoch, ResNet18 on CIFAR10; one number each.
TABLE_16 = {
    50: {"HD": 8.87, "TLR": 6.79, "CLR": 8.62, "OneCycle": 9.56, "ExpLR": 6.81, "SOTA": 11.18,
         "AutoDrop": 8.76},
    100: {"HD": 6.84, "TLR": 5.68, "CLR": 5.46, "OneCycle": 8.56, "ExpLR": 5.98, "SOTA": 5.95,
          "AutoDrop": 5.87},
    150: {"HD": 6.81, "TLR": 5.59, "CLR": 5.3, "OneCycle": 8.14, "ExpLR": 5.98, "SOTA": 4.95,
          "AutoDrop": 4.90},
    200: {"HD": 6.78, "TLR": 5.48, "CLR": 5.16, "OneCycle": 4.96, "ExpLR": 5.95, "SOTA": 4.78,
          "AutoDrop": 4.76},
}  # fmt: skip


class Welch(NamedTuple):
    """AutoDrop minus a rival, points, and its 95 % interval."""

    mean: float
    low: float
    high: float


def welch(ours: tuple[float, float], theirs: tuple[float, float], n: int = RUNS) -> Welch:
    """Welch's interval for two means of n runs each, given as (mean, standard deviation)."""
    from scipy import stats

    a, b = ours[1] ** 2 / n, theirs[1] ** 2 / n
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(a + b)
    mean = ours[0] - theirs[0]
    return Welch(mean, mean - half, mean + half)


@claim(
    id="table-2",
    place="Table 2, p. 3611; abstract; Section 6.1",
    title="By its own table AutoDrop matches the SOTA baseline and beats all other schedules",
    statement=(
        "AutoDrop matches the SOTA performance on all our experiments, and was shown superior to "
        "manual (CLR, OneCycle, ExpLR) and automatic (HD, TLR) learning rate adjustment."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses="the four CIFAR rows of Table 2, four runs each, normal errors; 95 % intervals, one "
    "by one",
    expected=Verdict.CORRECTED,
)
def table_2(context: Context) -> Outcome:
    evidence = Evidence()
    found = {
        (model, rival): welch(row["AutoDrop"], row[rival])
        for model, row in TABLE_2.items()
        for rival in row
        if rival != "AutoDrop"
    }
    others = {pair: w for pair, w in found.items() if pair[1] != "SOTA"}
    better = [pair for pair, w in others.items() if w.high < 0]
    open_ = [pair for pair, w in others.items() if w.low <= 0 <= w.high]
    worse_than_sota = [pair[0] for pair, w in found.items() if pair[1] == "SOTA" and w.low > 0]
    evidence.exact("rivals but for SOTA that are better", len(others) - len(better) - len(open_), 0)
    evidence.exact(
        "rivals that the table does not separate from AutoDrop",
        sorted(open_),
        [("ResNet18, CIFAR10", name) for name in ("CLR", "ExpLR", "OneCycle", "TLR")],
    )
    evidence.exact(
        "settings with SOTA significantly better", worse_than_sota, ["WRN40x10, CIFAR100"]
    )
    evidence.at_most(
        "AutoDrop − SOTA, points",
        [w.mean for pair, w in found.items() if pair[1] == "SOTA"], MARGIN,
    )  # fmt: skip
    evidence.route("Welch's t", f"{len(better)} of {len(others)} intervals below 0")
    evidence.route("simulated runs", _simulated(context, evidence, found))
    evidence.table(
        "AutoDrop − rival, points of test error, with 95 % intervals",
        ["model", *(r for r in next(iter(TABLE_2.values())) if r != "AutoDrop")],
        [
            (model, *(
                f"{w.mean:+.2f} ({w.low:+.2f} to {w.high:+.2f})"
                for pair, w in found.items() if pair[0] == model
            ))
            for model in TABLE_2
        ],
    )  # fmt: skip
    gap = found["WRN40x10, CIFAR100", "SOTA"]
    return evidence.outcome(
        Verdict.CORRECTED,
        f"On WRN40x10/CIFAR100 the SOTA baseline is better by {gap.mean:.2f} points (interval "
        f"{gap.low:.2f} to {gap.high:.2f}); on ResNet18/CIFAR10 the printed deviation of 0.99 "
        "leaves only HD behind.",
        cases=len(found),
        correction=(
            f"Within {MARGIN} points of the SOTA baseline on all four; the other rivals are "
            f"beaten in {len(better)} of {len(others)} cases and not told apart in {len(open_)}. "
            "The table gives the least test error of the epochs, which selects on the test set, "
            "with the window that was best for AutoDrop in Table 1."
        ),
    )


def _simulated(context: Context, evidence: Evidence, found: dict[tuple[str, str], Welch]) -> str:
    """How often two schedules with AutoDrop's true mean would differ by as much as the table says.

    20 000 draws of four runs each; the fact needs the p-value below 0.01, where the standard error
    of the share is 0.0007: a false alarm is beyond 5 of them.
    """
    rng, draws = context.rng("table-2"), 20_000
    row = TABLE_2["WRN40x10, CIFAR100"]
    (ours, a), (theirs, b) = row["AutoDrop"], row["SOTA"]
    means = rng.normal(0, a, (draws, RUNS)).mean(axis=1)
    means -= rng.normal(0, b, (draws, RUNS)).mean(axis=1)
    share = float(np.mean(np.abs(means) >= ours - theirs))
    evidence.at_most("chance of the gap on WRN40x10 if there were none", share, 0.01)
    return f"a gap of {ours - theirs:.2f} points on WRN40x10 by chance: {share:.4f}"


@claim(
    id="table-16",
    place="Table 16, p. 3628; Section 6.1",
    title="AutoDrop converges faster than the SOTA baseline, as no other schedule can",
    statement=(
        "Test errors at epochs 50, 100, 150, 200 show that AutoDrop reaches performance comparable "
        "to the SOTA baseline with a slightly faster convergence rate that others cannot attain."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses="Table 16 as printed: ResNet18 on CIFAR10, least test error up to each epoch",
    expected=Verdict.REFUTED,
)
def table_16(context: Context) -> Outcome:
    evidence = Evidence()
    names = list(TABLE_16[50])
    errors = np.array([[row[name] for name in names] for row in TABLE_16.values()])
    ours = errors[:, names.index("AutoDrop")]
    ahead = {
        epoch: sorted(name for name in names if row[name] < row["AutoDrop"])
        for epoch, row in TABLE_16.items()
    }
    evidence.exact(
        "ahead of AutoDrop", ahead,
        {50: ["CLR", "ExpLR", "TLR"], 100: ["CLR", "TLR"], 150: [], 200: []},
    )  # fmt: skip
    evidence.route("ranks", f"ahead of AutoDrop at epoch 50: {', '.join(ahead[50])}")
    means = dict(zip(names, errors.mean(axis=0).round(3).tolist(), strict=True))
    evidence.exact("least mean over the four epochs", min(means, key=means.__getitem__), "TLR")
    evidence.route(
        "mean of the four columns, a coarse area under the curve",
        f"TLR {means['TLR']:.2f}, AutoDrop {means['AutoDrop']:.2f}, SOTA {means['SOTA']:.2f}",
    )
    evidence.require(
        "AutoDrop is ahead of the SOTA baseline at each of the four epochs",
        bool((ours < errors[:, names.index("SOTA")]).all()),
        f"by {', '.join(f'{x:.2f}' for x in errors[:, names.index('SOTA')] - ours)} points",
    )
    evidence.table(
        "Least test error up to an epoch (%)",
        ["epoch", *names],
        [(epoch, *row.values()) for epoch, row in TABLE_16.items()],
    )
    return evidence.outcome(
        Verdict.REFUTED,
        "At a quarter of the budget TLR, ExpLR and CLR have lower errors than AutoDrop, at half of "
        "it TLR and CLR; AutoDrop is first only from three quarters on.",
        cases=errors.size,
        correction=(
            "Ahead of the SOTA baseline at all four epochs, by 2.42 points at epoch 50, where the "
            "baseline has not dropped its rate yet, and 0.02 at the end; three others attain more "
            "by epoch 50. One number each, without deviations."
        ),
        counterexample=(
            "# Table 16, epoch 50 and 100: least test error up to there, per cent\n"
            "autodrop, tlr, clr, explr = (8.76, 5.87), (6.79, 5.68), (8.62, 5.46), (6.81, 5.98)\n"
            "assert max(tlr[0], clr[0], explr[0]) < autodrop[0]\n"
            "assert max(tlr[1], clr[1]) < autodrop[1]"
        ),
    )


@lru_cache(maxsize=1)
def committed() -> Results:
    """The results that are in the repository."""
    return Results.load()


@dataclass(frozen=True)
class Again:
    """A committed run and the same run made now."""

    then: Tested
    now: Curve
    weights: str


@lru_cache(maxsize=64)
def again(task_name: str, variant: Variant, rate: float, seed: int) -> tuple[Curve, str]:
    """The curve and the weights' digest of a run of the protocol, made now."""
    task = named(task_name)
    trial = plan.trial(task, "test", variant, rate, seed)
    run = Run(trial.config, task.data()[1])
    with threads(trial.config.threads):
        try:
            while not run.finished:
                run.advance()
        except Diverged:
            pass  # as in the sweep: what is missing counts as chance
    record = run.record()
    of = run.data.test_y.numel()
    wrong = counts_of(record.curves.test_accuracy, of)
    return Curve.of_counts(wrong, of, trial.config.epochs), record.weights[:12]


def slice_of(
    results: Results, task: str, schedules: Sequence[str], arm: Arm, seeds: int
) -> list[Again]:
    """The first `seeds` runs of each schedule, made again."""
    found = []
    for name in schedules:
        chosen = decide.choice(results, task, name, arm)
        for then in results.runs(task, chosen.variant, chosen.rate)[:seeds]:
            now, weights = again(task, chosen.variant, chosen.rate, then.seed)
            found.append(Again(then, now, weights))
    return found


def compare_slice(evidence: Evidence, results: Results, runs: Sequence[Again]) -> None:
    """Record that the runs made now are the committed ones.

    Bit for bit where torch's version and the processor are those of the committed results. On
    another processor sums round otherwise, and two runs drift apart like runs of two seeds.
    """
    same = [run for run in runs if run.weights == run.then.weights and run.now == run.then.curve]
    if results.made_here():
        evidence.exact("runs that came out bit for bit as committed", len(same), len(runs))
    else:
        evidence.at_most(
            "final test error, mean of now − then",
            abs(float(np.mean([run.now.final - run.then.curve.final for run in runs]))),
            0.0,
            _spread([run.then.curve.final for run in runs]),
            source="another processor: 5 standard errors of a mean difference of unrelated runs",
        )
    evidence.route(
        "runs made now", f"{len(same)} of {len(runs)} committed runs recomputed bit for bit"
    )


def _spread(errors: Sequence[float]) -> float:
    return 5 * float(np.std(errors, ddof=1)) * math.sqrt(2 / len(errors))


SAMPLINGS: tuple[SamplingName, ...] = ("shuffled", "independent")
ANGLES_IN_WORDS = "the runs of the claim figure-3-rise: " + SETTING_IN_WORDS
TABLE_6 = {0.1: 0.17, 0.03: 0.22, 0.01: 0.24}  # p. 3617, degrees
RESET_SETTING = replace(SETTING, learning_rate=0.4, window=6, sampling="independent")
RESET_FACTORS = (1.0, 0.95, 0.5, 0.1)
BEFORE, AFTER, SETTLED = 60, 20, 38  # epochs; windows after the two that straddle the drop


def _figure_3_seeds(context: Context) -> tuple[int, ...]:
    """Those of the claim figure-3-rise, whose runs are kept while the audit goes on."""
    return tuple(100 + 10 * context.seed + i for i in range(context.pick(2, 8)))


def noise(angles: Sequence[float]) -> float:
    """Standard deviation of the last quarter, degrees, of what is not a slow drift.

    From successive differences: std(ω_{i+1} − ω_i)/√2, which a drift does not raise.
    """
    last = np.array_split(np.asarray(angles), 4)[3]
    return float(np.diff(last).std(ddof=1) / math.sqrt(2))


def saturations(record: Record) -> tuple[float, float]:
    """Epochs after which angle and training loss have done 95 % of what they do in the run."""
    losses = np.array(record.curves.train_loss)
    final = losses[-len(losses) // 4 :].mean()
    reached = int(np.flatnonzero(losses <= final + 0.05 * (losses[0] - final))[0]) + 1
    return epochs_to(record, 0.95 * level(record)), float(reached)


@claim(
    id="table-6",
    place="Table 6, p. 3617; Section 4, p. 3608",
    title="At saturation the angle scatters by 0.1° to 0.25°, as the threshold assumes",
    statement=(
        "The threshold of 0.1° should match the standard deviation of the angular velocity, which "
        "is between 0.1° and 0.25° for ResNet18/CIFAR10 and similar for other experiments."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=ANGLES_IN_WORDS,
    expected=Verdict.REFUTED,
)
def table_6(context: Context) -> Outcome:
    evidence = Evidence()
    seeds = _figure_3_seeds(context)
    rows, scatter = [], {}
    for sampling in SAMPLINGS:
        records = section3_4_networks.runs(seeds, sampling, context.device)
        scatter[sampling] = np.array([[noise(r.angles) for r in of_seed] for of_seed in records])
        plain = [
            [float(np.std(np.array_split(r.angles, 4)[3], ddof=1)) for r in of_seed]
            for of_seed in records
        ]
        evidence.at_least(f"{sampling}: scatter of every run (degrees)", scatter[sampling], 2.5)
        evidence.at_least(f"{sampling}: plain standard deviation (degrees)", plain, 2.5)
        rows.append((sampling, *scatter[sampling].mean(axis=0).round(2).tolist()))
        mean = ", ".join(f"{x:.1f}°" for x in np.mean(plain, axis=0))
        evidence.route(f"{sampling} mini-batches, standard deviation", f"{mean} at α = {RATES}")
    evidence.table("Scatter at saturation (degrees)", ["mini-batches", *map(str, RATES)], rows)
    low = min(float(s.min()) for s in scatter.values())
    high = max(float(s.max()) for s in scatter.values())
    return evidence.outcome(
        Verdict.REFUTED,
        f"On digits the angle scatters by {low:.1f}° to {high:.1f}° at saturation, {low / 0.1:.0f} "
        "times the threshold and more, so that the test C_i − C_{i−1} < 0.1° decides by chance.",
        cases=2 * scatter["shuffled"].size,
        correction=(
            "The scatter is a matter of the network. Angles between vectors of d independent "
            f"coordinates scatter by 57°/√d: here as for d ≈ {(57.3 / high) ** 2:.0f} to "
            f"{(57.3 / low) ** 2:.0f}, far fewer than the 4810 parameters; in Table 6 as for "
            "d ≈ 60 000 to 110 000 of 11 million. A threshold in degrees does not carry over."
        ),
        counterexample=(
            "from dataclasses import replace\n"
            "import numpy as np\n"
            "from paper_checks.training.fixed_rates import SETTING, angle_at_fixed_rates\n"
            "(run,) = angle_at_fixed_rates((0.4,), config=replace(SETTING, epochs=60))\n"
            "assert np.std(run.angles[-20:]) > 2.5  # degrees; the paper: 0.1 to 0.25"
        ),
    )


@claim(
    id="network-angle-before-loss",
    place="Section 4, p. 3607, iii)",
    title="On a network the angle saturates slightly earlier than the loss",
    statement=(
        "The angular velocity typically enters saturation slightly earlier than the loss function, "
        "so tracking it tells earlier when the optimizer starts to get stuck."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=ANGLES_IN_WORDS,
    expected=Verdict.REFUTED,
)
def angle_before_loss(context: Context) -> Outcome:
    evidence = Evidence()
    seeds = _figure_3_seeds(context)
    rows = []
    ratios = []
    for sampling in SAMPLINGS:
        records = section3_4_networks.runs(seeds, sampling, context.device)
        times = np.array([[saturations(r) for r in of_seed] for of_seed in records])
        angle, loss = times[..., 0], times[..., 1]
        evidence.at_least(
            f"{sampling}: epochs to 95 % of the angle's level, over those of the loss",
            angle / loss, 1.5,
        )  # fmt: skip
        ratios.append(angle / loss)
        for name, values in (("angle", angle), ("loss", loss)):
            rows.append((sampling, name, *values.mean(axis=0).round(1).tolist()))
        evidence.route(
            f"{sampling} mini-batches",
            f"angle after {angle.mean(axis=0).round(0).tolist()} epochs, loss after "
            f"{loss.mean(axis=0).round(0).tolist()} at α = {list(RATES)}",
        )
    evidence.table(
        "Epochs to 95 % of the rise of the angle, and of the fall of the training loss",
        ["mini-batches", "of", *map(str, RATES)], rows,
    )  # fmt: skip
    low, high = float(np.min(ratios)), float(np.max(ratios))
    return evidence.outcome(
        Verdict.REFUTED,
        f"The angle takes {low:.1f} to {high:.1f} times as many epochs as the loss, in each of "
        f"{2 * len(seeds) * len(RATES)} runs.",
        cases=2 * len(seeds) * len(RATES),
        correction="On this network the angle saturates later than the loss, at every rate.",
        counterexample=(
            "from dataclasses import replace\n"
            "import numpy as np\n"
            "from paper_checks.training.fixed_rates import SETTING, angle_at_fixed_rates\n"
            "(run,) = angle_at_fixed_rates((0.4,), config=replace(SETTING, epochs=60))\n"
            "loss, angle = np.array(run.curves.train_loss), np.array(run.angles)\n"
            "# In 12 epochs the loss does 95 % of its fall, the angle not 80 % of its rise.\n"
            "assert loss[12] - loss[-15:].mean() < 0.05 * (loss[0] - loss[-15:].mean())\n"
            "assert angle[8:12].mean() < 0.8 * angle[-15:].mean()"
        ),
    )


@lru_cache(maxsize=8)
def resets(seeds: tuple[int, ...], momentum: float, device: str) -> tuple[tuple[Around, ...], ...]:
    """For each seed, the angles around a drop by each of `RESET_FACTORS`."""
    config = replace(
        RESET_SETTING, momentum=momentum, device=device,
        learning_rate=RESET_SETTING.learning_rate * (1 - momentum),
    )  # fmt: skip
    data = load_digits()
    return tuple(
        angles_around_drop(replace(config, seed=seed), data, RESET_FACTORS, BEFORE, AFTER)
        for seed in seeds
    )


@claim(
    id="reset-networks",
    place="Abstract; Section 3, p. 3606, P2",
    title="On a network the angle resets after a drop",
    statement="After the drop, the angular velocity “resets” and follows the pattern again, "
    "increasing until saturation.",
    kind=Kind.EMPIRICAL,
    hypotheses="64-64-10 network on digits, mini-batches of 64 drawn independently, window 6; one "
    "drop after 60 epochs at α = 0.4 (momentum 0.9: 0.04), against the same run without a drop",
    expected=Verdict.REFUTED,
)
def reset_networks(context: Context) -> Outcome:
    evidence = Evidence()
    seeds = tuple(100 + 10 * context.seed + i for i in range(context.pick(2, 6)))
    rows, change = [], {}
    for momentum in (0.0, 0.9):
        found = resets(seeds, momentum, context.device)
        means = np.array(
            [[np.mean(a.after[2 : 2 + SETTLED]) for a in of_seed] for of_seed in found]
        )
        change[momentum] = means[:, 1:] - means[:, :1]
        evidence.exact(
            f"momentum {momentum:g}: before the drop all runs have the same angles",
            [len({a.before for a in of_seed}) for of_seed in found], [1] * len(seeds),
        )  # fmt: skip
        evidence.at_most(
            f"momentum {momentum:g}: change by ρ = 0.95 (degrees)",
            np.abs(change[momentum][:, 0]), 4.0,
        )  # fmt: skip
        evidence.at_most(
            f"momentum {momentum:g}: change by ρ = 0.1 (degrees)", change[momentum][:, -1], -4.0
        )
        evidence.at_least(f"momentum {momentum:g}: the angle stays above (degrees)", means, 20.0)
        rows.append((f"{momentum:g}", *means.mean(axis=0).round(1).tolist()))
        by = dict(zip(RESET_FACTORS[1:], change[momentum].mean(axis=0).round(1), strict=True))
        evidence.route(
            f"paired runs, momentum {momentum:g}",
            "change of the angle " + ", ".join(f"{x:+.1f}° at ρ = {ρ:g}" for ρ, x in by.items()),
        )
    evidence.at_most(
        "ρ = 0.1: with momentum the fall is deeper",
        change[0.9][:, -1].mean() - change[0.0][:, -1].mean(), -5.0,
    )  # fmt: skip
    evidence.table(
        f"Mean angle (degrees) of {SETTLED} windows after a drop, past the two that straddle it",
        ["momentum", "no drop", *(f"ρ = {ρ:g}" for ρ in RESET_FACTORS[1:])], rows,
    )  # fmt: skip
    default = float(np.abs(np.concatenate([c[:, 0] for c in change.values()])).max())
    return evidence.outcome(
        Verdict.REFUTED,
        f"At the default ρ = 0.95 a drop changes the mean angle of the next {SETTLED} windows by "
        f"{default:.1f}° at most, where single angles scatter by several degrees; at ρ = 0.1 it "
        f"falls by {-change[0.0][:, -1].mean():.0f}°, with momentum by "
        f"{-change[0.9][:, -1].mean():.0f}°, and not to 0.",
        cases=2 * len(seeds) * (len(RESET_FACTORS) - 1),
        correction="A drop by a small factor lowers the angle for a while, the more so with "
        "momentum; one by 0.95 does not show.",
        counterexample=(
            "from dataclasses import replace\n"
            "import numpy as np\n"
            "from paper_checks.training import load_digits\n"
            "from paper_checks.training.fixed_rates import SETTING\n"
            "from paper_checks.training.reset import angles_around_drop\n"
            'setting = replace(SETTING, learning_rate=0.4, window=6, sampling="independent")\n'
            "none, drop = angles_around_drop(setting, load_digits(), (1.0, 0.95), 60, 10)\n"
            "assert abs(np.mean(drop.after[2:]) - np.mean(none.after[2:])) < 4  # degrees"
        ),
    )


TASKS_IN_WORDS = (
    "four tasks on scikit-learn's digits with images moved by a pixel (MLP over 200 and 50 epochs, "
    "CNN over 50, MLP with AdamW over 100), tuned on validation sets, 6 to 10 seeds, paired 95 % "
    "intervals for all rivals together; PROTOCOL.md"
)
# In words what the protocol's decision leaves out; the numbers are in the tables beside it.
CORRECTIONS = {
    "generalization": (
        "Over 50 epochs AutoDrop is better than the constant rate on the MLP, by the intervals, "
        "and on neither network told apart from the best. Over 200 epochs its rate has fallen to "
        "nothing long before the end. At 0.05, which tuning chose for it, eight of ten rivals end "
        "lower; 0.1 had as many wrong on the validation sets (46 of 807), and there three do "
        "(OneCycleLR, ReduceLROnPlateau, schedule-free), or two where nothing is tuned. At their "
        "best rates schedule-free, linear decay and OneCycleLR have the lower mean on every task."
    ),
    "acceleration": (
        "At the first guess of the rate AutoDrop's curve is below the constant rate's on the three "
        "SGD tasks, and not told apart from MultiStepLR's. With AdamW MultiStepLR is faster, by a "
        "little at the best rates, and at the first guess the constant rate is as well; with SGD "
        "over 200 epochs MultiStepLR is at the rate that tuning chose for AutoDrop. The drops come "
        "by the number of windows, whatever the rate needs."
    ),
    "tuning": (
        "ρ and the window set the length of what is nearly a geometric schedule, and have to fit "
        "the budget."
    ),
}
READ = (
    "from paper_checks.training import decide\n"
    "from paper_checks.training.results import Results\n"
    "results = Results.load()  # a slice of it is made again in this claim\n"
)
COUNTEREXAMPLES = {
    "generalization": READ
    + (
        "lows = [c.interval.low  # at the rate that tuning chose, and at the customary one\n"
        "    for ours in ('rate', 'guess') for c in decide.comparisons(results, 'mlp', own=ours)\n"
        "    if c.rival == 'onecycle']\n"
        "assert min(lows) > 0  # points of test error"
    ),
    "acceleration": READ
    + (
        "found = decide.comparisons(results, 'mlp-adamw', 'rate', decide.area)\n"
        "low = {c.rival: c.interval.low for c in found}\n"
        "assert low['multistep'] > 0  # points of mean test error"
    ),
    "tuning": READ
    + (
        "worst = max(decide.regret(results, task).low for task in ('mlp', 'mlp-short'))\n"
        "assert worst > decide.MARGIN  # points of test error"
    ),
}
OPEN = "the intervals neither exclude nor establish it on all tasks"
VERDICTS = {
    Decision.HOLDS: Verdict.HOLDS,
    Decision.REFUTED: Verdict.REFUTED,
    Decision.UNDECIDED: Verdict.UNDECIDED,
}


def evidence_of(
    context: Context, results: Results, arm: Arm, measure: Callable[[Curve], float]
) -> Evidence:
    """Tables of the comparison, a slice made again, and the intervals by another route."""
    evidence = Evidence()
    slices: list[tuple[str, Sequence[str], int]]
    slices = [("mlp-short", ("autodrop", "constant", "linear"), 2)]
    if context.level == "full":
        slices = [("mlp-short", results.schedules("mlp-short"), 3), ("cnn", ("autodrop",), 2)]
    runs = [
        run
        for task, schedules, seeds in slices
        for run in slice_of(results, task, [s for s in schedules if s in installed()], arm, seeds)
    ]
    compare_slice(evidence, results, runs)
    second = _second_route(evidence, results, arm, measure)
    evidence.route("committed results, the protocol's intervals", f"{second} comparisons")
    for task in results.tasks:
        evidence.table(
            results.label(task),
            tables.COMPARED,
            tables.compared(decide.comparisons(results, task, arm, measure)),
        )
    return evidence


def installed() -> tuple[str, ...]:
    """Schedules that can be run here."""
    missing = unavailable()
    return tuple(name for name in SCHEDULES if name not in missing)


def _second_route(
    evidence: Evidence, results: Results, arm: Arm, measure: Callable[[Curve], float]
) -> int:
    """All intervals again from SciPy's paired t test, seed by seed; how many there are."""
    from scipy import stats

    got, want = [], []
    for task in results.tasks:
        found = decide.comparisons(results, task, arm, measure)
        ours = _by_seed(results, task, decide.OURS, arm, measure)
        for c in found:
            theirs = _by_seed(results, task, c.rival, arm, measure)
            seeds = sorted(ours)
            test = stats.ttest_rel([ours[s] for s in seeds], [theirs[s] for s in seeds])
            interval = test.confidence_interval(1 - 0.05 / len(found))
            got += [c.interval.low, c.interval.high]
            want += [interval.low, interval.high]
    evidence.equal(
        "intervals against SciPy's paired t test, points", got, want, 1e-9, source="rounding"
    )
    return len(got) // 2


def _by_seed(
    results: Results, task: str, name: str, arm: Arm, measure: Callable[[Curve], float]
) -> dict[int, float]:
    chosen = decide.choice(results, task, name, arm)
    return {r.seed: measure(r.curve) for r in results.runs(task, chosen.variant, chosen.rate)}


@claim(
    id="better-generalization",
    place="Section 6.1, p. 3611; abstract",
    title="At its defaults AutoDrop ends at a lower test error than the other schedules",
    statement=(
        "AutoDrop matches the SOTA baseline (step-wise drops at epochs chosen by hand) and is "
        "superior to the other schedules in its final test error."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=TASKS_IN_WORDS + "; every schedule at its best rate",
    expected=Verdict.REFUTED,
)
def better_generalization(context: Context) -> Outcome:
    results = committed()
    evidence = evidence_of(context, results, "rate", decide.final)
    decisions = {task: decide.generalization(results, task) for task in results.tasks}
    _numbers(evidence, results, decisions)
    _other_arms(evidence, results, decide.final, decide.generalization)
    for arm, title in tables.SANITY.items():
        evidence.table(f"{title}; (!): by more than {MARGIN} points", *tables.sanity(results, arm))
    evidence.figure(
        "AutoDrop and its rivals on digits",
        "Left: mean test error over the epochs, each schedule at the rate that its validation "
        "error chose. Right: final test error of AutoDrop minus that of each rival, with 95 % "
        "intervals for all rivals together; red: the rival is better.",
        comparison_figure.comparison(results),
    )
    found = {task: decide.comparisons(results, task) for task in results.tasks}
    behind = {
        results.label(task): [SCHEDULES[c.rival].label for c in several if c.interval.above()]
        for task, several in found.items()
    }
    ahead = {
        results.label(task): [SCHEDULES[c.rival].label for c in several if c.interval.below()]
        for task, several in found.items()
    }
    decision = decide.overall(list(decisions.values()))
    return evidence.outcome(
        VERDICTS[decision],
        f"By task: {_listed(decisions, results)}. Better than AutoDrop by the intervals: "
        f"{_named(behind)}; worse: {_named(ahead)}.",
        cases=sum(len(several) for several in found.values()),
        correction=CORRECTIONS["generalization"],
        counterexample=COUNTEREXAMPLES["generalization"],
        reason=OPEN if decision is Decision.UNDECIDED else None,
    )


@claim(
    id="accelerates-training",
    place="Section 6.1, p. 3611; Table 16; abstract",
    title="AutoDrop accelerates training",
    statement=(
        "AutoDrop converges faster than the SOTA baseline and than the constant rate: its test "
        "error, averaged over the epochs, is lower."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=TASKS_IN_WORDS + "; every schedule at its best rate",
    expected=Verdict.REFUTED,
)
def accelerates_training(context: Context) -> Outcome:
    results = committed()
    evidence = evidence_of(context, results, "rate", decide.area)
    decisions = {task: decide.acceleration(results, task) for task in results.tasks}
    _numbers(evidence, results, decisions)
    _other_arms(evidence, results, decide.area, decide.acceleration)
    for task in results.tasks:
        evidence.table(
            f"{results.label(task)}: mean test error (%) over the budget; target "
            f"{decide.target(results, task):.2f} %",
            tables.CURVES, tables.curves(results, task),
        )  # fmt: skip
    gaps = {
        task: {
            c.rival: c.interval
            for c in decide.comparisons(results, task, "rate", decide.area)
            if c.rival in (decide.BASELINE, decide.CONSTANT)
        }
        for task in results.tasks
    }
    words = "; ".join(
        f"{results.label(task)}: {of[decide.BASELINE].mean:+.2f} points against MultiStepLR, "
        f"{of[decide.CONSTANT].mean:+.2f} against the constant rate"
        for task, of in gaps.items()
    )
    decision = decide.overall(list(decisions.values()))
    return evidence.outcome(
        VERDICTS[decision],
        f"By task: {_listed(decisions, results)}. Area under the test-error curve, AutoDrop minus "
        f"the rival: {words}.",
        cases=2 * len(gaps),
        correction=CORRECTIONS["acceleration"],
        counterexample=COUNTEREXAMPLES["acceleration"],
        reason=OPEN if decision is Decision.UNDECIDED else None,
    )


@claim(
    id="no-extra-tuning",
    place="Section 4.1, p. 3608; abstract",
    title="AutoDrop needs no tuning: its defaults are as good as tuned ones",
    statement=(
        "AutoDrop's hyper-parameters are kept fixed across experiments: at ρ = 0.95, m = 10, the "
        "recommended window and the customary first rate it loses no more than half a point "
        "against itself with rate and ρ tuned."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses="the MLP on digits over 200 and over 50 epochs; ρ ∈ {0.5, 0.8, 0.9, 0.95, 0.99} and "
    "the rate tuned on validation sets; 8 and 10 seeds, paired 95 % intervals; PROTOCOL.md",
    expected=Verdict.UNDECIDED,
)
def no_extra_tuning(context: Context) -> Outcome:
    results = committed()
    evidence = evidence_of(context, results, "guess", decide.final)
    tasks = [t for t in results.tasks if results.choice(t, decide.OURS, "factor") is not None]
    decisions = {task: decide.no_tuning(results, task) for task in tasks}
    _numbers(evidence, results, decisions)
    words = []
    for task in tasks:
        interval = decide.regret(results, task)
        tuned = decide.choice(results, task, decide.OURS, "factor")
        factor = 0.95 if tuned.variant.factor is None else tuned.variant.factor
        words.append(
            f"{results.label(task)}: {interval.mean:+.2f} points ({interval.low:+.2f} to "
            f"{interval.high:+.2f}) against ρ = {factor:g} at α = {tuned.rate:g}"
        )
        evidence.table(
            f"{results.label(task)}: test error at the first guess minus tuned, points",
            ["schedule", "mean", "interval"],
            [
                (SCHEDULES[name].label, f"{i.mean:+.2f}", f"{i.low:+.2f} to {i.high:+.2f}")
                for name, i in decide.regrets(results, task).items()
            ],
        )
    evidence.table(
        "Ablation on the MLP over 200 epochs at the first guess of the rate (as Tables 7–15)",
        ["setting", "test error, %", "change", "interval"], tables.ablation(results, "mlp"),
    )  # fmt: skip
    decision = decide.overall(list(decisions.values()))
    adamw = decide.regrets(results, "mlp-adamw")[decide.OURS]
    return evidence.outcome(
        VERDICTS[decision],
        f"By task: {_listed(decisions, results)}. Regret of the defaults: {'; '.join(words)}. "
        "Beside the protocol's question: with AdamW at the customary 0.001 it is "
        f"{adamw.mean:+.1f} points against AutoDrop at its best rate, since the rate "
        "falls before the network is trained.",
        cases=len(tasks),
        correction=CORRECTIONS["tuning"],
        counterexample=COUNTEREXAMPLES["tuning"] if decision is Decision.REFUTED else None,
        reason=None
        if decision is not Decision.UNDECIDED
        else (
            f"the interval of the regret neither excludes nor establishes {MARGIN} points on every "
            f"task; it would take {_seeds_words(results, tasks)}"
        ),
    )


@claim(
    id="cifar-training",
    place="Tables 2 and 16, p. 3611 and 3628",
    title="The same on CIFAR-10 with ResNet-18",
    statement="On ResNet18/CIFAR10 over 200 epochs AutoDrop ends at 4.79 %, as the SOTA baseline.",
    kind=Kind.EMPIRICAL,
    hypotheses="ResNet-18 in CIFAR form, SGD with Nesterov momentum, 200 epochs; the toolkit's "
    "protocol, on a GPU",
    expected=Verdict.UNDECIDED,
)
def cifar_training(context: Context) -> Outcome:
    evidence = Evidence()
    task = named("cifar-resnet18")
    rivals = len(plan.schedules_of(task)) - len(decide.OWN)
    # Table 2's deviations: the SOTA baseline's 0.17, taken as that of both members of a pair.
    deviation = math.sqrt(2) * TABLE_2["ResNet18, CIFAR10"]["SOTA"][1]
    needed = seeds_needed(deviation, rivals)
    evidence.exact("seeds by simulation", simulated_seeds(context, deviation, rivals), needed)
    evidence.at_least("more seeds than the four of the paper", needed, 5)
    evidence.route("t quantiles", f"half-width {MARGIN} at {needed} seeds")
    evidence.route("simulated seeds", "the same number from drawn deviations")
    schedules = rivals + len(decide.OWN)
    part = Results.load(SLICE)
    arms: dict[Arm, str] = {"rate": "its best rate", "guess": "the first guess of the rate"}
    for arm, words in arms.items():
        evidence.table(
            "Beside it, read and not made again, as the data are not here: a small CNN on 10 000 "
            f"images of CIFAR-10, 20 epochs on a CPU, every schedule at {words}",
            tables.COMPARED,
            tables.compared(decide.comparisons(part, "cifar-cnn", arm)),
        )
    # To tune; and to test at the best rate, and at the first guess where that is another one.
    least, most = (schedules * (len(task.rates) * task.tuning + n * needed) for n in (1, 2))
    evidence.number("runs of 200 epochs, if no ladder is climbed", f"{least} to {most}")
    return evidence.outcome(
        Verdict.UNDECIDED,
        "Not run here: it takes a GPU. The protocol, the commands and the resumable sweep are "
        "ready; a small network has run on a slice of CIFAR-10 on a CPU, see below.",
        cases=0,
        reason=(
            f"no GPU at hand. What it would take: {needed} seeds for each of {schedules} schedules "
            f"and three rates or more to tune with, {least} to {most} runs of 200 epochs or more, "
            f"for intervals of ± {MARGIN} points "
            "with deviations as in Table 2: python -m paper_checks.training.sweep "
            "--task cifar-resnet18 --data cifar10.npz --device cuda --precision bfloat16 "
            f"--seeds {needed} --minutes 10, again until it is done"
        ),
    )


def seeds_needed(deviation: float, comparisons: int) -> int:
    """The least number of seeds with a half-width of at most `MARGIN`, Bonferroni included."""
    from scipy import stats

    for n in range(2, 1000):
        t = stats.t.ppf(1 - 0.05 / (2 * comparisons), n - 1)
        if t * deviation / math.sqrt(n) <= MARGIN:
            return n
    raise ValueError(f"deviation must need fewer than 1000 seeds, got {deviation}")


def simulated_seeds(context: Context, deviation: float, comparisons: int) -> int:
    """The same from 2·10⁶ drawn t statistics: the quantile's error is about 1 % at 4 seeds on.

    The half-widths of successive numbers of seeds differ by 10 % and more where it is used.
    """
    rng, draws = context.rng("cifar-training"), 2_000_000
    for n in range(3, 60):
        z, chi = rng.standard_normal(draws), rng.chisquare(n - 1, draws)
        t = np.quantile(np.abs(z) / np.sqrt(chi / (n - 1)), 1 - 0.05 / comparisons)
        if t * deviation / math.sqrt(n) <= MARGIN:
            return n
    raise ValueError(f"deviation must need fewer than 60 seeds, got {deviation}")


def seeds_to_decide(interval: Interval) -> int | None:
    """Seeds at which the interval would leave out `MARGIN`, were mean and deviation as they are.

    None if more than 1000.
    """
    from scipy import stats

    deviation = (interval.high - interval.mean) * math.sqrt(interval.n)
    deviation /= float(stats.t.ppf(0.975, interval.n - 1))
    for n in range(interval.n, 1001):
        half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
        if half < abs(interval.mean - MARGIN):
            return n
    return None


def _seeds_words(results: Results, tasks: Sequence[str]) -> str:
    """For each undecided task, how many seeds it would take."""
    words = []
    for task in tasks:
        if decide.no_tuning(results, task) is Decision.UNDECIDED:
            n = seeds_to_decide(decide.regret(results, task))
            words.append(f"{'over 1000' if n is None else f'about {n}'} on {results.label(task)}")
    return " and ".join(words) + " in place of those run"


def _numbers(evidence: Evidence, results: Results, decisions: Mapping[str, Decision]) -> None:
    for task, decision in decisions.items():
        evidence.number(f"{results.label(task)}", str(decision))


# AutoDrop's arm and the rivals', beside those of the protocol: how much hangs on AutoDrop's rate.
OTHER_ARMS: dict[tuple[Arm, Arm], str] = {
    ("guess", "guess"): "nothing tuned, every schedule at the first guess of the rate",
    ("guess", "rate"): "AutoDrop at the first guess of the rate, the rivals at their best",
}


def _other_arms(
    evidence: Evidence,
    results: Results,
    measure: Callable[[Curve], float],
    decision: Callable[[Results, str, Arm, Arm], Decision],
) -> None:
    """The same in other arms, which decides nothing."""
    for task in results.tasks:
        for (own, arm), words in OTHER_ARMS.items():
            label = f"{results.label(task)}: {words}"
            evidence.number(label, decision(results, task, arm, own))
            evidence.table(
                label,
                tables.COMPARED,
                tables.compared(decide.comparisons(results, task, arm, measure, own)),
            )


def _listed(decisions: Mapping[str, Decision], results: Results) -> str:
    return "; ".join(f"{results.label(task)}: {decision}" for task, decision in decisions.items())


def _named(by_task: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{task}: {', '.join(names) or 'none'}" for task, names in by_task.items())
