"""Random moves of images: where every pixel goes, and that the moves are the state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paper_checks.training.augment import AugmentName, black, draw, moved

IMAGE = (3, 5, 6)


def images(samples: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(samples, 90, generator=generator) + torch.arange(90) / 90


def by_hand(x: np.ndarray, move: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Pixel by pixel: mirror, then move down and right."""
    down, right, mirrored = move
    source = x[:, :, ::-1] if mirrored else x
    out = np.empty_like(x)
    for c, i, j in np.ndindex(x.shape):
        y, z = i - down, j - right
        inside = 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        out[c, i, j] = source[c, y, z] if inside else outside[c]
    return out


@pytest.mark.parametrize(("name", "reach"), [("shift", 1), ("crop-flip", 4)])
def test_every_pixel(name: AugmentName, reach: int) -> None:
    x = images()
    moves = draw(name, len(x), torch.Generator().manual_seed(0))
    assert moves[:, :2].abs().max() == reach
    assert set(moves[:, 2].tolist()) == ({0, 1} if name == "crop-flip" else {0})
    outside = black(x, IMAGE)
    assert outside.tolist() == x.numpy().reshape(-1, *IMAGE).min(axis=(0, 2, 3)).tolist()
    got = moved(name, x, IMAGE, moves, outside).numpy().reshape(-1, *IMAGE)
    for image, move, out in zip(x.numpy().reshape(-1, *IMAGE), moves.numpy(), got, strict=True):
        # black − black + black may round.
        assert np.allclose(out, by_hand(image, move, outside.numpy()), rtol=0, atol=1e-6)
    if name == "crop-flip":  # negative control: the mirror matters
        moves[:, 2] = 1 - moves[:, 2]
        assert not np.array_equal(got.reshape(len(x), -1), moved(name, x, IMAGE, moves, outside))


def test_none_draws_and_moves_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw("none", 5, generator).shape == (0, 3)
    assert torch.equal(generator.get_state(), before)
    x = images(4)
    assert moved("none", x, IMAGE, torch.empty(0, 3), torch.empty(0)) is x
