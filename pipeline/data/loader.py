"""Batches for training: the same images in the same views, whatever the number of workers and wherever it starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.data.augment import Draws, color_noise, crop_offset, crops, draw, pad_zeros, scaled_views
from pipeline.data.plan import Plan
from pipeline.data.statistics import InputStatistics, normalise
from pipeline.data.store import Split
from pipeline.schema import Augmentation


class TrainingLoader:
    """Endless batches of augmented training images, of which each rank gets its contiguous share."""

    def __init__(
        self,
        split: Split,
        indices: np.ndarray,
        *,
        augmentation: Augmentation,
        statistics: InputStatistics,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        processes: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        """Load images `indices` of `split`; `batch_size` counts all ranks together.

        ValueError when crops do not fit, an image has no label, or ranks and batch size do not agree.
        """
        if not 0 <= rank < world_size or world_size > batch_size:
            raise ValueError(f"rank {rank} of {world_size} cannot have a share of batches of {batch_size}")
        self._indices = np.asarray(indices)
        self._labels = split.labels[self._indices]
        if (self._labels < 0).any():
            raise ValueError(f"the {split.name} split has images without labels: it cannot be trained on")
        self._augmentation, self._statistics = augmentation, statistics
        self._plan = Plan(len(self._indices), batch_size, seed)
        self._share = (batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
        self._device = torch.device(device)
        self._images = split.array()

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of batch `start`, `start` + 1, …, on the device.

        Images are float32 (n, 3, crop, crop) in channels_last order, labels int64 (n,).
        """
        for iteration in itertools.count(start):
            yield self._batch(iteration)

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        chosen = self._plan.indices(iteration)[slice(*self._share)]
        draws = draw(self._plan.generator(iteration), self._plan.batch_size, self._augmentation).part(*self._share)
        pixels = self._images[self._indices[chosen]]
        inputs = self._padded(pixels, draws) if self._augmentation.pad else self._cropped(pixels, draws)
        if self._augmentation.color_noise:
            inputs += color_noise(draws, self._statistics).to(self._device)[:, :, None, None]
        return inputs, torch.from_numpy(self._labels[chosen]).to(self._device)

    def _padded(self, pixels: np.ndarray, draws: Draws) -> Tensor:
        """The mean is subtracted where the pixels lie in the image; the zeros around it are then the mean's."""
        images = normalise(torch.from_numpy(pixels).to(self._device), self._statistics).permute(0, 2, 3, 1)
        padded = pad_zeros(images, self._augmentation.pad)
        return self._cut(padded, draws).permute(0, 3, 1, 2)

    def _cropped(self, pixels: np.ndarray, draws: Draws) -> Tensor:
        """The mean image is subtracted where the pixels lie in the crop."""
        scale = self._augmentation.scale
        if scale is None or set(scale) == {min(pixels.shape[1:3])}:
            views = self._cut(torch.from_numpy(pixels).to(self._device), draws)
        else:
            views = torch.from_numpy(scaled_views(pixels, draws, self._augmentation.crop)).to(self._device)
        return normalise(views, self._statistics)

    def _cut(self, images: Tensor, draws: Draws) -> Tensor:
        crop = self._augmentation.crop
        top, left = crop_offset(draws.position, images.shape[1], images.shape[2], crop)
        return crops(images, top, left, draws.mirror, crop)
