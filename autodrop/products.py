"""Sums of products of two steps, in float64, and what a sample says of its own error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from autodrop.sources import Source

__all__ = ["WIDTH", "products", "standard_error", "summed"]

# ⟨s,s⟩, ⟨d,d⟩, ⟨s,d⟩ and, of samples, the covariance of their errors: ss·ss, dd·dd, sd·sd, ss·dd,
# ss·sd, dd·sd.
WIDTH = 9
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

# What sums of products and their differences leave of the terms of a variance.
_ROUNDING = 2.0**-50


def products(
    s: Sequence[torch.Tensor], d: Sequence[torch.Tensor], sampled: bool
) -> Sequence[torch.Tensor]:
    """(⟨s,s⟩, ⟨d,d⟩, ⟨s,d⟩, 0, …) of each of several s and d, all in float64: WIDTH numbers.

    Of samples the sums of their terms' products in place of 0, …
    """
    if sampled:
        return [_sample_products(u, v) for u, v in zip(s, d, strict=True)]
    dots = [w for u, v in zip(s, d, strict=True) for w in (u.dot(u), v.dot(v), u.dot(v))]
    # Together, since each operation costs as much as a product of short vectors.
    return torch.nn.functional.pad(torch.stack(dots).view(-1, 3), (0, WIDTH - 3)).unbind()


def _sample_products(s: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    terms = (s * s, d * d, s * d)
    return torch.stack(
        (*(term.sum() for term in terms), *(terms[i].dot(terms[j]) for i, j in _PAIRS))
    )


def summed(source: Source, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """The WIDTH numbers of one vector from those of its pieces.

    Of a sample of m among n elements, drawn without replacement: n/m times its sums, and n²(1 −
    m/n)/m times the sample covariance of its terms (Cochran, "Sampling Techniques", 1977, §2.5).
    """
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    if not source.sampled:
        return total
    n, m = source.population, source.size
    sums, squares = total.split((3, len(_PAIRS)))
    each = sums.unbind()
    outer = torch.stack([each[i] * each[j] for i, j in _PAIRS])
    covariance = (squares - outer / m) / (m - 1)
    return torch.cat((sums * (n / m), covariance * (n * (n - m) / m)))


def standard_error(row: Sequence[float]) -> float:
    """The standard deviation of θ = arccos(⟨s,d⟩/√(⟨s,s⟩⟨d,d⟩)) over samples, in radians.

    row: the WIDTH numbers, summed over all vectors; ⟨s,s⟩ and ⟨d,d⟩ finite and > 0. First order in
    the errors of the three sums (the delta method): with c = cos θ,
    dc = d⟨s,d⟩/√(⟨s,s⟩⟨d,d⟩) − (c/2)(d⟨s,s⟩/⟨s,s⟩ + d⟨d,d⟩/⟨d,d⟩) and dθ = −dc/sin θ. That holds at
    all angles, since SD(c) falls like sin²θ towards 0° and 180°: the error is in proportion to θ,
    or to 180° − θ. Of less than some 0.01° only rounding is left, and the answer is its size, a few
    1e-3 degrees, which is too large. 0 where nothing was sampled; inf where fourth powers of the
    steps overflow.
    """
    ss, dd, sd, *covariances = row
    if not all(map(math.isfinite, covariances)):
        return math.inf
    length = math.sqrt(ss) * math.sqrt(dd)
    c = max(-1.0, min(1.0, sd / length))
    relative = (-c / 2, -c / 2, 1.0)
    scale = (ss, dd, length)
    terms = [
        (1 if i == j else 2) * relative[i] * relative[j] * (covariance / scale[i] / scale[j])
        for (i, j), covariance in zip(_PAIRS, covariances, strict=True)
    ]
    variance = max(math.fsum(terms), _ROUNDING * math.fsum(map(abs, terms)))
    if variance == 0.0:
        return 0.0
    return math.sqrt(variance) / max(math.sqrt(1.0 - c * c), math.sqrt(math.sqrt(variance)))
