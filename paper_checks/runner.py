"""Running claims: one result per claim, kept on disk as soon as it is there.

What is kept of a claim is text (its entry of the results, its figures), so that it may come from
another process.
"""

from __future__ import annotations

import datetime
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from paper_checks import files, style
from paper_checks.claim import Claim
from paper_checks.context import Context
from paper_checks.outcome import Outcome, execute

SCHEMA = 1
RESULTS = "results.json"
FIGURES = "figures"
MAX_SVG_BYTES = 300_000
_PACKAGES = ("numpy", "scipy", "torch", "sympy", "matplotlib")


@dataclass(frozen=True)
class Result:
    """One claim with what its check found: an outcome, or the traceback of what went wrong."""

    claim: Claim
    outcome: Outcome | None
    error: str | None
    seconds: float

    @property
    def status(self) -> Literal["ok", "error"]:
        """ "error" when the check or its counterexample raised, else "ok"."""
        return "ok" if self.error is None else "error"

    @property
    def matched(self) -> bool:
        """Whether the verdict is the expected one and every fact held."""
        return (
            self.error is None
            and self.outcome is not None
            and self.outcome.verdict is self.claim.expected
            and not self.outcome.failed
        )


@dataclass(frozen=True)
class Kept:
    """What is kept of a claim: its entry in results.json, and its figures, SVG by file name."""

    entry: dict[str, Any]
    figures: dict[str, str]


class Progress(Protocol):
    """What the runner tells while it works."""

    def started(self, claim: Claim) -> None:
        """The check of ``claim`` begins in this process."""

    def finished(self, entry: Mapping[str, Any]) -> None:
        """A check ended and its entry is on disk."""


Spread = Callable[[Callable[[int], Kept], int], Iterable[tuple[int, Kept]]]


def one_by_one(work: Callable[[int], Kept], count: int) -> Iterable[tuple[int, Kept]]:
    """(i, work(i)) for i < count, in order."""
    return enumerate(map(work, range(count)))


def run_claim(claim: Claim, context: Context) -> Result:
    """Check one claim, execute its counterexample, and return the result; never raises Exception.

    KeyboardInterrupt passes through. The style of the figures holds while the check runs.
    """
    started = time.perf_counter()
    outcome: Outcome | None = None
    error: str | None = None
    try:
        with style.applied():
            found = claim.check(context)
        if not isinstance(found, Outcome):
            raise TypeError(f"claim {claim.id!r} must return an Outcome, got {found!r}")
        outcome = found
        if outcome.counterexample is not None:
            execute(outcome.counterexample)
    except (Exception, SystemExit):  # exit() in a counterexample must not end the audit
        error = traceback.format_exc()
    return Result(claim, outcome, error, time.perf_counter() - started)


def check(claim: Claim, context: Context) -> Kept:
    """Run the claim and return what is kept of it; what cannot be kept is the claim's error."""
    result = run_claim(claim, context)
    try:
        return _kept(result)
    except Exception:  # whatever matplotlib or json makes of what the check handed over
        return _kept(replace(result, outcome=None, error=traceback.format_exc()))


def run(
    claims: Sequence[Claim],
    context: Context,
    out: Path,
    progress: Progress | None = None,
    spread: Spread = one_by_one,
) -> tuple[dict[str, Any], bool]:
    """Check the claims; return (the contents of results.json, whether interrupted).

    After every claim ``out/results.json`` is replaced atomically and its figures lie in
    ``out/figures``, so a run that is interrupted or killed leaves what it had finished; the entry
    "complete" says whether that is everything. Ctrl-C ends the run and is told in the second value.
    ``spread`` does the work, in whatever processes and order; the results keep that of the claims.
    """
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    entries: dict[int, dict[str, Any]] = {}

    def work(i: int) -> Kept:
        if progress:
            progress.started(claims[i])
        return check(claims[i], context)

    def write() -> dict[str, Any]:
        results = _header(context, started) | {
            "planned": len(claims),
            "complete": len(entries) == len(claims),
            "claims": [entries[i] for i in sorted(entries)],
        }
        write_json(results, out / RESULTS)
        return results

    started = datetime.datetime.now(datetime.UTC)
    results, interrupted = write(), False
    try:
        for i, kept in spread(work, len(claims)):
            for name, figure in kept.figures.items():
                files.replace(out / name, figure)
            entries[i] = kept.entry
            results = write()
            if progress:
                progress.finished(kept.entry)
    except KeyboardInterrupt:
        interrupted = True
        results = write()
    return results, interrupted


def plan(claims: Sequence[Claim], context: Context) -> dict[str, Any]:
    """What must be the same in all processes that work on an audit: claims, context, versions."""
    return {"claims": [claim.id for claim in claims], **asdict(context), "versions": _versions()}


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Replace ``path`` by the document atomically. Raises ValueError for NaN and infinities."""
    files.replace(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _kept(result: Result) -> Kept:
    figures, svgs = [], {}
    for i, figure in enumerate(result.outcome.figures if result.outcome else (), start=1):
        name = f"{FIGURES}/{result.claim.id}-{i}.svg"
        svgs[name] = style.svg(figure.figure)
        size = len(svgs[name].encode())
        if size > MAX_SVG_BYTES:
            raise ValueError(
                f"figure {figure.title!r} must take <= {MAX_SVG_BYTES} bytes as SVG, got {size}: "
                "draw dense lines through style.decimate, or pass rasterized=True"
            )
        figures.append({"file": name, "title": figure.title, "caption": figure.caption})
    entry = json.dumps(_entry(result, figures), allow_nan=False)
    return Kept(json.loads(entry), svgs)


def _entry(result: Result, figures: list[dict[str, str]]) -> dict[str, Any]:
    claim, outcome = result.claim, result.outcome
    return {
        "id": claim.id,
        "section": claim.section,
        "place": claim.place,
        "title": claim.title,
        "statement": claim.statement,
        "kind": str(claim.kind),
        "hypotheses": claim.hypotheses,
        "expected": str(claim.expected),
        # A check that raised has no verdict, nor has one whose counterexample failed.
        "verdict": str(outcome.verdict) if outcome and not result.error else None,
        "status": result.status,
        "matched": result.matched,
        "seconds": round(result.seconds, 3),
        "error": result.error,
        "summary": outcome.summary if outcome else None,
        "correction": outcome.correction if outcome else None,
        "reason": outcome.reason if outcome else None,
        "cases": outcome.cases if outcome else None,
        "routes": [asdict(route) for route in outcome.routes] if outcome else [],
        "facts": [asdict(fact) for fact in outcome.facts] if outcome else [],
        "numbers": dict(outcome.numbers) if outcome else {},
        "tables": [asdict(table) for table in outcome.tables] if outcome else [],
        "counterexample": outcome.counterexample if outcome else None,
        "figures": figures,
    }


def _header(context: Context, started: datetime.datetime) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        **asdict(context),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }
