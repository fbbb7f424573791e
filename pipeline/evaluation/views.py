"""The crops of an image that the test protocols look at."""

from __future__ import annotations

import torch


def center_crop(images: torch.Tensor, crop: int) -> torch.Tensor:
    """The centre crop (N, 1, crop, crop, 3) of images (N, h, w, 3); the upper left of two middles."""
    _check(images, crop)
    top, left = (images.shape[1] - crop) // 2, (images.shape[2] - crop) // 2
    return _window(images, top, left, crop).unsqueeze(1)


def five_crop(images: torch.Tensor, crop: int) -> torch.Tensor:
    """Four corners and the centre, (N, 5, crop, crop, 3), of the full rectangles (N, h, w, 3)."""
    _check(images, crop)
    bottom, right = images.shape[1] - crop, images.shape[2] - crop
    corners = [_window(images, y, x, crop) for y in (0, bottom) for x in (0, right)]
    return torch.stack([*corners, center_crop(images, crop).squeeze(1)], dim=1)


def _window(images: torch.Tensor, top: int, left: int, crop: int) -> torch.Tensor:
    return images[:, top : top + crop, left : left + crop]


def _check(images: torch.Tensor, crop: int) -> None:
    if min(images.shape[1:3]) < crop:
        raise ValueError(f"crop: {crop} does not fit into images of {images.shape[1]}×{images.shape[2]} pixels")
