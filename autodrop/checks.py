"""Checks of hyperparameters: errors that name the quantity, its value and the condition broken."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

__all__ = ["check_integer", "check_number"]


def check_number(name: str, value: Any, condition: str, holds: Callable[[Any], bool]) -> None:
    """Raises TypeError unless value is a real number (bools are none), ValueError unless it holds.

    condition: what `holds` asks, in words that follow "must be".
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, {condition}, got {value!r}")
    if not holds(value):
        raise ValueError(f"{name} must be {condition}, got {value!r}")


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless value is an int ≥ least; bools are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
