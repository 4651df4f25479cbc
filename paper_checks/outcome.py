"""What a check found: verdict, routes, facts, numbers, figures and tables.

An :class:`Outcome` that breaks a rule of the audit (one route only, a refutation without
counterexample, …) cannot be built, so a check that returns one has met them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | int | float


class Verdict(StrEnum):
    """How a claim stands after its check."""

    HOLDS = "holds"
    CORRECTED = "holds-as-corrected"
    REFUTED = "refuted"
    UNDECIDED = "undecided-here"


@dataclass(frozen=True)
class Route:
    """One way to the result, sharing with the others nothing but the problem's definition.

    ``detail`` says in a phrase how it works and what it gave.
    """

    name: str
    detail: str


@dataclass(frozen=True)
class Fact:
    """One condition that the verdict stands on.

    ``slack`` is the distance to failure (negative: failed by that much), None for a plain
    condition; ``tolerance`` the error allowed, with its ``source`` (rounding, a stated error
    probability, …).
    """

    name: str
    ok: bool
    detail: str
    slack: float | None = None
    tolerance: float | None = None
    source: str = ""


@dataclass(frozen=True)
class FigureOf:
    """A figure of the report; the caption is also what a screen reader reads."""

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """A table of the report. Raises ValueError when a row's length is not that of ``columns``."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {i} must have {len(self.columns)} cells, "
                    f"got {len(row)}"
                )


@dataclass(frozen=True)
class Outcome:
    """The verdict of one check with everything it stands on.

    ``cases`` counts the cases that met the claim's hypotheses. Raises ValueError when there are
    fewer than two routes, no fact, no case (unless undecided), when a decided verdict stands on a
    failed fact, when a refutation lacks a counterexample, a corrected or refuted claim its
    correction, or an undecided one its reason, and when a number is not finite.
    """

    verdict: Verdict
    summary: str
    routes: tuple[Route, ...]
    facts: tuple[Fact, ...]
    cases: int
    numbers: Mapping[str, Cell] = field(default_factory=dict)
    counterexample: str | None = None
    correction: str | None = None
    reason: str | None = None
    figures: tuple[FigureOf, ...] = ()
    tables: tuple[Table, ...] = ()

    def __post_init__(self) -> None:
        if not self.summary.strip():
            raise ValueError("summary must say what was found, got an empty text")
        names = {route.name for route in self.routes}
        if len(names) < 2:
            raise ValueError(
                f"a claim needs >= 2 independent routes, got {len(names)}: {sorted(names)}"
            )
        if not self.facts:
            raise ValueError("a claim needs >= 1 fact that could have failed, got 0")
        if self.verdict is Verdict.UNDECIDED:
            if not self.reason:
                raise ValueError("an undecided claim must state its reason, got none")
        else:
            if self.failed:
                raise ValueError(
                    f"verdict {self.verdict} stands on failed facts: "
                    f"{[fact.name for fact in self.failed]}"
                )
            if self.cases < 1:
                raise ValueError(f"cases must be >= 1 for a decided claim, got {self.cases}")
        if self.verdict in (Verdict.CORRECTED, Verdict.REFUTED) and not self.correction:
            raise ValueError(f"a claim that is {self.verdict} must state its correction, got none")
        if self.verdict is Verdict.REFUTED and not self.counterexample:
            raise ValueError("a refutation must carry a runnable counterexample, got none")
        if self.counterexample:
            _require_final_assert(self.counterexample)
        for fact in self.facts:
            for size in (fact.slack, fact.tolerance):
                if size is not None:
                    _require_finite(f"slack or tolerance of fact {fact.name!r}", size)
        for name, value in self.numbers.items():
            _require_finite(f"number {name!r}", value)
        for table in self.tables:
            for row in table.rows:
                for cell in row:
                    _require_finite(f"cell of table {table.title!r}", cell)

    @property
    def failed(self) -> tuple[Fact, ...]:
        """The facts that did not hold."""
        return tuple(fact for fact in self.facts if not fact.ok)


def execute(code: str) -> None:
    """Run the source text of a counterexample as a fresh ``__main__``; its output is discarded.

    Assertions are compiled in even under ``python -O``. Raises what the code raises, SystemExit
    included, and ValueError when its last statement is not an assert.
    """
    _require_final_assert(code)
    compiled = compile(code, "<counterexample>", "exec", dont_inherit=True, optimize=0)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compiled, {"__name__": "__main__"})


def _require_final_assert(code: str) -> None:
    body = ast.parse(code, "<counterexample>").body
    last = body[-1] if body else None
    if not isinstance(last, ast.Assert) or isinstance(last.test, ast.Constant | ast.Tuple):
        raise ValueError(
            "a counterexample must end in an assert of what it shows, "
            f"got {ast.unparse(last) if last else 'no statement'!r}"
        )


def _require_finite(what: str, value: Cell) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be finite, got {value}")
