"""Records of finished runs on disk: one JSON file each, whole or recognised as broken.

A file holds its document beside the SHA-256 of it, and is replaced atomically. So a process may be
killed at any moment, and what a crash of the machine or an edit does to a file is seen.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from paper_checks import files


class Corrupt(ValueError):
    """A file that is not a whole record."""


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file atomically. Raises ValueError for NaN and infinities."""
    text = _canonical(document)
    files.replace(path, json.dumps({"sha256": _digest(text), "document": document}) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The document of the file. Raises Corrupt unless it is what was written, OSError if absent."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        document, digest = content["document"], content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} must be a record, it cannot be read as one") from error
    if not isinstance(document, dict) or _digest(_canonical(document)) != digest:
        raise Corrupt(f"{path} must be the record that was written, its SHA-256 differs")
    return document


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
