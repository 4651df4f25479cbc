"""The tensors that are followed: in groups, under names that outlive the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

__all__ = ["Group", "Params", "parameter_groups"]

Group = dict[str, torch.Tensor]

Params = Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]] | Iterable[dict[str, Any]]
"""What torch optimizers take: tensors, (name, tensor) pairs, or dicts with such "params"."""


def parameter_groups(params: Params) -> list[Group]:
    """The groups of params, each {key: tensor}; tensors or pairs without dicts are one group.

    The key is a tensor's name, from its pair or from the "param_names" of its dict, and otherwise
    its position among all tensors. A tensor that comes again is left out.

    Raises TypeError unless all are dense, initialised, real floating-point tensors of at least 16
    bits, or dicts of these; ValueError if two have one name, names are not as many as tensors, or
    there are no elements.
    """
    if isinstance(params, torch.Tensor | Mapping):
        raise TypeError(
            "params must be an iterable of tensors, got a single "
            f"{'tensor' if isinstance(params, torch.Tensor) else type(params).__name__}"
        )
    if isinstance(params, torch.nn.Module):
        raise TypeError(
            "params must be an iterable of tensors, got the module "
            f"{type(params).__name__}: pass its .parameters()"
        )
    listed: list[Any] = list(params)
    dicts = [item for item in listed if isinstance(item, dict)]
    if dicts and len(dicts) < len(listed):
        raise TypeError("params must be all tensors or all dicts, got a mixture")
    groups: list[Group] = []
    seen: set[int] = set()
    names: set[str] = set()
    position = 0
    for entry in dicts or [{"params": listed}]:
        group: Group = {}
        for name, p in _named(entry):
            if id(p) not in seen:
                key = str(position) if name is None else name
                if key in names:
                    raise ValueError(f"params must have different names, got {key!r} twice")
                _check(p)
                group[key] = p
                seen.add(id(p))
                names.add(key)
            position += 1
        groups.append(group)
    tensors = [p for group in groups for p in group.values()]
    if sum(p.numel() for p in tensors) == 0:
        raise ValueError(f"params must hold at least one element, got {len(tensors)} tensors")
    return groups


def _named(entry: dict[str, Any]) -> Iterable[tuple[str | None, Any]]:
    if "params" not in entry:
        raise TypeError(f'params as dicts must have "params", got one of {sorted(entry)}')
    members = entry["params"]
    members = [members] if isinstance(members, torch.Tensor) else list(members)
    names = entry.get("param_names") or [None] * len(members)
    if len(names) != len(members):
        raise ValueError(f"param_names must be as many as params = {len(members)}, got {names}")
    for name, item in zip(names, members, strict=True):
        pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        yield (item[0], item[1]) if pair else (name, item)


def _check(p: Any) -> None:
    if not isinstance(p, torch.Tensor):
        raise TypeError(
            f"params must hold tensors, as model.parameters() does, got {type(p).__name__}"
        )
    if is_lazy(p):
        raise TypeError("params must be initialised: run the lazy modules once, before tracking")
    if not p.is_floating_point() or p.dtype.itemsize < 2:
        raise TypeError(
            f"params must be real floating point of 16 bits or more, got dtype {p.dtype}"
        )
    if p.layout is not torch.strided or p.is_nested:
        raise TypeError(
            f"params must be dense, got {'nested ones' if p.is_nested else f'layout {p.layout}'}"
        )
