"""A scheduler's state as plain named values: what torch.load(weights_only=True) accepts.

torch.distributed.checkpoint takes dicts and lists of lists apart and loads what the destination
has keys for. So all keys are there from the start, lists are flat, and events are one string.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from autodrop.policy import DropEvent
from autodrop.rules import Rule

__all__ = ["differences", "events", "hyperparameters", "plain", "restored", "text"]


def hyperparameters(rule: Rule) -> dict[str, Any]:
    """The rule as plain named values."""
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
    return named


def differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """One text for each name whose two values differ."""
    return [
        f"{name} = {saved.get(name)!r} (here {ours.get(name)!r})"
        for name in sorted(ours.keys() | saved.keys())
        if ours.get(name) != saved.get(name)
    ]


def plain(memory: Any) -> Any:
    """A detector's state without its class: torch.load(weights_only=True) refuses dataclasses."""
    if dataclasses.is_dataclass(memory) and not isinstance(memory, type):
        return {f.name: getattr(memory, f.name) for f in dataclasses.fields(memory)}
    return memory


def restored(template: Any, saved: Any) -> Any:
    """Undo `plain`; template is any state of the same detector."""
    if dataclasses.is_dataclass(template) and not isinstance(template, type):
        return dataclasses.replace(template, **saved)
    return saved


def text(drops: Sequence[DropEvent]) -> str:
    """The events as JSON, which keeps every digit."""
    return json.dumps([dataclasses.asdict(event) for event in drops])


def events(text: str) -> list[DropEvent]:
    """Undo `text`."""
    return [
        DropEvent(**{**event, "old_lr": tuple(event["old_lr"]), "new_lr": tuple(event["new_lr"])})
        for event in json.loads(text)
    ]
