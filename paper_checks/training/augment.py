"""Random moves of images, drawn for a whole epoch at once and made on the device of the images.

    moves = draw("shift", N, generator)         # on the CPU, part of a run's state
    x = moved("shift", x, image, moves, black)  # a function: the same moves give the same images

"shift" moves by −1, 0 or 1 pixels in each direction; "crop-flip" by up to 4, and mirrors left and
right half of the time, as is usual for CIFAR. What comes in from outside is black.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import pad

AugmentName = Literal["none", "shift", "crop-flip"]

_REACH = {"shift": 1, "crop-flip": 4}


def draw(name: AugmentName, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (down, right, mirrored), int64 of shape (samples, 3); no rows for "none"."""
    if name == "none":
        return torch.empty(0, 3, dtype=torch.int64)
    reach = _REACH[name]
    shifts = torch.randint(0, 2 * reach + 1, (samples, 2), generator=generator)
    mirrored = torch.zeros(samples, 1, dtype=torch.int64)
    if name == "crop-flip":
        mirrored = torch.randint(0, 2, (samples, 1), generator=generator)
    return torch.cat([shifts - reach, mirrored], dim=1)


def black(x: torch.Tensor, image: tuple[int, ...]) -> torch.Tensor:
    """Least value of each channel, shape (channels,): of x (N, features), images of that shape."""
    return x.unflatten(1, image).amin(dim=(0, 2, 3))


def moved(
    name: AugmentName,
    x: torch.Tensor,
    image: tuple[int, ...],
    moves: torch.Tensor,
    black: torch.Tensor,
) -> torch.Tensor:
    """Images x of shape (N, features), each moved by its row of `moves`; the same shape."""
    if name == "none":
        return x
    reach = _REACH[name]
    channels, height, width = image
    # Padding knows one value for all channels, so black is 0 meanwhile.
    images = x.unflatten(1, image) - black[:, None, None]
    padded = pad(images, (reach,) * 4) + black[:, None, None]
    down, right, mirrored = moves.to(x.device).unbind(1)
    rows = reach - down[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device) - right[:, None]
    columns = reach + torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
    cells = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    cells = cells.flatten(1)[:, None, :].expand(-1, channels, -1)
    return padded.flatten(2).gather(2, cells).flatten(1)
