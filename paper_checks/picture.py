"""The picture in the README: `python -m paper_checks.picture`.

One run of SGD on the paper's noisy quadratic under the rule of its Section 3 (window 1, the rate is
halved when the averaged angle stands still, floor 0.001), with the exact levels of the
theory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from autodrop import rules
from paper_checks import style
from theory import NoisyQuadratic, UnifiedMomentum, closed_loop, moments, saturation

PATH = Path(__file__).parent.parent / "notebooks" / "figures" / "angle_and_rate.svg"


def draw(iterations: int = 700, seed: int = 4) -> Figure:
    """Angle, learning rate and excess risk of one run, above each other."""
    problem, sgd = NoisyQuadratic.paper(), UnifiedMomentum.sgd()
    loop = closed_loop.run(
        problem, sgd, rules.nqm2024(), learning_rate=0.06, iterations=iterations, trajectories=1,
        seed=seed,
    )  # fmt: skip
    schedule = loop.schedule()
    exact = moments.evolve(problem, sgd, schedule)
    figure, (top, middle, bottom) = style.new_figure(
        3, 1, height=5.6, sharex=True, height_ratios=[2, 1, 1]
    )
    angles = loop.angles[0]
    smooth = np.convolve(angles, np.ones(20) / 20, mode="valid")
    grey, blue, red = (style.PALETTE[name] for name in ("grey", "blue", "vermillion"))
    top.plot(np.arange(len(angles)), angles, color=blue, alpha=0.15, linewidth=0.7)
    top.plot(np.arange(len(smooth)) + 19, smooth, color=blue, label="mean of the last 20")
    t = exact.iteration[: len(exact.ratio)]
    ink = style.PALETTE["ink"]
    top.plot(
        t,
        np.degrees(exact.ratio_angle),
        color=ink,
        linewidth=1.2,
        label="angle of the exact expectations",
    )
    edges = schedule.boundaries
    for rate, left, right in zip(schedule.rates, edges[:-1], edges[1:], strict=True):
        level = np.degrees(saturation.expected_angle(problem, rate))
        label = "saturation level of the rate" if left == 0 else None
        top.plot([left, right], [level, level], "--", color=red, linewidth=1, label=label)
    top.set(ylabel="angle (degrees)", ylim=(80, 125))
    top.legend(ncols=3, loc="upper right")
    middle.step(np.arange(iterations), loop.learning_rates[0], where="post", color=red)
    middle.set(yscale="log", ylabel="learning rate")
    bottom.plot(loop.risk[0], color=style.PALETTE["green"], linewidth=1)
    bottom.set(yscale="log", ylabel="excess risk", xlabel="iteration", ylim=(0.05, 100))
    for drop in loop.drops[0]:
        for ax in (top, middle, bottom):
            ax.axvline(drop.step, color=grey, linewidth=0.8, linestyle=":")
    return figure


def main() -> None:
    """Write the picture where the README looks for it."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with style.applied():
        style.save_svg(draw(), PATH)


if __name__ == "__main__":
    main()
