"""The picture of a comparison: test error over the budget, and AutoDrop minus each rival."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from paper_checks import style
from paper_checks.training import decide
from paper_checks.training.plan import Arm
from paper_checks.training.results import Results
from paper_checks.training.schedules import SCHEDULES

# What the left panels show; the right ones show all rivals.
_SHOWN = {
    "autodrop": "blue",
    "constant": "grey",
    "multistep": "vermillion",
    "cosine": "green",
    "onecycle": "orange",
    "exponential": "purple",
    "schedule-free": "sky",
}


def comparison(results: Results) -> Figure:
    """A row a task: mean test-error curves at each schedule's best rate, and final differences."""
    tasks = results.tasks
    with style.applied():
        figure, axes = style.new_figure(
            len(tasks), 2, height=2.6 * len(tasks), squeeze=False, width_ratios=[1.25, 1]
        )
        for (left, right), task in zip(axes, tasks, strict=True):
            _curves(left, results, task)
            _differences(right, results, task)
        axes[-1][0].set_xlabel("epoch")
        axes[-1][1].set_xlabel("AutoDrop − rival (final, points)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def _curves(axis, results: Results, task: str) -> None:  # type: ignore[no-untyped-def]
    top = 0.0
    for name, colour in _SHOWN.items():
        if name not in results.schedules(task):
            continue
        epochs, errors = _mean_curve(results, task, name, "rate")
        top = max(top, float(errors[len(errors) // 4]))
        own = {"lw": 2.4, "zorder": 3} if name == decide.OURS else {"lw": 1.4}
        axis.plot(epochs, errors, color=style.PALETTE[colour], label=SCHEDULES[name].label, **own)
    untuned = _mean_curve(results, task, decide.OURS, "guess")
    axis.plot(*untuned, color=style.PALETTE["blue"], ls=":", lw=1.6, label="AutoDrop, rate untuned")
    axis.set(title=results.document["tasks"][task]["label"], ylabel="test error (%)")
    axis.set_ylim(0, 1.25 * top)
    axis.set_xlim(0, results.epochs(task))


def _mean_curve(results: Results, task: str, name: str, arm: Arm) -> tuple[list[int], np.ndarray]:
    """(epochs, mean test error in %) of what stands for a schedule in an arm."""
    seen = results.curves(task, decide.choice(results, task, name, arm))
    wrong = np.array([[count for _, count in c.points] for c in seen])
    return [epoch for epoch, _ in seen[0].points], 100 * wrong.mean(axis=0) / seen[0].of


def _differences(axis, results: Results, task: str) -> None:  # type: ignore[no-untyped-def]
    found = decide.comparisons(results, task)
    for row, c in enumerate(reversed(found)):
        i = c.interval
        colour = "green" if i.below() else "vermillion" if i.above() else "grey"
        axis.plot([i.low, i.high], [row, row], color=style.PALETTE[colour], lw=2)
        axis.plot(i.mean, row, "o", color=style.PALETTE[colour], ms=4.5)
    axis.axvline(0, color=style.PALETTE["ink"], lw=0.9)
    labels = [SCHEDULES[c.rival].label for c in reversed(found)]
    axis.set_yticks(range(len(found)), labels, fontsize=8)
    spread = [abs(x) for c in found for x in (c.interval.low, c.interval.high)]
    reach = 1.1 * min(max(spread), 4 * float(np.median(spread)))
    axis.set_xlim(-reach, reach)
