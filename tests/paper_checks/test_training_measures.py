"""Measures of a curve, paired intervals, and the protocol's decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from paper_checks.training import decide
from paper_checks.training.decide import Decision
from paper_checks.training.measures import Curve, counts_of, final_error
from paper_checks.training.paired import Interval, difference
from paper_checks.training.results import Results


def test_a_curve_by_hand() -> None:
    counts = [50, 40, 42, 30, 30, 31, 20, 25]
    curve = Curve.of_counts(counts, 200, 8)
    assert [curve.at(part) for part in (0.25, 0.5, 0.75, 1.0)] == [20.0, 15.0, 15.5, 12.5]
    assert curve.final == 12.5
    assert curve.least == 10.0
    assert curve.area == 100 * sum(counts) / 8 / 200
    assert [curve.epochs_to(x) for x in (25, 24.9, 20, 15, 12, 10, 9.9)] == [1, 2, 2, 4, 7, 7, 8]
    assert Curve.from_list(curve.as_list(), 200, 8) == curve


def test_what_is_kept_of_a_long_curve() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 700, 200).tolist()
    curve = Curve.of_counts(counts, 719, 200)
    assert len(curve.points) == 20
    assert all(counts[epoch - 1] == wrong for epoch, wrong in curve.points)
    for target in (90.0, 50.0, 10.0, 1.0):
        first = next((i for i, c in enumerate(counts, 1) if 100 * c / 719 <= target), 200)
        assert curve.epochs_to(target) == first


def test_a_diverged_run_counts_as_chance() -> None:
    curve = Curve.of_counts([100, 80], 200, 4)
    assert (curve.final, curve.area) == (90.0, 100 * (100 + 80 + 180 + 180) / 800)
    assert Curve.of_counts([], 200, 4).least == 90.0


def test_curves_refuse() -> None:
    with pytest.raises(ValueError, match="at most one an epoch, got 3 for 2"):
        Curve.of_counts([1, 2, 3], 10, 2)
    with pytest.raises(ValueError, match=r"counts must be in \[0, 10\]"):
        Curve.of_counts([11], 10, 2)


def test_counts_from_accuracies() -> None:
    for of in (3, 719, 10_000):
        wrong = range(0, of + 1, max(1, of // 500))
        assert counts_of([(of - w) / of for w in wrong], of) == list(wrong)


def test_the_final_error_of_a_run_that_was_evaluated_at_its_end_only() -> None:
    assert final_error([0.9, 0.95], 200, False) == pytest.approx(5.0, rel=1e-12)
    assert final_error([0.9], 200, True) == final_error([], 200, True) == 90.0


def test_interval_is_scipys() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=(2, 9))
    got = difference(ours.tolist(), theirs.tolist())
    want = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-12)
    several = difference(ours.tolist(), theirs.tolist(), comparisons=10)
    want = stats.ttest_rel(ours, theirs).confidence_interval(0.995)
    assert (several.low, several.high) == pytest.approx((want.low, want.high), rel=1e-12)


def test_intervals_cover_together() -> None:
    """Ten comparisons, 8 seeds, 4000 repetitions, no true difference.

    The number of repetitions without a miss is then binomial with at least 95 %; 3700 of 4000 is
    7 standard deviations below (false alarm < 1e-11). Without Bonferroni it is about 60 %.
    """
    rng = np.random.default_rng(2)
    kept = {10: 0, 1: 0}
    for _ in range(4000):
        runs = rng.normal(size=(11, 8))
        for comparisons in kept:
            found = [difference(runs[0], other, comparisons) for other in runs[1:]]
            kept[comparisons] += all(i.low <= 0 <= i.high for i in found)
    assert kept[10] >= 3700
    assert kept[1] < 3700  # negative control


def test_pairing_matters() -> None:
    """Negative control: seeds that differ by much hide what an unpaired interval would miss."""
    seeds = np.arange(8.0)
    ours, theirs = seeds, seeds + 0.3 + 0.01 * np.sin(seeds)
    assert difference(ours, theirs).below()
    assert not difference(ours, theirs[::-1]).below()


def test_differences_refuse() -> None:
    with pytest.raises(ValueError, match="at least 2 of them, got 1 and 1"):
        difference([1.0], [2.0])
    with pytest.raises(ValueError, match="got 2 and 3"):
        difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="comparisons must be >= 1, got 0"):
        difference([1.0, 2.0], [1.0, 2.0], 0)


def results(errors: Mapping[str, Mapping[str, Sequence[int]]], epochs: int = 4) -> Results:
    """Of one task, "task": {schedule: {arm: wrong of 1000 at the end, by seed}}; before it 500."""
    choices: dict[str, Any] = {}
    runs = []
    for name, arms in errors.items():
        choices[name] = {}
        for number, (arm, finals) in enumerate(arms.items()):
            rate = 0.1 * (number + 1)
            variant = {"schedule": name, "settings": [], "factor": None, "window": None}
            choices[name][arm] = {"variant": variant, "rate": rate, "at_end": False}
            for seed, wrong in enumerate(finals):
                curve = Curve.of_counts([500, 500, 500, wrong], 1000, epochs)
                runs.append([name, rate, seed, curve.as_list(), 0, rate, None, 1.0, ""])
    task = {"epochs": epochs, "test": 1000, "choices": choices, "runs": runs, "tuning": []}
    return Results({"format": 1, "tasks": {"task": task}})


def one_arm(**finals: Sequence[int]) -> Results:
    return results({name.replace("_", "-"): {"rate": wrong} for name, wrong in finals.items()})


SEEDS = [30, 35, 28, 33, 31, 40]


def plus(points: float) -> list[int]:
    """The seeds' errors, more by so many points, with some noise of the pairs."""
    return [round(w + 10 * points + noise) for w, noise in zip(SEEDS, (0, 1, -1, 1, 0, -1))]  # noqa: B905


@pytest.mark.parametrize(
    ("constant", "multistep", "cosine", "decision"),
    [
        (2.0, 2.0, 2.0, Decision.HOLDS),
        (2.0, 0.0, 2.0, Decision.HOLDS),  # the baseline need only be matched
        (2.0, -0.2, 2.0, Decision.HOLDS),
        (2.0, -0.5, 2.0, Decision.UNDECIDED),
        (2.0, -1.0, 2.0, Decision.REFUTED),
        (2.0, 0.0, 0.0, Decision.UNDECIDED),
        (2.0, 0.0, -1.0, Decision.REFUTED),
        (-1.0, 2.0, 2.0, Decision.REFUTED),
    ],
)
def test_generalization(
    constant: float, multistep: float, cosine: float, decision: Decision
) -> None:
    found = one_arm(
        autodrop=SEEDS, constant=plus(constant), multistep=plus(multistep), cosine=plus(cosine)
    )
    assert decide.generalization(found, "task") is decision


@pytest.mark.parametrize(
    ("constant", "multistep", "decision"),
    [
        (2.0, 2.0, Decision.HOLDS),
        (2.0, 0.0, Decision.UNDECIDED),
        (-2.0, 2.0, Decision.REFUTED),
        (2.0, -2.0, Decision.REFUTED),
    ],
)
def test_acceleration(constant: float, multistep: float, decision: Decision) -> None:
    found = one_arm(
        autodrop=SEEDS, constant=plus(constant), multistep=plus(multistep), cosine=plus(-2.5)
    )
    assert decide.acceleration(found, "task") is decision


@pytest.mark.parametrize(
    ("tuned", "decision"),
    [(0.0, Decision.HOLDS), (-0.5, Decision.UNDECIDED), (-1.5, Decision.REFUTED)],
)
def test_no_tuning(tuned: float, decision: Decision) -> None:
    found = results(
        {
            "autodrop": {"guess": SEEDS, "rate": SEEDS, "factor": plus(tuned)},
            "constant": {"guess": plus(3), "rate": plus(1)},
        }
    )
    assert decide.no_tuning(found, "task") is decision
    assert decide.regret(found, "task").mean == pytest.approx(-tuned, abs=0.1)
    regrets = decide.regrets(found, "task")
    assert regrets["constant"].mean == pytest.approx(2.0, abs=0.1)


def test_swapped_labels_are_seen() -> None:
    """Negative control: with the labels of two schedules exchanged the decision turns."""
    good, bad = SEEDS, plus(2)
    right = one_arm(autodrop=good, constant=bad, multistep=bad, cosine=bad)
    swapped = one_arm(autodrop=bad, constant=bad, multistep=bad, cosine=good)
    assert decide.generalization(right, "task") is Decision.HOLDS
    assert decide.generalization(swapped, "task") is Decision.REFUTED


def test_other_forms_of_autodrop_are_no_rivals() -> None:
    found = one_arm(
        autodrop=SEEDS, autodrop_64=plus(-2.5), autodrop_arxiv=plus(-2.5),
        constant=plus(2), multistep=plus(2),
    )  # fmt: skip
    assert decide.rivals(found, "task") == ("constant", "multistep")
    assert decide.generalization(found, "task") is Decision.HOLDS


def test_a_crippled_rival_is_marked() -> None:
    found = one_arm(autodrop=SEEDS, constant=plus(1), multistep=plus(0), cosine=plus(4))
    assert decide.crippled(found, "task") == ("cosine",)
    assert decide.target(found, "task") == pytest.approx(4.28, abs=0.1)


def test_a_rival_may_be_crippled_in_one_arm_only() -> None:
    found = results(
        {
            "autodrop": {"rate": SEEDS},
            "constant": {"rate": plus(1)},
            "multistep": {"rate": plus(3), "tuned": plus(0)},
        }
    )
    assert decide.crippled(found, "task") == ("multistep",)
    assert decide.crippled(found, "task", "tuned") == ()


def test_autodrop_in_an_arm_of_its_own() -> None:
    found = results(
        {
            "autodrop": {"rate": plus(2), "guess": plus(0)},
            "constant": {"rate": plus(1)},
            "multistep": {"rate": plus(1)},
        }
    )
    assert decide.generalization(found, "task") is Decision.REFUTED
    assert decide.generalization(found, "task", own="guess") is Decision.HOLDS
    assert decide.acceleration(found, "task") is Decision.REFUTED
    assert decide.acceleration(found, "task", own="guess") is Decision.HOLDS


def test_overall() -> None:
    holds, refuted, undecided = Decision.HOLDS, Decision.REFUTED, Decision.UNDECIDED
    assert decide.overall([holds, holds]) is holds
    assert decide.overall([holds, undecided]) is undecided
    assert decide.overall([holds, refuted, undecided]) is refuted
    with pytest.raises(ValueError, match="needs >= 1 task"):
        decide.overall([])


def test_bounds_are_strict() -> None:
    assert not Interval(0.0, 0.0, 0.0, 2).below()
    assert not Interval(0.0, 0.0, 0.0, 2).above()
    assert not Interval(math.nan, math.nan, math.nan, 2).below()


def test_runs_that_are_no_pairs_are_refused() -> None:
    """Negative control: the seeds of a rival shifted by one."""
    found = one_arm(autodrop=SEEDS, constant=plus(1), multistep=plus(0))
    for run in found.document["tasks"]["task"]["runs"]:
        run[2] += run[0] == "multistep"
    with pytest.raises(ValueError, match="runs of multistep on task must have seeds"):
        decide.comparisons(found, "task")
