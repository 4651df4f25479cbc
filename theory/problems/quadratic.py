"""The noisy quadratic model, UAI 2024, Definition 3.1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoisyQuadratic"]

Array = NDArray[Any]


def _vector(name: str, value: Any) -> Array:
    """A 1-d copy: float64, or object when the entries are exact numbers or symbols."""
    array = np.array(value)
    if array.ndim > 1:
        raise ValueError(f"{name} must be a scalar or a vector, got shape {array.shape}")
    if array.dtype != object:
        if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
        array = array.astype(np.float64)
    infinite = np.array([isinstance(x, float) and not math.isfinite(x) for x in array.flat])
    if infinite.any():
        raise ValueError(f"{name} must be finite, got {array.flat[int(np.argmax(infinite))]}")
    return array


def _first_where(array: Array, condition: Array) -> Any:
    return array[condition].flat[0]


@dataclass(frozen=True, eq=False, init=False)
class NoisyQuadratic:
    """L(x) = ½ (x − c)ᵀ A (x − c), c ~ N(0, Σ), with A = diag(a) and Σ = diag(v).

    The stochastic gradient at x is a (x − c), so its mean is a x and its variance
    a² v; the expected excess risk of x is f(x) = ½ Σ aᵢ xᵢ².

    Parameters
    ----------
    curvature : a, shape (n,); every aᵢ > 0.
    noise_variance : v, scalar or shape (n,); every vᵢ ≥ 0.  Always a
        *variance*: the paper writes both σᵢ (Theorem 3.2) and σᵢ² (its proof) for it.
    start : x₀, scalar or shape (n,); deterministic.

    Scalars are repeated over the modes.  Entries that are exact (`fractions.Fraction`) or
    symbolic (SymPy, with the assumption `positive=True`) are kept as they are, in arrays of
    dtype object; everything else becomes float64.

    Raises
    ------
    ValueError
        If a shape does not fit, a number is not finite, or a sign condition is broken.

    Source: UAI 2024, Definition 3.1, eq. (3), p. 3605, with x* = 0.
    """

    curvature: Array
    noise_variance: Array
    start: Array

    def __init__(self, curvature: Any, noise_variance: Any, start: Any = 0) -> None:
        a = np.atleast_1d(_vector("curvature", curvature))
        if a.size == 0:
            raise ValueError("curvature must have at least one entry, got none")
        if (bad := a <= 0).any():
            raise ValueError(f"curvature must be > 0, got {_first_where(a, bad)}")
        fields = {"curvature": a}
        for name, value in (("noise_variance", noise_variance), ("start", start)):
            vector = _vector(name, value)
            if vector.ndim == 1 and vector.shape != a.shape:
                raise ValueError(
                    f"{name} must be a scalar or have the shape {a.shape} of curvature, "
                    f"got {vector.shape}"
                )
            fields[name] = np.broadcast_to(vector, a.shape).copy()
        v = fields["noise_variance"]
        if (bad := v < 0).any():
            raise ValueError(f"noise_variance must be >= 0, got {_first_where(v, bad)}")
        if any(array.dtype == object for array in fields.values()):
            fields = {name: array.astype(object) for name, array in fields.items()}
        for name, array in fields.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def paper(cls, noise_variance: Any = 0.02, start: Any = 2.0) -> NoisyQuadratic:
        """The paper's instance: n = 200, aᵢ = i/10.

        The paper states neither Σ nor x₀.  Its Figure 1 fits Σ = 0.02 I (see the audit's claim
        `figure-1`); x₀ = 2 in every coordinate is this toolkit's choice.

        Source: UAI 2024, Section 3, p. 3605.
        """
        return cls(np.arange(1, 201) / 10, noise_variance, start)

    @property
    def dimension(self) -> int:
        """n, the number of modes."""
        return self.curvature.shape[0]

    @property
    def exact(self) -> bool:
        """Whether the entries are exact or symbolic (dtype object)."""
        return self.curvature.dtype == object

    def risk(self, iterate: Array) -> Any:
        """f(x) = ½ Σ aᵢ xᵢ², the expected excess risk; the last axis of `iterate` is (n,)."""
        return (self.curvature * iterate**2).sum(axis=-1) / 2

    def gradient(self, iterate: Array, sample: Array) -> Array:
        """G = a (x − c), the stochastic gradient at `iterate` for the sample c."""
        return self.curvature * (iterate - sample)
