"""Pictures of training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from paper_checks import style
from paper_checks.training.record import Record

_SHADES = tuple(style.PALETTE[name] for name in ("vermillion", "green", "blue", "purple", "sky"))
_AUTODROP, _CONSTANT = style.PALETTE["blue"], style.PALETTE["orange"]
_TRAINING: dict[str, Any] = {"ls": (0, (4, 1.6)), "lw": 1.2}
_POINTS = 300  # per curve, which keeps the SVG small


def training_figure(autodrop: Record, constant: Record) -> Figure:
    """Loss, accuracy, angular velocity and learning rate of two runs, over the epochs."""
    with style.applied():
        figure, ((loss, accuracy), (angle, rate)) = style.new_figure(2, 2, height=6.4, sharex=True)
        for record, colour in ((constant, _CONSTANT), (autodrop, _AUTODROP)):
            curves = record.curves
            for axis, of_train, of_test in (
                (loss, curves.train_loss, curves.test_loss),
                (accuracy, curves.train_accuracy, curves.test_accuracy),
            ):
                epochs = np.arange(1, len(of_train) + 1)
                axis.plot(*style.decimate(epochs, of_test, _POINTS), color=colour)
                axis.plot(*style.decimate(epochs, of_train, _POINTS), color=colour, **_TRAINING)
            _plot_angles(angle, record, colour)
            rate.plot(*_staircase(record), color=colour, solid_joinstyle="miter")
        at = [event.step / autodrop.epoch_length for event in autodrop.drops]
        angle.vlines(at, 0, 4.5, color=_AUTODROP, lw=0.9)

        loss.set(title="Loss (cross-entropy)")
        accuracy.set(title="Accuracy", ylim=_accuracy_limits(autodrop, constant))
        accuracy.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        accuracy.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        angle.set(title=f"Angular velocity ({_of_windows(autodrop)})", xlabel="epoch")
        _degrees(angle)
        rate.set(title="Learning rate", xlabel="epoch")
        _log_axis(loss)
        _log_axis(rate)
        rate.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        rate.set_xlim(0, len(autodrop.curves.train_loss))

        ink = style.PALETTE["ink"]
        figure.legend(
            handles=[
                Line2D([], [], color=_AUTODROP, lw=3, label="AutoDrop"),
                Line2D([], [], color=_CONSTANT, lw=3, label="constant rate"),
                Line2D([], [], color=ink, label="test"),
                Line2D([], [], color=ink, label="training", **_TRAINING),
                Line2D([], [], color=_AUTODROP, ls="", marker="|", ms=8, label="drop"),
            ],
            loc="outside upper center",
            ncols=5,
        )
    return figure


def fixed_rates_figure(records: Sequence[Record]) -> Figure:
    """Training loss and angular velocity over the epochs at several constant learning rates."""
    with style.applied():
        figure, (loss, angle) = style.new_figure(1, 2, height=3.5)
        ordered = sorted(records, key=lambda record: -record.config.learning_rate)
        for i, record in enumerate(ordered):
            colour, name = _SHADES[i % len(_SHADES)], f"α = {record.config.learning_rate:g}"
            losses = record.curves.train_loss
            epochs = np.arange(1, len(losses) + 1)
            loss.plot(*style.decimate(epochs, losses, _POINTS), color=colour, label=name)
            _plot_angles(angle, record, colour)
        loss.set(title="Training loss (cross-entropy)", xlabel="epoch")
        _log_axis(loss)
        loss.legend()
        angle.axhline(90, color=style.PALETTE["grey"], lw=0.9, ls=":")
        angle.axhline(120, color=style.PALETTE["grey"], lw=0.9, ls=":")
        angle.set(title=f"Angular velocity ({_of_windows(records[0])})", xlabel="epoch")
        _degrees(angle)
    return figure


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.svg, and return their paths."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    style.save_svg(figure, svg)
    with style.applied():
        FigureCanvasAgg(figure)
        figure.savefig(png, dpi=160)
    return png, svg


def _plot_angles(axis: Any, record: Record, colour: str) -> None:
    """The mean of the angles around each window, in a band that holds four fifths of them."""
    angles = np.array(record.angles)
    if not len(angles):
        return
    epochs = np.array(record.angle_iterations) / record.epoch_length
    width = max(1, min(len(angles), max(5, len(angles) // 25)))
    around = np.lib.stride_tricks.sliding_window_view(angles, width)
    middle = np.lib.stride_tricks.sliding_window_view(epochs, width).mean(axis=1)
    kept = np.unique(np.linspace(0, len(middle) - 1, _POINTS).astype(int))
    low, high = np.quantile(around[kept], (0.1, 0.9), axis=1)
    axis.fill_between(middle[kept], low, high, color=colour, alpha=0.16, lw=0)
    axis.plot(middle[kept], around.mean(axis=1)[kept], color=colour)


def _log_axis(axis: Any) -> None:
    """A logarithmic axis with its ticks as numbers; a linear one if there is little to show."""
    low, high = axis.dataLim.intervaly
    if not high > 2 * low > 0:
        return
    axis.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _degrees(axis: Any) -> None:
    top = max(125.0, axis.get_ylim()[1])
    axis.set_ylim(0, min(180.0, top))
    axis.set_yticks(range(0, int(min(180.0, top)) + 1, 30))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}°"))


def _of_windows(record: Record) -> str:
    if record.window == record.epoch_length:
        return "window: 1 epoch"
    return f"window: {record.window} update" + ("s" if record.window > 1 else "")


def _staircase(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The learning rate over the epochs, both sides of every drop."""
    steps, rates = [0], [record.config.learning_rate]
    for event in record.drops:
        steps += [event.step, event.step]
        rates += [event.old_lr[0], event.new_lr[0]]
    steps.append(record.iterations)
    rates.append(rates[-1])
    return np.array(steps) / record.epoch_length, np.array(rates)


def _accuracy_limits(*records: Record) -> tuple[float, float]:
    """Axis limits that show all but the first epochs, when most is still to be learnt."""
    lowest = 1.0
    for record in records:
        for values in (record.curves.test_accuracy, record.curves.train_accuracy):
            lowest = min(lowest, *values[len(values) // 20 :])
    margin = 0.06 * (1.0 - lowest) + 1e-3
    return max(0.0, lowest - margin), 1.0 + margin
