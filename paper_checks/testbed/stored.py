"""Results as JSON, which has no nan and no infinity, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from paper_checks import files

__all__ = ["read", "write"]

_DIGITS = 6
# Where null is no number: a rule that leaks nothing.
_NULLS = ("leak", "leak of the rule that peeks", "lower_bound")


def write(results: dict[str, Any], path: Path) -> None:
    """With six significant digits; the file is never half written."""
    files.replace(path, json.dumps(_plain(results), separators=(",", ":"), sort_keys=True) + "\n")


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote. Raises ValueError if it is none."""
    try:
        found: dict[str, Any] = _restored(json.loads(path.read_text(encoding="utf-8")))
        return found
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a result of the test bed: {error}") from error


def _plain(value: Any) -> Any:
    """null for nan and "inf" for infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        if math.isfinite(value):
            return float(f"{value:.{_DIGITS}g}")
        return None if math.isnan(value) else "inf"
    return value


def _restored(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _restored(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_restored(each, key) for each in value]
    if value == "inf":
        return math.inf
    return math.nan if value is None and key not in _NULLS else value
