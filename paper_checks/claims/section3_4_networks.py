"""Section 3: the pattern of Figure 3 on a real network and real data."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from paper_checks.training import Record, angle_at_fixed_rates
from paper_checks.training.config import SamplingName
from paper_checks.training.figure import fixed_rates_figure
from paper_checks.training.fixed_rates import RATES, SETTING, epochs_to, level

Runs = tuple[tuple[Record, ...], ...]
SETTING_IN_WORDS = (
    "a 64-64-10 network on scikit-learn's digits, plain SGD, mini-batches of 64, weight decay "
    "0.02, 200 epochs, window one epoch, α = 0.4, 0.2, 0.1"
)


@lru_cache(maxsize=4)
def runs(seeds: tuple[int, ...], sampling: SamplingName, device: str) -> Runs:
    """For each seed, one record at each rate of `RATES`."""
    config = replace(SETTING, sampling=sampling, device=device)
    return tuple(angle_at_fixed_rates(config=config, seed=seed) for seed in seeds)


def _seeds(context: Context) -> tuple[int, ...]:
    """Seeds that the setting was not chosen with (those were 0 to 4)."""
    return tuple(100 + 10 * context.seed + i for i in range(context.pick(2, 8)))


def _levels(records: Runs) -> np.ndarray:
    """(seeds, rates), degrees: mean angle of the last quarter of the run."""
    return np.array([[level(record) for record in of_seed] for of_seed in records])


@claim(
    id="figure-3-rise",
    place="Figure 3, p. 3606; P1",
    title="On a network the angle rises and saturates, sooner at larger rates",
    statement=(
        "In deep learning, too, the batch angular velocity at a fixed rate rises rapidly and then "
        "saturates, and smaller rates saturate more slowly."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=SETTING_IN_WORDS,
    expected=Verdict.HOLDS,
)
def figure_3_rise(context: Context) -> Outcome:
    evidence = Evidence()
    seeds = _seeds(context)
    samplings: tuple[SamplingName, ...] = ("shuffled", "independent")
    for sampling in samplings:
        records = runs(seeds, sampling, context.device)
        begin = np.array([[np.mean(r.angles[:5]) for r in of_seed] for of_seed in records])
        third = np.array([[level(r, 3) for r in of_seed] for of_seed in records])
        late = _levels(records)
        times = np.array([[epochs_to(r, 75.0) for r in of_seed] for of_seed in records])
        evidence.at_most(f"{sampling}: first five angles, mean (degrees)", begin, 45.0)
        evidence.at_least(f"{sampling}: level (degrees)", late, 80.0)
        evidence.at_most(
            f"{sampling}: change from the third to the fourth quarter, mean over seeds",
            np.abs((late - third).mean(axis=0)), 5.0,
        )  # fmt: skip
        evidence.at_least(
            f"{sampling}: each halving of α delays 75° by half at least",
            times[:, 1:], 1.5 * times[:, :-1],
        )  # fmt: skip
        evidence.route(
            f"{sampling} mini-batches",
            f"75° after {times.mean(axis=0).round(1).tolist()} epochs at α = {list(RATES)}",
        )
    records = runs(seeds, "shuffled", context.device)
    evidence.figure(
        "Figure 3's pattern on digits",
        "Training loss and angle (running mean, band: four fifths of the windows) at three "
        "constant rates. The angle rises and saturates; dotted: 90° and 120°.",
        fixed_rates_figure(records[0]),
    )
    return evidence.outcome(
        Verdict.HOLDS,
        f"Seen in all {2 * len(seeds) * len(RATES)} runs, with both ways to draw mini-batches. The "
        "thresholds were fixed before, the seeds are not those of the exploration.",
        cases=2 * len(seeds) * len(RATES),
    )


@claim(
    id="figure-3-levels",
    place="Section 3, p. 3606–3607, Figure 3",
    title="On a network the levels are ordered by the rate and lie in [90°, 120°]",
    statement=(
        "For deep networks larger rates saturate at higher levels, and the levels adhere to the "
        "range [90°, 120°]; that they stay above 90° is due to non-convexity."
    ),
    kind=Kind.EMPIRICAL,
    hypotheses=SETTING_IN_WORDS,
    expected=Verdict.CORRECTED,
)
def figure_3_levels(context: Context) -> Outcome:
    evidence = Evidence()
    seeds = _seeds(context)
    shuffled = _levels(runs(seeds, "shuffled", context.device))
    independent = _levels(runs(seeds, "independent", context.device))
    evidence.at_most(
        "independent draws: the level falls with α, mean over seeds",
        np.diff(independent.mean(axis=0)), -0.5,
    )  # fmt: skip
    evidence.at_most(
        "shuffled epochs: the largest rate is below the middle one, every seed",
        shuffled[:, 0] - shuffled[:, 1], 0.0,
    )  # fmt: skip
    evidence.at_least(
        "shuffled epochs are far higher than independent draws, every run",
        shuffled - independent, 10.0,
    )  # fmt: skip
    evidence.at_least(
        "all levels ≥ 75.5°, the window law's lower end", [shuffled, independent], 75.5
    )
    evidence.at_most("all levels ≤ 120°", [shuffled, independent], 120.0)
    evidence.at_most(
        "independent draws, α = 0.1: within 5° of 90° or below", independent[:, 2], 95.0
    )
    for name, levels in (("shuffled epochs", shuffled), ("independent draws", independent)):
        means = ", ".join(f"{x:.1f}°" for x in levels.mean(axis=0))
        evidence.route(name, f"mean levels {means} at α = {list(RATES)}, {len(seeds)} seeds")
    evidence.table(
        "Saturation level (degrees), mean over seeds",
        ["mini-batches", *(f"α = {rate}" for rate in RATES)],
        [
            ("shuffled epochs", *shuffled.mean(axis=0).round(1)),
            ("independent draws", *independent.mean(axis=0).round(1)),
        ],
    )
    evidence.figure(
        "The same network, mini-batches drawn independently",
        "As in the previous claim, but every sample of a mini-batch is drawn anew: the noise of "
        "the theory. The levels are lower by some 20° and ordered by the rate.",
        fixed_rates_figure(runs(seeds, "independent", context.device)[0]),
    )
    low = independent.mean(axis=0)[-1]
    return evidence.outcome(
        Verdict.CORRECTED,
        "What sets the level on this network is how mini-batches are drawn, not convexity: with "
        f"independent draws it falls with α, to {low:.1f}° at α = 0.1; with shuffled epochs the "
        "noise of an epoch nearly cancels, the epoch means are nearly independent, and the level "
        "lies around 115° with the order broken. What is missing is a hypothesis.",
        cases=2 * len(seeds) * len(RATES),
        correction=(
            "Ordered by the rate when mini-batches are drawn independently; the range is then the "
            "window law's, [75.5°, 120°]. With shuffled epochs and a window of one epoch the level "
            "is near 120° (independent means have steps at cosine −½) and says little about α."
        ),
    )
