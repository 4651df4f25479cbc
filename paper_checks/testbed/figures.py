"""One page: regret by instance and horizon, drop times against the truth, the equivariance plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from paper_checks import style
from paper_checks.testbed.summary import HELD_OUT, TUNED

__all__ = ["equivariance_figure", "regret_figure", "sensitivity_figure", "timing_figure"]

_MARKS = "os^Dv<>Pp*Xh"


def _rules(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in results["rows"] if not row["open_loop"]]


def _colours(count: int) -> list[str]:
    names = ("blue", "vermillion", "green", "purple", "orange", "sky", "ink", "grey")
    return [style.PALETTE[names[i % len(names)]] for i in range(count)]


def regret_figure(results: Mapping[str, Any]) -> Figure:
    """Left: every instance, plain SGD, the geometric mean over horizons. Right: every horizon."""
    rules = _rules(results)
    instances = [each for each in results["instances"] if each["method"] == "sgd"]
    instances = [each for each in instances if each["kind"] == "oracle"]
    instances.sort(key=lambda each: (each["held_out"], each["name"]))
    with style.applied():
        figure, (left, right) = style.new_figure(
            1, 2, height=2.2 + 0.27 * len(instances), width_ratios=[2.2, 1]
        )
        for i, (row, colour) in enumerate(zip(rules, _colours(len(rules)), strict=True)):
            values = [np.exp(np.mean(np.log(each["regret"][row["best"]]))) for each in instances]
            left.plot(
                values, np.arange(len(values)), _MARKS[i % len(_MARKS)], color=colour, alpha=0.85,
                label=f"{row['name']}: {row['best']}",
            )  # fmt: skip
            for name, line in ((TUNED, "-"), (HELD_OUT, ":")):
                group = row["groups"][name]
                right.plot(
                    group["horizons"],
                    [each["geometric"]["value"] for each in group["by_horizon"]],
                    line,
                    marker=_MARKS[i % len(_MARKS)],
                    color=colour,
                )
        names = [each["name"] + (" (held out)" if each["held_out"] else "") for each in instances]
        left.set_yticks(np.arange(len(names)), names, fontsize=7.5)
        left.invert_yaxis()
        left.set(xscale="log", xlabel="risk/oracle's risk", title="Regret by problem")
        left.axvline(1, color=style.PALETTE["ink"], lw=1)
        right.set(xscale="log", yscale="log", xlabel="horizon T", title="Regret by horizon")
        right.axhline(1, color=style.PALETTE["ink"], lw=1)
        horizons = rules[0]["groups"][TUNED]["horizons"]
        right.set_xticks(horizons, [f"{T:,}".replace(",", "\u2009") for T in horizons], fontsize=8)
        right.minorticks_off()
        figure.legend(*left.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure


def timing_figure(results: Mapping[str, Any]) -> Figure:
    """Premature drops against delay, each setting of every rule a point."""
    rules = _rules(results)
    with style.applied():
        figure, axis = style.new_figure(height=4.6)
        for i, (row, colour) in enumerate(zip(rules, _colours(len(rules)), strict=True)):
            seen = [row["senses"][each] for each in row["settings"]]
            points = [
                (max(each["late"], 1e-3), each["premature"])
                for each in seen
                if each.get("late") is not None and np.isfinite(each.get("late", np.nan))
            ]
            if points:
                axis.plot(
                    *zip(*points, strict=True), _MARKS[i % len(_MARKS)], color=colour,
                    label=row["name"], alpha=0.85,
                )  # fmt: skip
        axis.axvline(1, color=style.PALETTE["ink"], lw=1)
        axis.set(
            xscale="log",
            xlabel="stage length/time until the risk is within 10 % of its floor (median)",
            ylabel="premature drops",
            title="Drops against the truth",
        )
        figure.legend(*axis.get_legend_handles_labels(), ncols=3, loc="outside lower center")
    return figure


def sensitivity_figure(results: Mapping[str, Any]) -> Figure:
    """Every setting of every rule and schedule: the recommended one filled, the others open."""
    rows = results["rows"]
    with style.applied():
        figure, axis = style.new_figure(height=1.2 + 0.34 * len(rows))
        for i, row in enumerate(rows):
            for name, colour, shift in (
                (TUNED, style.PALETTE["blue"], -0.14),
                (HELD_OUT, style.PALETTE["vermillion"], 0.14),
            ):
                for setting, found in row["by_setting"][name].items():
                    chosen = setting == row["recommended"]
                    axis.plot(
                        found["geometric"]["value"], i + shift, "o", color=colour,
                        markerfacecolor=colour if chosen else "none",
                        label=name if i == 0 and chosen else None,
                    )  # fmt: skip
        axis.set_yticks(np.arange(len(rows)), [row["name"] for row in rows])
        axis.invert_yaxis()
        axis.axvline(1, color=style.PALETTE["ink"], lw=1)
        axis.set(
            xscale="log",
            xlabel="risk/oracle's risk, geometric mean; filled: the recommended setting",
            title="Sensitivity to the settings",
        )
        axis.legend()
    return figure


def equivariance_figure(results: Mapping[str, Any]) -> Figure:
    """The time of the first drop over the stretch of the problem's time."""
    rules = _rules(results)
    stretches = np.array(results["settings"]["stretches"])
    with style.applied():
        figure, axis = style.new_figure(height=5.6)
        for i, (row, colour) in enumerate(zip(rules, _colours(len(rules)), strict=True)):
            times = np.array(row["senses"][row["best"]]["drop_times"], dtype=np.float64)[:, 0]
            axis.plot(
                stretches, np.where(np.isfinite(times), times, np.nan), "-", color=colour,
                marker=_MARKS[i % len(_MARKS)], label=f"{row['name']}: {row['best']}",
            )  # fmt: skip
        axis.plot(stretches, 30 * stretches, "--", color=style.PALETTE["ink"], label="slope 1")
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="stretch of the problem's time",
            ylabel="first drop (median iteration)",
            title="Equivariance",
        )
        axis.set_xticks(stretches, [f"{c:g}" for c in stretches])
        axis.minorticks_off()
        figure.legend(*axis.get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return figure
