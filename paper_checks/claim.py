"""Claims of the paper and their registry: everything that a module of claims needs to import."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from paper_checks.context import Context, Level
from paper_checks.evidence import Evidence
from paper_checks.outcome import Cell, Fact, FigureOf, Outcome, Route, Table, Verdict

__all__ = [
    "Cell",
    "Check",
    "Claim",
    "Context",
    "Evidence",
    "Fact",
    "FigureOf",
    "Kind",
    "Level",
    "Outcome",
    "Route",
    "Table",
    "Verdict",
    "claim",
    "registry",
]

Check = Callable[[Context], Outcome]


class Kind(StrEnum):
    """What sort of statement a claim is; it decides what its check asserts."""

    IDENTITY = "identity"  # exact, or rounding only
    UPPER_BOUND = "upper bound"  # every slack >= -rounding; worst slack and its witness
    LOWER_BOUND = "lower bound"
    TIGHT = "tight"  # a bound, and a witness that attains it
    LIMIT = "limit"  # the error falls at the stated rate
    EMPIRICAL = "empirical"  # seeds, interval and threshold fixed beforehand
    DEFINITION = "definition"  # well posed, and what it does


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, in our words, with the check that decides it.

    ``id`` is short kebab-case ("eq-4"); ``place`` says where the paper states it ("Theorem 3.2,
    eq. (4), p. 3606"); ``section`` heads its group in the report; ``expected`` is the verdict that
    keeps the audit green. Raises ValueError for an id that is not kebab-case and for empty texts.
    """

    id: str
    place: str
    title: str
    statement: str
    kind: Kind
    hypotheses: str
    expected: Verdict
    check: Check
    section: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise ValueError(f"id must be kebab-case like 'eq-4', got {self.id!r}")
        for name in ("place", "title", "statement", "hypotheses", "section"):
            if not getattr(self, name).strip():
                raise ValueError(f"claim {self.id!r}: {name} must not be empty")


_claims: dict[str, Claim] = {}


def claim(
    *,
    id: str,
    place: str,
    title: str,
    statement: str,
    kind: Kind,
    hypotheses: str,
    expected: Verdict,
    into: dict[str, Claim] | None = None,
) -> Callable[[Check], Check]:
    """Register the decorated check as a claim and return the check unchanged.

    ``into`` is the registry, by default the paper's. Raises ValueError when the id is taken.
    """
    registered = _claims if into is None else into

    def register(check: Check) -> Check:
        if id in registered:
            raise ValueError(
                f"claim id {id!r} is taken by {registered[id].check.__module__}, "
                f"got it again in {check.__module__}"
            )
        registered[id] = Claim(
            id, place, title, statement, kind, hypotheses, expected, check, _section_of(check)
        )
        return check

    return register


def registry() -> tuple[Claim, ...]:
    """Return the paper's claims, by section of the paper, then as defined in the module.

    Imports every module of :mod:`paper_checks.claims`.
    """
    from paper_checks import claims

    modules = sorted(
        (module.name for module in pkgutil.iter_modules(claims.__path__)), key=_natural
    )
    order = {}
    for position, name in enumerate(modules):
        importlib.import_module(f"{claims.__name__}.{name}")
        order[f"{claims.__name__}.{name}"] = position
    # sorted() is stable: within a module the order of definition stays.
    return tuple(sorted(_claims.values(), key=lambda c: order.get(c.check.__module__, len(order))))


def _section_of(check: Check) -> str:
    """Return "Section 3" for a check of a module ``section3…``, else the module's name in words."""
    name = check.__module__.rpartition(".")[2]
    match = re.match(r"section_?(\d+)", name)
    return f"Section {match[1]}" if match else name.replace("_", " ").strip().capitalize()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which section10 comes after section3."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
