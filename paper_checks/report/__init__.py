"""The report: ``results.json`` and its figures as one self-contained HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from paper_checks import files
from paper_checks.outcome import Verdict
from paper_checks.report import markup

__all__ = ["FOLDER", "PAGE", "PARTIAL", "render"]

PAGE = "index.html"
FOLDER = "report"  # where the report on all claims goes by default
PARTIAL = "report-only"  # and a report on some of them
_VERDICTS = {
    Verdict.HOLDS: (
        "✓",
        "Holds",
        "The claim is true as the paper states it, under the hypotheses given.",
    ),
    Verdict.CORRECTED: (
        "≈",
        "Holds as corrected",
        "True once a constant, a hypothesis or a typo is put right, as the card states.",
    ),
    Verdict.REFUTED: (
        "✗",
        "Refuted",
        "False as stated. The card carries a counterexample, executed while this report was made.",
    ),
    Verdict.UNDECIDED: (
        "?",
        "Undecided here",
        "The evidence gathered here does not settle it. The card gives the reason.",
    ),
}


def render(results: Mapping[str, Any], out: Path) -> Path:
    """Write ``out/index.html`` from the contents of ``out/results.json`` and return its path.

    The figures are read from the files that the results name, relative to ``out``, and put into
    the page, which needs no other file and no network. The file is replaced atomically.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paper_checks", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["math"] = markup.math
    environment.filters["number"] = markup.number
    environment.filters["duration"] = markup.duration
    entries = results["claims"]
    figures = [(entry, figure) for entry in entries for figure in entry["figures"]]
    svg = {
        figure["file"]: markup.inline_svg(
            (out / figure["file"]).read_text(encoding="utf-8"), f"f{i}", figure["caption"]
        )
        for i, (_, figure) in enumerate(figures)
    }
    page = environment.get_template("page.html.j2").render(
        results=results,
        sections=[
            (name, list(group))
            for name, group in itertools.groupby(entries, lambda e: e["section"])
        ],
        verdicts={
            str(verdict): {
                "icon": icon,
                "name": name,
                "meaning": meaning,
                "count": sum(entry["verdict"] == verdict for entry in entries),
            }
            for verdict, (icon, name, meaning) in _VERDICTS.items()
        },
        errors=sum(entry["status"] == "error" for entry in entries),
        unexpected=[entry for entry in entries if not entry["matched"]],
        folder=FOLDER,
        partial=PARTIAL,
        seconds=sum(entry["seconds"] for entry in entries),
        svg=svg,
        pictures=[
            {
                "id": entry["id"],
                "title": figure["title"],
                "verdict": entry["verdict"],
                "matched": entry["matched"],
                "svg": markup.thumbnail(svg[figure["file"]], f"f{i}"),
            }
            for i, (entry, figure) in enumerate(figures)
        ],
    )
    files.replace(out / PAGE, page)
    return out / PAGE
