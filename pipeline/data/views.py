"""A training view of one image, made with no more work than it needs: the crop alone is resized."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from pipeline.data.augment import Draws, crop_offset
from pipeline.data.images import decode_rgb
from pipeline.data.resize import scaled_size

_ALIGNMENT = 1 / 32
_SCRATCH = threading.local()
_RGB_SPACES = ("YCbCr", "RGB", "Gray")


@dataclass(frozen=True)
class View:
    """A crop of a resized image."""

    resized: tuple[int, int]
    """Height and width of the whole image at the drawn scale."""
    top: int
    left: int
    mirror: bool


def view_of(height: int, width: int, draws: Draws, row: int, crop: int) -> View:
    """The view that row `row` of `draws` gives of an image of `height` x `width`; a scale of 0 keeps its size."""
    scale = int(draws.scale[row])
    resized = scaled_size(height, width, scale) if scale else (height, width)
    top, left = crop_offset(draws.position[row : row + 1], *resized, crop)
    return View(resized, int(top[0]), int(left[0]), bool(draws.mirror[row]))


def cut(image: Tensor, view: View, crop: int) -> Tensor:
    """The view's pixels (crop, crop, 3) of `image` (H, W, 3), uint8 on the CPU or float32 anywhere.

    As the plain way, resizing all of the image with PIL and then cropping, but for rounding and for a shift of at most
    1/32 of a stored pixel, by which the part that is resized begins on a whole pixel.
    """
    height, width = image.shape[:2]
    first_row, rows = _span(height, view.resized[0], view.top, crop)
    first_column, columns = _span(width, view.resized[1], view.left, crop)
    part = image[rows.start : rows.stop, columns.start : columns.stop]
    ratios = height / view.resized[0], width / view.resized[1]
    pixels = _resize(part, view.top - first_row + crop, view.left - first_column + crop, ratios)
    pixels = pixels[view.top - first_row :, view.left - first_column :][:crop, :crop]
    return pixels.flip(1) if view.mirror else pixels


def _span(stored: int, resized: int, offset: int, crop: int) -> tuple[int, range]:
    """For one direction: the first resized pixel to make, at or before `offset`, and the stored pixels it takes.

    The first one is chosen so that it begins on a whole stored pixel; 0 always does.
    """
    ratio = stored / resized
    candidates = np.arange(offset, -1, -1)
    beginnings = candidates * ratio
    chosen = (np.abs(beginnings - np.rint(beginnings)) <= _ALIGNMENT).argmax()
    start = round(float(beginnings[chosen]))
    first = int(candidates[chosen])
    support = max(1.0, ratio)
    return first, range(start, min(stored, start + math.ceil((offset - first + crop) * ratio + support) + 1))


def _resize(part: Tensor, height: int, width: int, ratios: tuple[float, float]) -> Tensor:
    """At least `height` x `width` pixels of `part` resized by `ratios` (stored pixels a resized one), antialiased."""
    # torch copies a direction whose size stays the same, whatever the ratio: one pixel more prevents that
    height += part.shape[0] == height
    width += part.shape[1] == width
    planes = part.contiguous().permute(2, 0, 1)[None]
    # the public interpolate() takes a size or a ratio, where both are needed
    resize = torch.ops.aten._upsample_bilinear2d_aa
    return resize(planes, [height, width], False, 1 / ratios[0], 1 / ratios[1])[0].permute(1, 2, 0)


def encoded_size(content: memoryview) -> tuple[int, int] | None:
    """Height and width of a JPEG that decodes straight to RGB; None for CMYK, rare subsamplings and other formats."""
    if bytes(content[:2]) != b"\xff\xd8":
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (height, width) if space in _RGB_SPACES else None


def decode(content: memoryview, scale: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels uint8 (H, W, 3) fit for views of shorter side `scale`, and the image's own height and width.

    A JPEG of four times that shorter side or more is decoded at 1/2, 1/4 or 1/8 in the DCT domain, keeping at least
    twice the resolution that is needed. The pixels are overwritten by the thread's next call.
    """
    size = encoded_size(content)
    if size is None:
        pixels = decode_rgb(content).copy()
        return pixels, (pixels.shape[0], pixels.shape[1])
    factor = next((f for f in (8, 4, 2) if scale and min(size) >= 2 * f * scale), 1)
    if factor == 1:
        return _decode_jpeg(content, size), size
    height, width = -(-size[0] // factor), -(-size[1] // factor)
    return _decode_jpeg(content, size, min_height=height, min_width=width, min_factor=factor), size


def _decode_jpeg(content: memoryview, size: tuple[int, int], **scaling: int) -> np.ndarray:
    """Decoded into memory that the thread's next call overwrites: new memory for each image costs more than copying."""
    needed = size[0] * size[1] * 3
    memory = getattr(_SCRATCH, "memory", None)
    if memory is None or len(memory) < needed:
        memory = _SCRATCH.memory = np.empty(needed, np.uint8)
    return simplejpeg.decode_jpeg(content, buffer=memory, strict=False, **scaling)


def training_view(content: memoryview, draws: Draws, row: int, crop: int) -> Tensor:
    """The view, uint8 (crop, crop, 3), that row `row` of `draws` gives of an encoded image."""
    pixels, size = decode(content, int(draws.scale[row]))
    return cut(torch.from_numpy(pixels), view_of(*size, draws, row, crop), crop)
