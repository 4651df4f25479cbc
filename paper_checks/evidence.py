"""Collecting the evidence of a check: routes, facts with their tolerances, numbers, figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paper_checks.outcome import Cell, Fact, FigureOf, Outcome, Route, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 76  # characters of one value in the detail of a fact: two and a relation fit in 160


class Evidence:
    """Evidence of one check; :meth:`outcome` turns it into a verdict.

    A check asserts facts. Each is recorded with its slack and tolerance whether it held or not, and
    :meth:`outcome` grants the verdict asked for only when all of them held: a fact that fails turns
    it into ``undecided-here`` and the audit red. Numbers that are not finite never hold.

    The comparing methods take scalars or arrays (broadcast against each other; anything that
    ``np.asarray(x, dtype=float)`` accepts, so also Fraction, SymPy numbers and CPU tensors), record
    the worst element with its index, and return whether the fact held. They raise ValueError for
    empty input, a tolerance that is negative or not finite, and one without its source.
    """

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._facts: list[Fact] = []
        self._numbers: dict[str, Cell] = {}
        self._figures: list[FigureOf] = []
        self._tables: list[Table] = []

    def route(self, name: str, detail: str) -> None:
        """Record one independent way to the result and what it gave."""
        self._routes.append(Route(name, detail))

    def require(self, name: str, ok: bool | np.bool_, detail: str, source: str = "") -> bool:
        """Record the condition ``ok``. Raises TypeError unless it is a bool: NaN counts as true."""
        if not isinstance(ok, bool | np.bool_):
            raise TypeError(f"fact {name!r}: ok must be a bool, got {type(ok).__name__}")
        return self._record(Fact(name, bool(ok), detail, source=source))

    def exact(self, name: str, got: Any, want: Any) -> bool:
        """Record got == want with no tolerance: integers, Fraction, SymPy expressions, texts.

        Of long values the detail keeps both ends or, when they differ, the first place where they
        do.
        """
        ok = bool(got == want) and not (_is_non_finite(got) or _is_non_finite(want))
        texts = str(got), str(want)
        around = None if ok else _first_difference(*texts)
        detail = (" = " if ok else " is not ").join(_shortened(text, around) for text in texts)
        return self._record(Fact(name, ok, detail, tolerance=0.0, source="exact arithmetic"))

    def equal(self, name: str, got: Any, want: Any, tolerance: Any, *, source: str = "") -> bool:
        """Record |got − want| ≤ tolerance, elementwise."""
        got, want = _floats(name, "got", got), _floats(name, "want", want)
        with np.errstate(invalid="ignore"):
            distance = np.abs(got - want)
        return self._compare(name, "−", got, want, -distance, tolerance, source)

    def at_most(
        self, name: str, got: Any, bound: Any, tolerance: Any = 0.0, *, source: str = ""
    ) -> bool:
        """Record got ≤ bound + tolerance, elementwise."""
        got, bound = _floats(name, "got", got), _floats(name, "bound", bound)
        with np.errstate(invalid="ignore"):
            room = bound - got
        return self._compare(name, "≤", got, bound, room, tolerance, source)

    def at_least(
        self, name: str, got: Any, bound: Any, tolerance: Any = 0.0, *, source: str = ""
    ) -> bool:
        """Record got ≥ bound − tolerance, elementwise."""
        got, bound = _floats(name, "got", got), _floats(name, "bound", bound)
        with np.errstate(invalid="ignore"):
            room = got - bound
        return self._compare(name, "≥", got, bound, room, tolerance, source)

    def apart(self, name: str, got: Any, other: Any, by: Any, *, source: str) -> bool:
        """Record |got − other| ≥ by, elementwise: what a refutation or a negative control needs.

        ``source`` says where the margin comes from. Raises ValueError unless by > 0.
        """
        got, other = _floats(name, "got", got), _floats(name, "other", other)
        margin = _floats(name, "by", by)
        if not np.all(margin > 0):
            raise ValueError(f"fact {name!r}: by must be > 0, got {margin.min()}")
        if not source:
            raise ValueError(f"fact {name!r}: the margin needs its source")
        with np.errstate(invalid="ignore"):
            room = np.abs(got - other) - margin
        return self._compare(
            name, "≠", got, other, room, 0.0, f"margin {margin.max():.6g}, {source}"
        )

    def number(self, name: str, value: Any) -> None:
        """Record a number (or short text) for the report; NumPy scalars become Python's."""
        self._numbers[name] = _plain(value)

    def figure(self, title: str, caption: str, figure: Figure) -> None:
        """Record a figure; the caption tells what to see in it."""
        self._figures.append(FigureOf(title, caption, figure))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Record a table; NumPy scalars become Python's."""
        cells = tuple(tuple(_plain(cell) for cell in row) for row in rows)
        self._tables.append(Table(title, tuple(columns), cells))

    @property
    def holds(self) -> bool:
        """Whether every fact so far held."""
        return all(fact.ok for fact in self._facts)

    def outcome(
        self,
        verdict: Verdict,
        summary: str,
        *,
        cases: int,
        correction: str | None = None,
        counterexample: str | None = None,
        reason: str | None = None,
    ) -> Outcome:
        """Return ``verdict`` if every fact held, else ``undecided-here`` with the failed ones.

        ``cases`` is the number of cases that met the hypotheses. For the rest, and for what raises
        ValueError, see :class:`~paper_checks.outcome.Outcome`.
        """
        failed = [fact for fact in self._facts if not fact.ok]
        if failed:
            verdict = Verdict.UNDECIDED
            reason = "; ".join(f"{fact.name}: {fact.detail}" for fact in failed)
            summary = f"{len(failed)} of {len(self._facts)} facts did not hold."
        return Outcome(
            verdict=verdict,
            summary=summary,
            routes=tuple(self._routes),
            facts=tuple(self._facts),
            cases=cases,
            numbers=dict(self._numbers),
            counterexample=counterexample,
            correction=correction,
            reason=reason,
            figures=tuple(self._figures),
            tables=tuple(self._tables),
        )

    def _record(self, fact: Fact) -> bool:
        self._facts.append(fact)
        return fact.ok

    def _compare(
        self,
        name: str,
        relation: str,
        got: np.ndarray,
        want: np.ndarray,
        room: np.ndarray,
        tolerance: Any,
        source: str,
    ) -> bool:
        allowed = _floats(name, "tolerance", tolerance)
        if not np.all(np.isfinite(allowed) & (allowed >= 0)):
            raise ValueError(f"fact {name!r}: tolerance must be finite and >= 0, got {tolerance}")
        if np.any(allowed > 0) and not source:
            raise ValueError(f"fact {name!r}: the tolerance {tolerance} needs its source")
        got, want, room, allowed = np.broadcast_arrays(got, want, room, allowed)
        slack = room + allowed
        finite = np.isfinite(slack) & np.isfinite(got) & np.isfinite(want)
        at = np.unravel_index(np.argmin(np.where(finite, slack, -np.inf)), slack.shape)
        where = f" at {', '.join(str(int(i)) for i in at)}" if slack.size > 1 else ""
        if not finite[at]:
            detail = f"not finite{where}: {_text(got[at])} against {_text(want[at])}"
            return self._record(
                Fact(name, False, detail, tolerance=float(allowed[at]), source=source)
            )
        ok = bool(slack[at] >= 0)
        detail = (
            f"|{_text(got[at])} − {_text(want[at])}| = {_text(-room[at], 3)}"
            if relation == "−"
            else f"{_text(got[at])} {'' if ok else 'not '}{relation} {_text(want[at])}"
        )
        if slack.size > 1:
            detail += f" (worst of {slack.size},{where})"
        return self._record(Fact(name, ok, detail, float(slack[at]), float(allowed[at]), source))


def _floats(name: str, role: str, values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError(f"fact {name!r}: {role} must not be empty: nothing would be compared")
    return array


def _text(number: float, digits: int = 10) -> str:
    return f"{number:.{digits}g}".replace("-", "−")


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _shortened(text: str, around: int | None) -> str:
    """Return at most ``_LONGEST`` characters: the text, its two ends, or what is ``around``."""
    if len(text) <= _LONGEST:
        return text
    width = _LONGEST - 4
    if around is None:
        return f"{text[: width // 2]} … {text[-width // 2 :]}"
    first = min(max(around - width // 2, 0), len(text) - width)
    before, after = "… " if first else "", " …" if first + width < len(text) else ""
    return f"{before}{text[first : first + width]}{after}"


def _is_non_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_is_non_finite, value))
    try:
        return not math.isfinite(value)
    except OverflowError:  # an integer or Fraction beyond the range of float
        return False
    except TypeError:  # a text or a symbolic expression
        return False


def _plain(value: Any) -> Cell:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float) else str(value)
