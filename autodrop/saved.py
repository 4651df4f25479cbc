"""A scheduler's state as plain named values: what torch.load(weights_only=True) accepts.

torch.distributed.checkpoint takes dicts and lists of lists apart and loads what the destination
has keys for. So all keys are there from the start whatever the rule, lists are flat, and what has
parts that depend on the rule is one text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from autodrop.policy import DropEvent
from autodrop.rules import Rule

__all__ = ["differences", "events", "hyperparameters", "plain", "restored", "text"]


def hyperparameters(rule: Rule, **others: str | float | bool) -> str:
    """The rule and `others` as a JSON object of named values."""
    named: dict[str, Any] = {
        "window": rule.window,
        "observation": rule.observation,
        **{f.name: getattr(rule.policy, f.name) for f in dataclasses.fields(rule.policy)},
        "detector": type(rule.detector).__qualname__,
    }
    detector: Any = rule.detector
    if dataclasses.is_dataclass(detector):
        for f in dataclasses.fields(detector):
            value = getattr(detector, f.name)
            simple = isinstance(value, str | int | float | bool | None)
            named[f"detector.{f.name}"] = value if simple else repr(value)
    return json.dumps(named | others)


def differences(saved: str, ours: str) -> list[str]:
    """One text for each name whose values differ between two texts of `hyperparameters`."""
    theirs, mine = json.loads(saved), json.loads(ours)
    return [
        f"{name} = {theirs.get(name)!r} (here {mine.get(name)!r})"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    ]


def plain(memory: Any) -> Any:
    """A detector's state without its class: torch.load(weights_only=True) refuses dataclasses.

    JSON text for a dataclass of numbers, strings, None and tuples of these; a dict for another
    dataclass; what is none stays as it is.
    """
    if not dataclasses.is_dataclass(memory) or isinstance(memory, type):
        return memory
    fields = {f.name: getattr(memory, f.name) for f in dataclasses.fields(memory)}
    return json.dumps(fields) if all(map(_simple, fields.values())) else fields


def restored(template: Any, saved: Any) -> Any:
    """Undo `plain`; template is any state of the same detector."""
    if not dataclasses.is_dataclass(template) or isinstance(template, type):
        return saved
    fields = saved
    if isinstance(saved, str):
        fields = {name: _tuples(value) for name, value in json.loads(saved).items()}
    return dataclasses.replace(template, **fields)


def _simple(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_simple, value))
    return value is None or type(value) in (int, float, str, bool)


def _tuples(value: Any) -> Any:
    """JSON knows no tuples, and `_simple` no lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def text(drops: Sequence[DropEvent]) -> str:
    """The events as JSON, which keeps every digit."""
    return json.dumps([dataclasses.asdict(event) for event in drops])


def events(text: str) -> list[DropEvent]:
    """Undo `text`."""
    return [
        DropEvent(**{**event, "old_lr": tuple(event["old_lr"]), "new_lr": tuple(event["new_lr"])})
        for event in json.loads(text)
    ]
