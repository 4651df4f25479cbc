"""Checks of arguments, shared by the package: a clear error instead of one from the depths."""

from __future__ import annotations

from numbers import Integral
from typing import Any

__all__ = ["instance", "positive_integer"]


def positive_integer(name: str, value: Any, least: int = 1) -> int:
    """The value as an int, after checking that it is an integer ≥ `least`; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        kind = "a positive integer" if least == 1 else f"an integer >= {least}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return int(value)


def instance(name: str, value: Any, kind: type) -> None:
    """Raises TypeError unless the value is a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
