"""Mistakes that the tests plant in what a check uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paper_checks.claim import Check

__all__ = ["Plant", "returning"]


@dataclass(frozen=True)
class Plant:
    """A mistake: `make` turns the function `name` of `owner` into a wrong one; `fact` must fail."""

    check: Check
    owner: Any
    name: str
    make: Callable[[Any], Any]
    fact: str


def returning(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A maker that changes what a function returns."""
    return lambda right: lambda *args, **kwargs: change(right(*args, **kwargs))
