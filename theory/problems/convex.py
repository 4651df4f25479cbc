"""What every convex Lipschitz problem offers, and the array plumbing that they share.

Each method takes numpy arrays or torch tensors and returns the same kind; nothing here imports
torch. The bounds of `theory.bounds` take `**problem.constants()`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ConvexProblem",
    "finite_array",
    "integers",
    "like",
    "namespace",
    "normals",
    "signs",
    "uniforms",
]

Array = NDArray[np.float64]


def namespace(x: Any) -> ModuleType:
    """numpy for a numpy array, torch for a torch tensor; TypeError for anything else."""
    name = type(x).__module__.partition(".")[0]
    if name not in ("numpy", "torch"):
        raise TypeError(f"x must be a numpy array or a torch tensor, got {type(x).__name__}")
    return sys.modules[name]


def like(array: Any, x: Any) -> Any:
    """The array as it is, or as a tensor of the dtype and device of x when x is a tensor."""
    if isinstance(array, np.ndarray) and namespace(x) is not np:
        return x.new_tensor(array)
    return array


def _generator_for(x: Any, rng: Any) -> ModuleType:
    xp = namespace(x)
    if xp is np or not isinstance(rng, xp.Generator):
        raise TypeError(
            "rng must be a numpy.random.Generator, or a torch.Generator for a torch tensor, "
            f"got {type(rng).__name__} for {type(x).__name__}"
        )
    return xp


def normals(x: Any, shape: Iterable[int], rng: Any) -> Any:
    """Independent N(0, 1), of the kind of x.

    A numpy Generator serves both kinds, with the same values; a torch.Generator only tensors, on
    their device.
    """
    if isinstance(rng, np.random.Generator):
        return like(rng.standard_normal(tuple(shape)), x)
    xp = _generator_for(x, rng)
    return xp.randn(tuple(shape), generator=rng, dtype=x.dtype, device=x.device)


def uniforms(x: Any, shape: Iterable[int], rng: Any) -> Any:
    """Independent uniform numbers in [0, 1), of the kind of x; rng as for `normals`."""
    if isinstance(rng, np.random.Generator):
        return like(rng.random(tuple(shape)), x)
    xp = _generator_for(x, rng)
    return xp.rand(tuple(shape), generator=rng, dtype=x.dtype, device=x.device)


def integers(x: Any, high: int, shape: Iterable[int], rng: Any) -> Any:
    """Independent uniform integers in 0 … high − 1, as int64; rng as for `normals`."""
    if isinstance(rng, np.random.Generator):
        drawn = rng.integers(high, size=tuple(shape))
        return drawn if namespace(x) is np else namespace(x).as_tensor(drawn, device=x.device)
    xp = _generator_for(x, rng)
    return xp.randint(high, tuple(shape), generator=rng, device=x.device)


def signs(x: Any, shape: Iterable[int], rng: Any) -> Any:
    """Independent ±1 with probability ½, of the kind of x; rng as for `normals`."""
    bits = integers(x, 2, shape, rng)
    return 2 * (bits.astype(np.float64) if namespace(x) is np else bits.to(x.dtype)) - 1


def finite_array(name: str, value: Any, ndim: int) -> Array:
    """A float64 copy with `ndim` axes, none of them empty; ValueError where an entry is not finite.

    Scalars are promoted: to shape (1,) for ndim = 1.
    """
    array = np.array(value, dtype=np.float64, ndmin=min(ndim, 1))
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must be non-empty with {ndim} axes, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return array


@dataclass(frozen=True, eq=False, init=False)
class ConvexProblem(ABC):
    """f: Rⁿ → R convex, ‖∂f‖ ≤ G, with a stochastic G_t: E G_t = ∂f(x_t), E‖G_t − ∂f‖² ≤ δ².

    Attributes
    ----------
    start : x_0, shape (n,).
    minimiser : x̂, shape (n,); a minimiser, or one to the accuracy of a solver.
    minimum : f(x̂), in units of f.
    minimum_lower : a proven lower bound of f* = inf f; equal to `minimum` where x̂ is exact.
    subgradient_bound : G, an upper bound of the norm of every subgradient.
    noise : δ, the root of an upper bound of E‖G_t − ∂f(x)‖² over all x.

    Whatever x̂ is, the bounds of `theory.bounds` are rigorous with it in the place of x*: their
    proofs use only f(x_t) − f(x̂) ≤ ⟨∂f(x_t), x_t − x̂⟩, which holds for every x̂.  So with R =
    ‖x_0 − x̂‖ they bound the gaps f(x_t) − f(x̂), and `optimality_gap` = minimum − minimum_lower
    ≥ f(x̂) − f* tells how far these are from f(x_t) − f*.

    The noisy quadratic is not of this kind: its gradients are unbounded.
    """

    start: Array
    minimiser: Array
    minimum: float
    minimum_lower: float
    subgradient_bound: float
    noise: float

    def _set(self, **fields: Any) -> None:
        """Set attributes of the frozen object, at construction."""
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _set_start(self, start: Any, dimension: int) -> None:
        x = finite_array("start", start, 1)
        if x.size not in (1, dimension):
            raise ValueError(f"start must be a scalar or have shape ({dimension},), got {x.shape}")
        self._set(start=np.broadcast_to(x, (dimension,)).copy())

    def _namespace(self, x: Any) -> Any:
        """numpy or torch, after checking that x has shape (…, n)."""
        xp = namespace(x)
        if x.ndim == 0 or x.shape[-1] != self.dimension:
            raise ValueError(f"x must have shape (..., {self.dimension}), got {tuple(x.shape)}")
        return xp

    @property
    def dimension(self) -> int:
        """n."""
        return int(self.start.shape[0])

    @property
    def optimality_gap(self) -> float:
        """minimum − minimum_lower ≥ f(x̂) − f* ≥ 0, up to the rounding of `value`."""
        return self.minimum - self.minimum_lower

    @property
    def footprint(self) -> int:
        """How many numbers one trajectory holds while it is advanced and evaluated."""
        return self.dimension

    def constants(self) -> dict[str, float]:
        """R = ‖x_0 − x̂‖, F_0 = f(x_0) − f(x̂) (0 if negative), G and δ, as the bounds take them."""
        return {
            "distance": float(np.linalg.norm(self.start - self.minimiser)),
            "gap": max(0.0, float(self.value(self.start)) - self.minimum),
            "subgradient": self.subgradient_bound,
            "noise": self.noise,
        }

    def on(self, x: Any) -> Self:
        """This problem with its arrays of the kind, dtype and device of x.

        `value` and the others take any kind without it; with it they convert nothing, which is
        what a loop wants.
        """
        copy = object.__new__(type(self))
        for name, value in vars(self).items():
            moved = value.on(x) if isinstance(value, ConvexProblem) else like(value, x)
            object.__setattr__(copy, name, moved)
        return copy

    @abstractmethod
    def value(self, x: Any) -> Any:
        """f(x) for x of shape (…, n); shape (…)."""

    @abstractmethod
    def subgradient(self, x: Any) -> Any:
        """One element of ∂f(x), the same for the same x; shapes (…, n) to (…, n)."""

    def stochastic_subgradient(self, x: Any, rng: Any) -> Any:
        """G_t at x, independent over the leading axes; without noise, ∂f(x).

        rng : a numpy Generator, or for tensors also a torch.Generator on their device.
        """
        return self.subgradient(x)

    def noise_variance_at(self, x: Any) -> Any:
        """E‖G_t − ∂f(x)‖² at x, exactly; shapes (…, n) to (…)."""
        return 0 * self.value(x)
