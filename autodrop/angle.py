"""The angle between two vectors, well conditioned everywhere in [0, π].

acos of a cosine loses half of the digits near 0 and π: in float32 it reads 0.01° as 0. Every angle
of this package comes from 2·atan2(‖û − v̂‖, ‖û + v̂‖) in float64 instead (W. Kahan, "How Futile are
Mindless Assessments of Roundoff in Floating-Point Computation?", 2006, §12).
"""

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["LEAST_SQUARE", "ROUNDING", "angle_between", "angle_from_products"]

ROUNDING = 2.0**-20
"""n products summed in float64 are off by at most n·eps relatively; 2³² terms give this."""

LEAST_SQUARE = 2.0**-970
"""A squared length below this has lost digits to underflow: normal numbers end at 2⁻¹⁰²²."""


@overload
def angle_between(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor: ...
@overload
def angle_between(u: ArrayLike, v: ArrayLike) -> np.ndarray: ...
def angle_between(u: Any, v: Any) -> Any:
    """2·atan2(‖û − v̂‖, ‖û + v̂‖) with û = u/‖u‖, v̂ = v/‖v‖: the angle between u and v, in radians.

    u, v: two real numpy arrays (or what numpy makes one of) or two real torch tensors, of any
    dtype and on one device. The last axis is the vector; leading axes are a batch and broadcast.
    Returns float64 in [0, π] of the batch's shape, from the library of the arguments; computed in
    float64 whatever the dtype, on vectors scaled by their largest entry, so that neither 1e-200
    nor 1e200 under- or overflows. No gradient is recorded.

    Raises TypeError for complex or non-numeric arguments or a mixture of libraries; ValueError for
    shapes that do not match, zero vectors and non-finite entries: there the angle is not defined.
    """
    xp: Any
    if isinstance(u, torch.Tensor) and isinstance(v, torch.Tensor):
        xp, u, v = torch, _real_tensor("u", u), _real_tensor("v", v)
    elif isinstance(u, torch.Tensor) or isinstance(v, torch.Tensor):
        raise TypeError(
            "u and v must both be torch tensors or both be arrays, "
            f"got {type(u).__name__} and {type(v).__name__}"
        )
    else:
        xp, u, v = np, _real_array("u", u), _real_array("v", v)
    if u.ndim == 0 or v.ndim == 0 or u.shape[-1] != v.shape[-1] or u.shape[-1] == 0:
        raise ValueError(
            "u and v must have last axes of one length > 0, "
            f"got shapes {tuple(u.shape)} and {tuple(v.shape)}"
        )
    try:
        np.broadcast_shapes(u.shape[:-1], v.shape[:-1])
    except ValueError as error:
        raise ValueError(
            "the leading axes of u and v must broadcast, "
            f"got shapes {tuple(u.shape)} and {tuple(v.shape)}"
        ) from error
    û, v̂ = _unit(xp, "u", u), _unit(xp, "v", v)
    return 2.0 * xp.arctan2(_norm(xp, û - v̂), _norm(xp, û + v̂))


def angle_from_products(uu: float, vv: float, uv: float) -> float:
    """2·atan2(√(2−2c), √(2+2c)) with c = uv/√(uu·vv): the angle from sums of products, in radians.

    uu = ⟨u,u⟩, vv = ⟨v,v⟩, uv = ⟨u,v⟩, summed in float64 (over as many pieces of u and v as there
    are). Returns a float in [0, π]. The cosine is known to about 2⁻⁵², hence an angle θ to about
    2⁻⁵²/θ radians and the smallest that can be told from 0 is near 1e-8 (1e-6°). Rounding may
    leave c just outside [−1, 1], where it is clamped.

    Equation (8) of the UAI paper (p. 3606), there in degrees and with an ϵ added to √(uu·vv).

    Raises ValueError unless uu and vv are finite and > 0 and uv² ≤ uu·vv but for rounding.
    """
    for name, value in (("uu", uu), ("vv", vv)):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    c = uv / (math.sqrt(uu) * math.sqrt(vv))
    if not abs(c) <= 1.0 + ROUNDING:
        raise ValueError(
            f"uv must satisfy |uv| <= sqrt(uu * vv), got uu = {uu!r}, vv = {vv!r}, uv = {uv!r}"
        )
    c = min(1.0, max(-1.0, c))
    return 2.0 * math.atan2(math.sqrt(2.0 - 2.0 * c), math.sqrt(2.0 + 2.0 * c))


def _real_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real and numeric, got dtype {array.dtype}")
    return array.astype(np.float64)


def _real_tensor(name: str, value: torch.Tensor) -> torch.Tensor:
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be real and numeric, got dtype {value.dtype}")
    return value.detach().to(torch.float64)


def _norm(xp: Any, x: Any) -> Any:
    return xp.sqrt(xp.sum(x * x, axis=-1))


def _unit(xp: Any, name: str, x: Any) -> Any:
    """x/‖x‖; scaled by the largest entry first, so that squares neither overflow nor vanish."""
    if not bool(xp.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got entries that are inf or nan")
    largest = xp.amax(xp.abs(x), axis=-1, keepdims=True)
    if not bool((largest > 0.0).all()):
        raise ValueError(f"{name} must not be zero: a zero vector has no angle, got norm 0.0")
    scaled = x / largest
    return scaled / _norm(xp, scaled)[..., None]
