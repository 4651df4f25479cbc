"""Running claims: one result per claim, kept on disk as soon as it is there."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from paper_checks import style
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


class Progress(Protocol):
    """What the runner tells while it works."""

    def started(self, claim: Claim) -> None:
        """The check of ``claim`` begins."""

    def finished(self, result: Result) -> None:
        """The check ended and its result is on disk."""


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


def run(
    claims: Sequence[Claim], context: Context, out: Path, progress: Progress | None = None
) -> tuple[dict[str, Any], bool]:
    """Check the claims in order; return (the contents of results.json, whether interrupted).

    After every claim ``out/results.json`` is replaced atomically and its figures lie in
    ``out/figures``, so a run that is interrupted or killed leaves what it had finished; the entry
    "complete" says whether that is everything. Ctrl-C ends the run and is told in the second value.
    """
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    results = _header(context) | {"planned": len(claims), "complete": False, "claims": entries}
    write_json(results, out / RESULTS)
    interrupted = False
    try:
        for claim in claims:
            if progress:
                progress.started(claim)
            result, entry = _keep(run_claim(claim, context), out)
            entries.append(entry)
            write_json(results, out / RESULTS)
            if progress:
                progress.finished(result)
    except KeyboardInterrupt:
        interrupted = True
    results["complete"] = len(entries) == len(claims)
    write_json(results, out / RESULTS)
    return results, interrupted


def write_json(document: Mapping[str, Any], path: Path) -> None:
    """Replace ``path`` by the document atomically. Raises ValueError for NaN and infinities."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _keep(result: Result, out: Path) -> tuple[Result, dict[str, Any]]:
    """Save the figures and return the result with its entry; what cannot be kept is its error."""
    try:
        figures = _save_figures(result, out)
        entry = _entry(result, figures)
        json.dumps(entry, allow_nan=False)
    except Exception:  # whatever matplotlib or json makes of what the check handed over
        result = replace(result, outcome=None, error=traceback.format_exc())
        entry = _entry(result, [])
    return result, entry


def _save_figures(result: Result, out: Path) -> list[dict[str, str]]:
    saved = []
    for i, figure in enumerate(result.outcome.figures if result.outcome else (), start=1):
        name = f"{FIGURES}/{result.claim.id}-{i}.svg"
        style.save_svg(figure.figure, out / name)
        size = (out / name).stat().st_size
        if size > MAX_SVG_BYTES:
            raise ValueError(
                f"figure {figure.title!r} must take <= {MAX_SVG_BYTES} bytes as SVG, got {size}: "
                "draw dense lines through style.decimate, or pass rasterized=True"
            )
        saved.append({"file": name, "title": figure.title, "caption": figure.caption})
    return saved


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


def _header(context: Context) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "schema": SCHEMA,
        "started": now.isoformat(timespec="seconds"),
        **asdict(context),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
    }
