"""Views decoded and cut on a GPU by nvJPEG, through torchvision; not measured on one yet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.data.augment import Draws
from pipeline.data.errors import StoreError
from pipeline.data.images import decode_rgb
from pipeline.data.views import cut, encoded_size, view_of


@dataclass(frozen=True)
class RawImages:
    """Images not yet decoded, in one piece of memory: processes pass on few large tensors, not many small ones."""

    memory: Tensor
    """uint8 (n,)."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each image: bytes (n,) of a JPEG, or pixels (H, W, 3) of what nvJPEG does not decode to RGB."""

    @staticmethod
    def of(contents: Iterable[memoryview]) -> RawImages:
        """Of encoded images."""
        images = [_raw_image(content) for content in contents]
        return RawImages(torch.cat([image.flatten() for image in images]), tuple(tuple(i.shape) for i in images))

    def images(self) -> list[Tensor]:
        """One tensor each, not copied."""
        parts = self.memory.split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _raw_image(content: memoryview) -> Tensor:
    """The bytes of a JPEG, uint8 (n,), or the pixels (H, W, 3) of what nvJPEG does not decode to RGB."""
    if encoded_size(content) is None:
        return torch.from_numpy(decode_rgb(content).copy())
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def decoded_views(batch: RawImages, draws: Draws, crop: int, device: torch.device) -> Tensor:
    """The views, uint8 (n, crop, crop, 3) on `device`, that the rows of `draws` give of the images.

    StoreError when an image cannot be decoded.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    raw = batch.images()
    encoded = [row for row, image in enumerate(raw) if image.ndim == 1]
    try:
        decoded = decode_jpeg([raw[row] for row in encoded], ImageReadMode.RGB, device) if encoded else []
    except RuntimeError as error:
        raise StoreError(
            f"a JPEG of the batch cannot be decoded on {device}: {error}; prepare the data again"
        ) from error
    pixels = {row: image.permute(1, 2, 0) for row, image in zip(encoded, decoded, strict=True)}
    views = torch.empty(len(raw), crop, crop, 3, dtype=torch.uint8, device=device)
    for row, image in enumerate(raw):
        views[row] = _view(pixels[row] if row in pixels else image.to(device), draws, row, crop)
    return views


def _view(image: Tensor, draws: Draws, row: int, crop: int) -> Tensor:
    view = view_of(image.shape[0], image.shape[1], draws, row, crop)
    return cut(image.float(), view, crop).round_().clamp_(0, 255).to(torch.uint8)
