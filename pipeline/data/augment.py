"""The paper's augmentation: what is drawn for a batch, and the views cut accordingly (sections 3.4 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from pipeline.data.statistics import InputStatistics
    from pipeline.schema import Augmentation


@dataclass(frozen=True)
class Draws:
    """Random figures for n images; all are drawn whatever is used, so that one option does not change another's."""

    scale: np.ndarray
    """int64 (n,): the shorter side; 0 leaves the stored size."""
    position: np.ndarray
    """float64 (n, 2) in [0, 1): where the crop lies, down and across, between its extremes."""
    mirror: np.ndarray
    """bool (n,)."""
    noise: np.ndarray
    """float32 (n, 3): amounts of the principal colours, in their standard deviations."""

    def part(self, start: int, stop: int) -> Draws:
        """The draws of images start..stop."""
        return Draws(*(value[start:stop] for value in (self.scale, self.position, self.mirror, self.noise)))


def draw(generator: np.random.Generator, n_images: int, augmentation: Augmentation) -> Draws:
    """Draws for a batch of `n_images`."""
    low, high = augmentation.scale or (0, 0)
    scale = generator.integers(low, high, n_images, endpoint=True)
    position = generator.random((n_images, 2))
    mirror = (generator.random(n_images) < 0.5) & augmentation.mirror
    noise = generator.standard_normal((n_images, 3)) * augmentation.color_noise
    return Draws(scale, position, mirror, noise.astype(np.float32))


def crop_offset(position: np.ndarray, height: int, width: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Top and left, int64 (n,), of crops drawn uniformly among all that fit; ValueError where none does."""
    if min(height, width) < crop:
        raise ValueError(f"augmentation.crop: {crop} does not fit into images of {height}x{width}")
    room = np.array([height - crop + 1, width - crop + 1])
    top, left = (position * room).astype(np.int64).T
    return top, left


def crops(images: Tensor, top: np.ndarray, left: np.ndarray, mirror: np.ndarray, crop: int) -> Tensor:
    """Square parts of images (n, H, W, 3), mirrored where asked: (n, crop, crop, 3) of the same type."""
    steps = np.arange(crop)
    rows = top[:, None] + steps
    columns = left[:, None] + np.where(mirror[:, None], steps[::-1], steps)
    across = torch.arange(images.shape[0], device=images.device)[:, None, None]
    down = sent(rows, images.device)[:, :, None]
    return images[across, down, sent(columns, images.device)[:, None, :]]


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device; to a GPU through pinned memory, so that this process goes on without waiting."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pad_zeros(images: Tensor, pad: int) -> Tensor:
    """Images (n, H, W, 3) with `pad` zeros on each side."""
    return functional.pad(images, (0, 0, pad, pad, pad, pad))


def color_noise(draws: Draws, statistics: InputStatistics) -> Tensor:
    """What is added to every pixel of each image, float32 (n, 3): AlexNet's noise along the principal colours."""
    if statistics.eigenvalues is None or statistics.eigenvectors is None:
        raise ValueError("augmentation.color_noise needs the principal colours of the training images; there are none")
    weights = draws.noise * np.sqrt(statistics.eigenvalues)
    shift = (weights[:, :, None] * statistics.eigenvectors).sum(axis=1)  # a matrix product's bits depend on the batch
    if statistics.std is not None:
        shift = shift / statistics.std
    return torch.from_numpy(shift.astype(np.float32))
