"""The score table in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from paper_checks.testbed.summary import HELD_OUT, TUNED

__all__ = ["momentum_table", "score_table", "sensing_table", "summary_cells"]


def _number(value: float) -> str:
    """Three digits; large ones by their power of ten."""
    if math.isnan(value):
        return "-"
    if value >= 1e5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _interval(estimate: Mapping[str, float]) -> str:
    """value [low, high]; exact values stand alone."""
    value = _number(estimate["value"])
    if estimate["low"] == estimate["high"]:
        return value
    return f"{value} [{_number(estimate['low'])}, {_number(estimate['high'])}]"


def summary_cells(summary: Mapping[str, Any]) -> list[str]:
    """Geometric mean with its interval, median, 90th percentile."""
    return [
        _interval(summary["geometric"]),
        _number(summary["median"]["value"]),
        _number(summary["percentile90"]["value"]),
    ]


def _name(row: Mapping[str, Any]) -> Text:
    mark = " (knows T)" if row["knows_horizon"] else ""
    return Text(f"{row['name']}{mark}", "dim" if row["control"] or row["open_loop"] else "bold")


def score_table(results: Mapping[str, Any]) -> Table:
    """Regret on tuned and held-out spectra, plain SGD, all horizons pooled.

    For each rule its recommended setting, the best single one, and the best for each instance.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="risk/oracle's risk, plain SGD, horizons pooled",
        title_justify="left",
        caption="geometric mean with its 95 % interval over trajectories; median; 90th percentile",
        caption_justify="left",
    )
    table.add_column("rule")
    table.add_column("setting")
    for name in (TUNED, "med", "p90", HELD_OUT, "med", "p90"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["rows"]:
        shown = [("recommended", row["recommended"])]
        if len(row["settings"]) > 1:
            shown += [("best", row["best"]), ("tuned", "tuned to each instance")]
        for i, (key, label) in enumerate(shown):
            cells = [
                cell
                for name in (TUNED, HELD_OUT)
                for cell in summary_cells(row["groups"][name][key])
            ]
            table.add_row(_name(row) if i == 0 else "", Text(label), *cells)
    return table


def momentum_table(results: Mapping[str, Any]) -> Table | None:
    """Geometric means of the other groups, at the recommended and at the best single setting."""
    others = [name for name in results["rows"][0]["groups"] if name not in (TUNED, HELD_OUT)]
    if not others:
        return None
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="geometric mean regret: recommended / best single setting on the tuned spectra",
        title_justify="left",
        caption="multiplicative noise and real data: over the best open-loop schedule",
        caption_justify="left",
    )
    table.add_column("rule")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["rows"]:
        cells = [
            " / ".join(
                _number(row["groups"][name][key]["geometric"]["value"])
                for key in ("recommended", "best")
            )
            for name in others
        ]
        table.add_row(_name(row), *cells)
    return table


def sensing_table(results: Mapping[str, Any]) -> Table:
    """Does it sense?  Drops against the truth, equivariance, false drops, causality."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="does it sense?",
        title_justify="left",
        caption="premature: drops while the exact risk was more than 10 % above its floor; late: "
        "median of stage length/time to that floor;\nslope: of log drop time on log stretch, 1 for "
        "a sensor, 0 for a clock; false: stages with a drop on a random walk with drift",
        caption_justify="left",
    )
    table.add_column("rule")
    table.add_column("setting")
    for name in ("drops", "premature", "late", "slope", "false drops", "past only"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["rows"]:
        if row["open_loop"]:
            continue
        for i, setting in enumerate(dict.fromkeys((row["recommended"], row["best"]))):
            seen = row["senses"][setting]
            low, high = seen["slope_interval"]
            slope = _number(seen["slope"])
            if not math.isnan(low):
                slope += f" [{low:.2f}, {high:.2f}]"
            estimate, below, above = seen["false_drops_per_stage"]
            table.add_row(
                _name(row) if i == 0 else "",
                Text(setting),
                _number(seen.get("drops", math.nan)),
                _number(seen.get("premature", math.nan)),
                _number(seen.get("late", math.nan)),
                slope,
                f"{estimate:.2f} [{below:.2f}, {above:.2f}]",
                "yes" if seen["leak"] is None else Text(f"NO, at {seen['leak']}", "bold red"),
            )
    leak = results["controls"]["leak of the rule that peeks"]
    found = Text("NOT EXPOSED", "bold red") if leak is None else Text(f"no, at {leak}")
    table.add_row(Text("peeks at the future", "dim"), "", *[""] * 5, found)
    estimate, below, above = results["controls"]["level of the miscalibrated rule"]
    exposed = results["controls"]["miscalibration exposed"]
    table.add_row(
        Text("miscalibrated level", "dim"),
        Text(
            f"claims {results['controls']['claimed level']:g} a test", "" if exposed else "bold red"
        ),
        *[""] * 4,
        f"{estimate:.4f} [{below:.4f}, {above:.4f}]",
        "",
    )
    return table
