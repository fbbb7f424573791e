"""Batches for training: the same images in the same views, whatever the number of workers and wherever it starts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.data.augment import Draws, color_noise, crop_offset, crops, pad_zeros, sent
from pipeline.data.batches import Encoded, Share, Views, batches_of
from pipeline.data.nvjpeg import decoded_views
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
        jpeg_decoder: Literal["simplejpeg", "nvjpeg"] = "simplejpeg",
    ) -> None:
        """Load images `indices` of `split`; `batch_size` counts all ranks together.

        `processes` decode and crop beside this one; images that need neither are always taken here. With nvjpeg they
        read the encoded images alone and the GPU does the rest. ValueError when crops do not fit, an image has no
        label, or ranks and batch size do not agree.
        """
        if not 0 <= rank < world_size or world_size > batch_size:
            raise ValueError(f"rank {rank} of {world_size} cannot have a share of batches of {batch_size}")
        self._check(split, indices, augmentation)
        bounds = (batch_size * rank // world_size, batch_size * (rank + 1) // world_size)
        plan = Plan(len(indices), batch_size, seed)
        self._share = Share(split, np.asarray(indices), plan, augmentation, *bounds)
        self._labels = np.array(split.labels)
        self._statistics, self._augmentation = statistics, augmentation
        self._processes, self._device = processes, torch.device(device)
        self._on_device = jpeg_decoder == "nvjpeg" and split.shape is None
        if self._on_device and self._device.type != "cuda":
            raise ValueError(f"jpeg_decoder: nvjpeg works on a CUDA device, not on {self._device}")
        self._split = split

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of batch `start`, `start` + 1, …, on the device.

        Images are float32 (n, 3, crop, crop) in channels_last order, labels int64 (n,). LoaderError when a loader
        process is killed, StoreError for what cannot be loaded.
        """
        inputs = self._whole_batches(start) if self._as_stored else self._view_batches(start)
        for iteration, images in zip(itertools.count(start), inputs, strict=False):
            yield images, sent(self._labels[self._share.images(iteration)], self._device)

    @property
    def _as_stored(self) -> bool:
        """Whether whole batches can be cut without resizing: images of one size, which is that of the views."""
        scale, shape = self._augmentation.scale, self._split.shape
        return shape is not None and (scale is None or set(scale) == {min(shape[:2])})

    def _view_batches(self, start: int) -> Iterator[Tensor]:
        for iteration, views in enumerate(self._decoded_here(start) if self._on_device else self._views(start), start):
            noise = self._noise(self._share.draws(iteration))
            yield normalise(views.to(self._device, non_blocking=True), self._statistics, noise)

    def _views(self, start: int) -> Iterator[Tensor]:
        makers = Views(self._share, reuse_memory=not self._processes)
        return batches_of(makers, start, self._processes, pin=self._device.type == "cuda")

    def _decoded_here(self, start: int) -> Iterator[Tensor]:
        batches = batches_of(Encoded(self._share), start, self._processes, pin=False)
        for iteration, raw in enumerate(batches, start):
            yield decoded_views(raw, self._share.draws(iteration), self._augmentation.crop, self._device)

    def _whole_batches(self, start: int) -> Iterator[Tensor]:
        for iteration in itertools.count(start):
            pixels = self._chosen(self._share.images(iteration))
            draws = self._share.draws(iteration)
            yield self._padded(pixels, draws) if self._augmentation.pad else self._cropped(pixels, draws)

    def _chosen(self, images: np.ndarray) -> Tensor:
        """Stored images by position, on the device; a GPU has them all, and is told the positions."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._pixels[images])
        return self._resident[sent(images, self._device)]

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        return self._split.array()

    @functools.cached_property
    def _resident(self) -> Tensor:
        return torch.from_numpy(self._split.array().copy()).to(self._device)

    def _padded(self, pixels: Tensor, draws: Draws) -> Tensor:
        """The mean is subtracted, and colour added, before the zeros are put around the image."""
        images = normalise(pixels, self._statistics, self._noise(draws)).permute(0, 2, 3, 1)
        return self._cut(pad_zeros(images, self._augmentation.pad), draws).permute(0, 3, 1, 2)

    def _cropped(self, pixels: Tensor, draws: Draws) -> Tensor:
        """The mean image is subtracted where the pixels lie in the crop."""
        return normalise(self._cut(pixels, draws), self._statistics, self._noise(draws))

    def _cut(self, images: Tensor, draws: Draws) -> Tensor:
        crop = self._augmentation.crop
        top, left = crop_offset(draws.position, images.shape[1], images.shape[2], crop)
        return crops(images, top, left, draws.mirror, crop)

    def _noise(self, draws: Draws) -> Tensor | None:
        return color_noise(draws, self._statistics) if self._augmentation.color_noise else None

    @staticmethod
    def _check(split: Split, indices: np.ndarray, augmentation: Augmentation) -> None:
        if (split.labels[indices] < 0).any():
            raise ValueError(f"the {split.name} split has images without labels: it cannot be trained on")
        scaled = split.shape is None or (
            augmentation.scale is not None and set(augmentation.scale) != {min(split.shape[:2])}
        )
        if augmentation.pad and scaled:
            raise ValueError("augmentation.pad needs images that are kept decoded and are not resized")
