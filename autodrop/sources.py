"""A live tensor as a vector: all of what this rank holds of it, or a sample of its coordinates."""

from __future__ import annotations

import math

import numpy as np
import torch

from autodrop import distributed

__all__ = ["Source", "layout"]

# Fewest coordinates of a tensor in a sample, for a variance to be estimated from them.
_LEAST_SAMPLE = 16


def layout(t: torch.Tensor) -> list[int]:
    """The strides of the dimensions that have more than one element: the order of the elements."""
    return [stride for size, stride in zip(t.shape, t.stride(), strict=True) if size > 1]


def _dense(t: torch.Tensor) -> bool:
    """Whether the tensor's elements fill its storage range, in any order, once each."""
    expected = 1
    for size, stride in sorted(zip(t.shape, t.stride(), strict=True), key=lambda pair: pair[1]):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


class Source:
    """Where the vector x of a parameter comes from, and what stands for its elements.

    key: the parameter's name. group: number of its group. owned: whether its products count here.
    size: length of x. population: how many elements x stands for, more than `size` in a sample.
    """

    def __init__(
        self,
        key: str,
        parameter: torch.Tensor,
        *,
        group: int = 0,
        owned: bool = True,
        fraction: float = 1.0,
        seed: tuple[int, ...] = (0,),
    ) -> None:
        self.key, self.parameter, self.group, self.owned = key, parameter, group, owned
        self._sharded = distributed.is_sharded(parameter)
        x = self._local()
        self.dtype, self.device, self.population = x.dtype, x.device, x.numel()
        self._layout, self._dense = layout(x), _dense(x)
        self.size = self.population
        self._sample: torch.Tensor | None = None
        if fraction < 1.0:
            wanted = max(math.ceil(fraction * self.population), _LEAST_SAMPLE)
            if wanted < self.population:
                rng = np.random.default_rng(seed)
                chosen = rng.choice(self.population, wanted, replace=False, shuffle=False)
                chosen.sort()
                self._sample = torch.from_numpy(self._stored(chosen, x)).to(x.device)
                self.size = wanted

    def _local(self) -> torch.Tensor:
        return distributed.local_part(self.parameter) if self._sharded else self.parameter.detach()

    def _stored(self, indices: np.ndarray, x: torch.Tensor) -> np.ndarray:
        """Where `read` has the elements with these row-major indices."""
        # By index and not by address: a checkpoint may be loaded into another memory format.
        if self._dense and not x.is_contiguous():
            indices = np.array(x.stride()) @ np.array(np.unravel_index(indices, x.shape))
        return indices.astype(np.int32 if x.numel() < 2**31 else np.int64)

    @property
    def sampled(self) -> bool:
        """Whether x is a sample of the elements."""
        return self._sample is not None

    @property
    def sharded(self) -> bool:
        """Whether this rank holds a part of the parameter."""
        return self._sharded

    def read(self) -> torch.Tensor:
        """x now: a view of the parameter wherever its elements are dense, in their stored order."""
        p = self._local()
        if p.device != self.device:
            raise RuntimeError(
                f"parameter {self.key!r} has moved from {self.device} to {p.device} since tracking "
                "started; make the scheduler or tracker when the model is on its device"
            )
        if not self._dense:
            flat = p.reshape(-1)
        elif p.is_contiguous():
            flat = p.flatten()
        else:
            flat = p.as_strided((p.numel(),), (1,), p.storage_offset())
        return flat if self._sample is None else flat.index_select(0, self._sample)

    def require_layout(self) -> None:
        """Raises RuntimeError if the elements' order in memory is no longer what it was."""
        if layout(self._local()) != self._layout:
            raise RuntimeError(
                f"the memory layout of parameter {self.key!r} has changed since tracking started; "
                "choose the memory_format before the scheduler or tracker is made"
            )

    def shaped(self, vector: torch.Tensor) -> torch.Tensor:
        """A vector in the order of x as a tensor shaped and distributed like the parameter.

        An alias of it; of a sample, the vector itself.
        """
        if self._sample is not None:
            return vector
        p = self._local()
        if self._dense and not p.is_contiguous():
            local = vector.as_strided(p.shape, p.stride(), vector.storage_offset())
        else:
            local = vector.view(p.shape)
        return distributed.whole_of(self.parameter, local)
