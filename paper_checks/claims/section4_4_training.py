"""Section 4: Algorithm 1 schedules a real training run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paper_checks.claim import Context, Evidence, Kind, Outcome, Verdict, claim
from paper_checks.training import Config, Record, load_digits, resume_differences, train
from paper_checks.training.figure import training_figure


def replayed(record: Record) -> tuple[tuple[int, ...], float]:
    """Updates at which the pure rule drops on the recorded angles, and the final rate it gives."""
    rule = record.config.rule_for(record.epoch_length)
    state, rate, steps = rule.init(), record.config.learning_rate, []
    for step, angle in zip(record.angle_iterations, record.angles, strict=True):
        state, decision = rule.advance(state, np.radians(angle))
        if decision.drop:
            (rate,) = rule.policy.lowered((rate,))
            steps.append(step)
    return tuple(steps), rate


@claim(
    id="digits-training",
    place="Algorithm 1, p. 3607, on real data",
    title="AutoDrop schedules a training run, and resuming changes nothing",
    statement=(
        "AutoDrop drops the rate of a real training run by itself, by its rule alone; a run "
        "resumed from a checkpoint goes on bit by bit as one that was never stopped."
    ),
    kind=Kind.IDENTITY,
    hypotheses="64-64-10 network, scikit-learn's digits, SGD with momentum 0.9, window 8, ρ = 0.95",
    expected=Verdict.HOLDS,
)
def digits_training(context: Context) -> Outcome:
    evidence = Evidence()
    digits = load_digits()
    config = Config(
        epochs=context.pick(60, 200), seed=context.rng_seed("digits-training"),
        device=context.device,
    )  # fmt: skip
    autodrop = train(config, digits)
    constant = train(replace(config, schedule="constant"), digits)
    evidence.at_least("AutoDrop drops", len(autodrop.drops), 1)
    evidence.exact("the constant rate stays", constant.drops, ())
    first = autodrop.drops[0].step if autodrop.drops else autodrop.iterations
    before = sum(step <= first for step in autodrop.angle_iterations)
    evidence.exact(
        "until the first drop both runs have the same angles",
        autodrop.angles[:before], constant.angles[:before],
    )  # fmt: skip
    evidence.route("training", f"{len(autodrop.drops)} drops in {len(autodrop.angles)} windows")

    steps, rate = replayed(autodrop)
    evidence.exact(
        "replaying the angles gives the drops", steps, tuple(d.step for d in autodrop.drops)
    )
    evidence.exact("and the final learning rate", rate, autodrop.curves.learning_rate[-1])
    evidence.route("replay of the recorded angles", f"final rate {rate:.4g}")

    short = replace(config, epochs=4)
    length = 4 * autodrop.epoch_length
    stops = (1, autodrop.epoch_length, autodrop.epoch_length + 3, length // 2 + 5, length - 1)
    differences = resume_differences(short, digits, stops)
    changed = {stop: names for stop, names in differences.items() if names}
    evidence.exact("fields that resuming changes, by update", changed, {})
    evidence.route("resumed runs", f"resumed after {', '.join(map(str, stops))} updates")
    for name, record in (("AutoDrop", autodrop), ("constant rate", constant)):
        evidence.number(f"{name}: test accuracy (%)", 100 * record.curves.test_accuracy[-1])
        evidence.number(f"{name}: test loss", record.curves.test_loss[-1])
    gaps = np.diff([drop.window for drop in autodrop.drops])
    evidence.number("drops", len(autodrop.drops))
    evidence.number("mean number of windows between drops (least possible: 11)", gaps.mean())
    evidence.table(
        "The first drops",
        ["update", "window", "rate before", "rate after", "angle (degrees)"],
        [
            (d.step, d.window, f"{d.old_lr[0]:.5f}", f"{d.new_lr[0]:.5f}", f"{d.angle:.1f}")
            for d in autodrop.drops[:6]
        ],
    )
    evidence.figure(
        "AutoDrop beside the constant rate, on digits",
        "Loss, accuracy, angle and learning rate; one seed, which says nothing about which "
        "schedule is better.",
        training_figure(autodrop, constant),
    )
    return evidence.outcome(
        Verdict.HOLDS,
        f"{len(autodrop.drops)} drops in {len(autodrop.angles)} windows, all where the rule, "
        "replayed on the recorded angles, puts them. Resuming at five places, in the middle of "
        "windows and epochs, changes no bit of losses, angles, drops or weights.",
        cases=len(autodrop.angles) + len(stops),
    )
