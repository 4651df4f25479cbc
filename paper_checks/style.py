"""One look for every figure of the report, without the global state of pyplot."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from paper_checks import files

# Okabe & Ito's palette, safe for the common forms of colour blindness, by what it is used for.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "ink": "#1F2933",
    "grey": "#8A94A0",
}
WIDTH = 8.4  # inches; the report's column

_STYLE: Any = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so the same on every machine
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 10,
    "axes.labelcolor": PALETTE["ink"],
    "axes.edgecolor": "#A9B2BC",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(
        color=[PALETTE[c] for c in ("blue", "vermillion", "green", "purple", "orange", "sky")]
    ),
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.8,
    "text.color": PALETTE["ink"],
    "xtick.color": "#52606D",
    "ytick.color": "#52606D",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # glyphs as outlines: the same picture wherever it is opened
    "svg.hashsalt": "paper_checks",  # ids from contents, not from a random salt
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Apply the style to what is drawn inside the ``with`` block, and restore what was set."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(
    rows: int = 1, cols: int = 1, *, height: float | None = None, **subplots: Any
) -> tuple[Figure, Any]:
    """Return a figure of the report's width and its axes, squeezed as by ``plt.subplots``.

    ``height`` is in inches per figure (default 3.6 for one row, 2.7 a row for more); ``subplots``
    goes to :meth:`matplotlib.figure.Figure.subplots` (``sharex=True``, ``width_ratios=[2, 1]``, …).
    """
    tall = height if height is not None else (3.6 if rows == 1 else 2.7 * rows)
    with applied():
        figure = Figure(figsize=(WIDTH, tall), layout="constrained")
        axes = figure.subplots(rows, cols, **subplots)
    return figure, axes


def decimate(x: Any, y: Any, points: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Return at most ``points`` points of a dense line (x, y) that keep its envelope.

    Splits the line into runs and keeps the lowest and the highest point of each, in order, with the
    first and the last of all, so peaks survive. ``x`` and ``y`` have shape (n,); a line of at most
    ``points`` points is returned as it is. Raises ValueError for other shapes and points < 4.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape (n,), got {x.shape} and {y.shape}")
    if points < 4:
        raise ValueError(f"points must be >= 4, got {points}")
    n = len(x)
    if n <= points:
        return x, y
    runs = np.array_split(np.arange(n), (points - 2) // 2)
    kept = {0, n - 1}
    for run in runs:
        kept.update((int(run[np.argmin(y[run])]), int(run[np.argmax(y[run])])))
    at = np.array(sorted(kept))
    return x[at], y[at]


def svg(figure: Figure) -> str:
    """Return the figure as an SVG without date, creator or random ids: same figure, same text."""
    buffer = io.StringIO()
    with applied():
        FigureCanvasSVG(figure)
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Type": None, "Format": None},
        )
    # matplotlib pads its path data at line ends; nothing reads that.
    return re.sub(r"[ \t]+\n", "\n", buffer.getvalue())


def save_svg(figure: Figure, path: Path) -> None:
    """Replace ``path`` by :func:`svg` of the figure atomically."""
    files.replace(path, svg(figure))
