"""The one resize of the project: PIL's antialiased bilinear filter."""

from __future__ import annotations

import numpy as np
from PIL import Image


def scaled_size(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Height and width with the shorter side at `shorter_side`, the longer one rounded down, as torchvision has it."""
    if height <= width:
        return shorter_side, int(shorter_side * width / height)
    return int(shorter_side * height / width), shorter_side


def resize_shorter_side(image: np.ndarray, shorter_side: int) -> np.ndarray:
    """An RGB image, uint8 (H, W, 3), with its shorter side at `shorter_side` pixels; itself where it is so already."""
    height, width = image.shape[:2]
    if min(height, width) == shorter_side:
        return image
    new_height, new_width = scaled_size(height, width, shorter_side)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def center_crop(image: np.ndarray, crop: int) -> np.ndarray:
    """The central `crop` x `crop` pixels of (H, W, 3); ValueError where the image is smaller."""
    height, width = image.shape[:2]
    if min(height, width) < crop:
        raise ValueError(f"a crop of {crop} does not fit into an image of {height}x{width}")
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[top : top + crop, left : left + crop]
