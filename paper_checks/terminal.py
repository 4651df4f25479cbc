"""The audit in the terminal: a progress bar, the table of verdicts, what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from paper_checks.claim import Claim

_STYLES = {
    "holds": "green",
    "holds-as-corrected": "blue",
    "refuted": "magenta",
    "undecided-here": "yellow",
    "error": "bold red",
}
_PIPED_WIDTH = 140  # columns of the table in a log, where rich would assume 80


def console() -> Console:
    """Return the console of stdout; a pipe or a file gets no colour and a fixed width."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


class AuditProgress:
    """Progress of an audit: a bar with the claim under way, or one line a claim in a log."""

    def __init__(self, to: Console, total: int) -> None:
        self._console = to
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=to,
            disable=not to.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> AuditProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, claim: Claim) -> None:
        """Show the claim under way."""
        self._bar.update(self._task, description=f"{claim.id:<32.32}")

    def finished(self, entry: Mapping[str, Any]) -> None:
        """Advance the bar; in a log, write a line."""
        self._bar.advance(self._task)
        if not self._console.is_terminal:
            found = entry["verdict"] or "error"
            mark = "ok " if entry["matched"] else "NOT AS EXPECTED "
            self._console.print(
                f"{mark}{entry['id']}: {found} ({entry['seconds']:.1f} s)", markup=False
            )


def verdict_table(results: Mapping[str, Any]) -> Table:
    """Return the table of verdicts: id, place, verdict, expected, ok, seconds."""
    table = _table("claim", "place", "verdict", "expected", "ok", "seconds")
    for entry in results["claims"]:
        found = entry["verdict"] or "error"
        table.add_row(
            Text(entry["id"]),
            Text(entry["place"]),
            Text(found, _STYLES[found]),
            Text(entry["expected"]),
            Text("yes", "green") if entry["matched"] else Text("NO", "bold red"),
            f"{entry['seconds']:.1f}",
        )
    return table


def claim_table(claims: Sequence[Claim]) -> Table:
    """Return the table of claims: id, place, kind, expected verdict, title."""
    table = _table("claim", "place", "kind", "expected", "title")
    for claim in claims:
        cells = (claim.id, claim.place, claim.kind, claim.expected, claim.title)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def complaints(results: Mapping[str, Any]) -> list[Text]:
    """Return one text for each claim that did not come out as expected: what and why."""
    texts = []
    for entry in results["claims"]:
        if entry["matched"]:
            continue
        if entry["error"]:
            why = entry["error"].rstrip()
        else:
            why = f"{entry['verdict']} where {entry['expected']} was expected. "
            why += entry["reason"] or entry["summary"]
        texts.append(Text.assemble((entry["id"], "bold red"), ": ", why))
    return texts


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        # A narrow terminal folds long texts; verdicts stay on one line.
        table.add_column(
            name,
            justify="right" if name == "seconds" else "left",
            no_wrap=name in ("verdict", "ok", "seconds"),
            overflow="fold",
        )
    return table
