"""Parameters over the ranks of torch.distributed: each element counts once, one sum a window.

Replicas (DDP), shards (FSDP2's `fully_shard`, tensor parallel) and both (HSDP): of the ranks that
hold the same part of a parameter, the first contributes its products.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist

__all__ = ["Ranks", "is_sharded", "local_part", "whole_of"]


_LABEL = "_autodrop_part"


def _is_dtensor(p: torch.Tensor) -> bool:
    """Without the import: where nobody has imported DTensor, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(p, module.DTensor)


def is_sharded(p: torch.Tensor) -> bool:
    """Whether p is a DTensor, of which this rank holds a part."""
    return _is_dtensor(p)


def local_part(p: Any) -> torch.Tensor:
    """What this rank holds of p, aliased."""
    local: torch.Tensor = p.to_local() if _is_dtensor(p) else p
    return local.detach()


def whole_of(p: Any, local: torch.Tensor) -> torch.Tensor:
    """The tensor of which `local` is this rank's part, distributed as p is."""
    if not _is_dtensor(p):
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )


class Ranks:
    """The ranks that follow the same parameters; without torch.distributed, one that owns all.

    process_group: "auto", all ranks once torch.distributed is initialised; None, this rank alone;
        or a group of torch.distributed.

    rank: of this one in the group, 0 without. owned: for each parameter whether its products count
    here.

    A collective operation where there are several ranks: all of them must make it.

    Raises ValueError unless they hold the same parameters in the same order, and for parameters
    whose sum over ranks is pending (Partial) or hidden in FSDP1's flat ones.
    """

    def __init__(
        self,
        params: Mapping[str, torch.Tensor],
        process_group: dist.ProcessGroup | Literal["auto"] | None,
    ) -> None:
        self.group: dist.ProcessGroup | None = None
        if process_group == "auto":
            if dist.is_available() and dist.is_initialized():
                self.group = dist.group.WORLD
        elif process_group is not None:
            if not isinstance(process_group, dist.ProcessGroup):
                raise TypeError(
                    f"process_group must be 'auto', None or a ProcessGroup, got {process_group!r}"
                )
            self.group = process_group
        if self.group is not None and dist.get_world_size(self.group) == 1:
            self.group = None
        parts = [(key, list(p.shape), _part(key, p)) for key, p in params.items()]
        self._parts = {key: part for key, _, part in parts}
        self.rank = 0 if self.group is None else dist.get_rank(self.group)
        if self.group is None:
            for key, p in params.items():
                _require_whole(key, p)
            self.owned = dict.fromkeys(params, True)
            return
        everyone: list[Any] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(everyone, parts, group=self.group)
        self._require_same(everyone)
        self.owned = {
            key: all(everyone[other][i][2] != part for other in range(self.rank))
            for i, (key, _, part) in enumerate(parts)
        }

    def labelled(self, key: str, t: torch.Tensor) -> torch.Tensor:
        """t with a label that says which part of the parameter this rank holds."""
        if _is_dtensor(t):
            setattr(t, _LABEL, self._parts[key])
        return t

    def require_own(self, key: str, t: torch.Tensor) -> None:
        """Raises ValueError if t was labelled by a rank that holds another part.

        torch.save on one rank writes the part of that rank; torch.distributed.checkpoint writes all
        of them, and fills the tensors that it was given.
        """
        part = getattr(t, _LABEL, None)
        if part is not None and tuple(part) != self._parts[key]:
            raise ValueError(
                f"the saved state must have this rank's part {self._parts[key]} of parameter "
                f"{key!r}, got part {tuple(part)}: save shards with torch.distributed.checkpoint, "
                "or a file for each rank"
            )

    def sum(self, products: torch.Tensor) -> torch.Tensor:
        """Σ over the ranks, in place, where there are several."""
        if self.group is not None:
            dist.all_reduce(products, group=self.group)
        return products

    @staticmethod
    def _require_same(everyone: Sequence[Any]) -> None:
        first = [(key, shape) for key, shape, _ in everyone[0]]
        for rank, theirs in enumerate(everyone):
            named = [(key, shape) for key, shape, _ in theirs]
            if named != first:
                odd = next((b for a, b in zip(first, named, strict=False) if a != b), None)
                raise ValueError(
                    "all ranks of process_group must track the same parameters in the same order, "
                    f"got {len(first)} on rank 0 and {len(named)} on rank {rank}"
                    + (f", where {odd[0]!r} has shape {odd[1]}" if odd else "")
                    + "; process_group=None follows this rank's own"
                )


def _part(key: str, p: Any) -> tuple[int, ...]:
    """Which part of p this rank holds: its coordinates along the dimensions that split p."""
    if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
        raise ValueError(
            f"parameter {key!r} is FSDP1's, whose shards cannot be told apart: use fully_shard"
        )
    if not _is_dtensor(p):
        return ()
    for placement in p.placements:
        if placement.is_partial():
            raise ValueError(f"parameter {key!r} must be sharded or replicated, got {placement!r}")
    coordinates = p.device_mesh.get_coordinate()
    if coordinates is None:
        raise ValueError(f"parameter {key!r} must have a part on this rank, got {p.device_mesh}")
    # By what is no replica: is_shard() denies the strided shards of tensor parallel with FSDP2.
    return tuple(
        c for c, place in zip(coordinates, p.placements, strict=True) if not place.is_replicate()
    )


def _require_whole(key: str, p: Any) -> None:
    if _is_dtensor(p) and local_part(p).numel() != p.numel():
        raise ValueError(
            f"parameter {key!r} is split over ranks: its angle needs their process_group, got None "
            "(or torch.distributed has one rank)"
        )
