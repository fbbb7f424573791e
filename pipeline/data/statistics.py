"""The mean image and the colours' principal components of the training images, and their use on a batch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor
from torch.nn import functional

from pipeline.data.errors import StoreError
from pipeline.data.resize import center_crop, resize_shorter_side

if TYPE_CHECKING:
    from pipeline.data.store import Store
    from pipeline.schema import Mean


_LARGE_IMAGE = 2**15
_ARRAYS = ("mean", "std", "eigenvalues", "eigenvectors")


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What is subtracted from, and divided into, a network's input; pixel values run from 0 to 255."""

    mean: np.ndarray
    """float32, per pixel (crop, crop, 3) or per channel (3,)."""
    std: np.ndarray | None = None
    """float32 (3,); null leaves the images undivided."""
    eigenvalues: np.ndarray | None = None
    """float32 (3,), descending: variances of the training pixels along the principal colours."""
    eigenvectors: np.ndarray | None = None
    """float32 (3, 3): the principal colours as rows."""

    def save(self, path: str | Path) -> None:
        """Write all arrays that are set to a safetensors file."""
        # safetensors writes an array's memory as it lies, whatever its strides
        present = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        arrays = {name: np.ascontiguousarray(value) for name, value in present.items()}
        Path(path).write_bytes(save(arrays))

    @staticmethod
    def load(path: str | Path) -> InputStatistics:
        """Read what `save` wrote; StoreError when it is not that."""
        try:
            return InputStatistics(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise StoreError(f"{path}: not readable as input statistics ({error})") from error

    @staticmethod
    def of_store(store: Store, mean: Mean) -> InputStatistics:
        """The store's statistics in the form `mean` asks for; StoreError when they were taken over another view."""
        taken = store.manifest.mean
        if (taken.shorter_side, taken.crop) != (mean.shorter_side, mean.crop):
            raise StoreError(
                f"the store's mean was taken at shorter side {taken.shorter_side}, crop {taken.crop},"
                f" but data.mean asks for {mean.shorter_side} and {mean.crop}: run the prepare stage"
            )
        whole = store.opened(store.manifest.statistics, InputStatistics.load)
        if mean.kind == "per_channel":
            mean_value = whole.mean.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
        else:
            mean_value = whole.mean
        std = whole.std if mean.divide_by_std else None
        return InputStatistics(mean_value, std, whole.eigenvalues, whole.eigenvectors)

    @functools.lru_cache(maxsize=16)  # noqa: B019 - statistics live as long as the process
    def mean_for(self, height: int, width: int) -> np.ndarray:
        """The mean image resized to `height` x `width` (bilinear), or the mean colour (3,): a declared choice."""
        if self.mean.ndim == 1 or self.mean.shape[:2] == (height, width):
            return self.mean
        image = torch.from_numpy(self.mean).permute(2, 0, 1)[None]
        resized = functional.interpolate(image, size=(height, width), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).contiguous().numpy()

    @functools.lru_cache(maxsize=16)  # noqa: B019 - as above; without it a GPU would be waited for at each batch
    def rows_for(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Mean (height or 1, width, 3) and deviation (1, width, 3) on the device, as rows of pixels."""
        mean = _as_rows(torch.from_numpy(self.mean_for(height, width)), width).to(device)
        std = None if self.std is None else _as_rows(torch.from_numpy(self.std), width).to(device)
        return mean, std


def normalise(images: Tensor, statistics: InputStatistics, shift: Tensor | None = None) -> Tensor:
    """Images uint8 (N, h, w, 3) as network input, float32 (N, 3, h, w) in channels_last order: (x - mean) / std.

    The mean image is subtracted, resized to the images' size where that is another. `shift` (N, 3) is
    a colour that is added to each image's result.
    """
    width, device = images.shape[2], images.device
    mean, std = statistics.rows_for(images.shape[1], width, device)
    added = None if shift is None else _as_rows(_sent(shift, device), width)[:, None]
    inputs = torch.empty(images.shape, device=images.device)
    # large images one by one on the CPU, so that the mean stays in its cache
    singly = images.device.type == "cpu" and images[:1].numel() >= _LARGE_IMAGE
    for part in range(len(images)) if singly else (slice(None),):
        torch.sub(images[part], mean, out=inputs[part])
        if std is not None:
            inputs[part].div_(std)
        if added is not None:
            inputs[part].add_(added[part])
    return inputs.permute(0, 3, 1, 2)


def _sent(colours: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU through pinned memory, as it would be waited for otherwise."""
    return (colours.pin_memory() if device.type == "cuda" else colours).to(device, non_blocking=True)


def _as_rows(colours: Tensor, width: int) -> Tensor:
    """Colours (…, 3) repeated to (…, width, 3), which adds to rows of pixels much faster; a mean image as is."""
    return colours if colours.ndim == 3 else colours[..., None, :].repeat_interleave(width, dim=-2)


@dataclass
class Sums:
    """Exact integer sums over centre crops: they do not depend on the order in which images were added."""

    images: int
    pixels: np.ndarray
    """int64 (crop, crop, 3): the sum of the images."""
    products: np.ndarray
    """int64 (3, 3): the sum of the pixels' outer products."""

    @staticmethod
    def zero(crop: int) -> Sums:
        """Of no image."""
        return Sums(0, np.zeros((crop, crop, 3), np.int64), np.zeros((3, 3), np.int64))

    def add_image(self, image: np.ndarray, shorter_side: int | None) -> None:
        """Add the centre crop of an image, uint8 (H, W, 3), resized to `shorter_side` where that is set."""
        sized = image if shorter_side is None else resize_shorter_side(image, shorter_side)
        view = center_crop(sized, self.pixels.shape[0])
        self.images += 1
        self.pixels += view
        # float32 would round and integer matrix products are slow; float64 is exact below 2**53
        colours = view.reshape(-1, 3).astype(np.float64)
        self.products += (colours.T @ colours).astype(np.int64)

    def add(self, other: Sums) -> None:
        """Add another set of images."""
        self.images += other.images
        self.pixels += other.pixels
        self.products += other.products

    def statistics(self) -> InputStatistics:
        """Per-pixel mean, per-channel standard deviation and principal colours; ValueError for no image."""
        if not self.images:
            raise ValueError("the train split has no image to take the mean of")
        mean = self.pixels / self.images
        colour = mean.mean(axis=(0, 1))
        covariance = self.products / (self.images * mean.shape[0] * mean.shape[1]) - np.outer(colour, colour)
        eigenvalues, eigenvectors = _principal_colours(covariance)
        std = np.sqrt(np.diag(covariance))
        return InputStatistics(*(a.astype(np.float32) for a in (mean, std, eigenvalues, eigenvectors)))


def _principal_colours(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, columns = np.linalg.eigh(covariance)
    rows = columns.T[::-1]
    largest = rows[np.arange(3), np.abs(rows).argmax(axis=1)]
    descending = values[::-1]
    negligible = descending < 1e-9 * descending[0]
    return np.where(negligible, 0, descending), rows * np.sign(largest)[:, None]
