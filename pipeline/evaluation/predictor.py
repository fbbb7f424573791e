"""Class probabilities of images by the paper's test protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.data.resize import resize_shorter_side
from pipeline.data.statistics import InputStatistics, normalise
from pipeline.evaluation.views import center_crop, five_crop
from pipeline.models import score_map
from pipeline.models.saved import INPUT, load_network
from pipeline.schema import CenterCrop, MultiScale, SingleView, TenCrop
from pipeline.training.precision import autocast, resolve_precision

Protocol = SingleView | CenterCrop | TenCrop | MultiScale
Images = Sequence[np.ndarray] | np.ndarray


class Predictor:
    """A trained network with its input statistics, ready to look at images."""

    def __init__(
        self,
        network: nn.Module,
        statistics: InputStatistics,
        class_names: Sequence[str],
        *,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        batch_size: int = 512,
    ) -> None:
        self._device = torch.device(device)
        self.network = network.to(self._device).to(memory_format=torch.channels_last).eval()
        self._statistics = statistics
        self._batch_size = batch_size
        self.class_names = tuple(class_names)
        self.precision = resolve_precision(precision, self._device)

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", precision: str = "fp32", batch_size: int = 512
    ) -> Predictor:
        """The predictor of a model folder; ValueError if its weights were altered."""
        network, card = load_network(folder)
        statistics = InputStatistics.load(Path(folder) / INPUT)
        return cls(network, statistics, card.class_names, device=device, precision=precision, batch_size=batch_size)

    @torch.inference_mode()
    def predict(self, images: Images, protocol: Protocol) -> np.ndarray:
        """Probabilities, float32 (N, classes), of RGB images (each uint8 (h, w, 3)) by a protocol.

        ValueError for images of another type or too small for the protocol's crop.
        """
        _check(images)
        if isinstance(protocol, MultiScale):
            return self._multi_scale(images, protocol)
        side = None if isinstance(protocol, SingleView) else protocol.shorter_side
        return self._by_shape(images, side, self._views_of(protocol))

    def inputs(self, images: Images, protocol: SingleView | CenterCrop) -> Iterator[torch.Tensor]:
        """What the network is given of each image by a protocol of one view: float32 (n, 3, h, w), in batches."""
        _check(images)
        side = None if isinstance(protocol, SingleView) else protocol.shorter_side
        for _, batch in _batches(images, side, self._batch_size):
            pixels = torch.from_numpy(batch)
            yield self._normalised(
                center_crop(pixels, protocol.crop).squeeze(1) if isinstance(protocol, CenterCrop) else pixels
            )

    def _views_of(self, protocol: SingleView | CenterCrop | TenCrop) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from images (n, h, w, 3) to probabilities (n, classes)."""
        if isinstance(protocol, TenCrop):
            return lambda batch: self._mean_softmax(five_crop(batch, protocol.crop), mirror=True)
        if isinstance(protocol, CenterCrop):
            return lambda batch: self._mean_softmax(center_crop(batch, protocol.crop), mirror=False)
        return lambda batch: self._mean_softmax(batch.unsqueeze(1), mirror=False)

    def _mean_softmax(self, views: torch.Tensor, mirror: bool) -> torch.Tensor:
        """Mean softmax over views (n, views, h, w, 3), and over their mirror images too."""
        pixels = self._normalised(views.flatten(0, 1))
        outputs = [self._softmax(pixels)]
        if mirror:
            outputs.append(self._softmax(pixels.flip(3)))
        return torch.stack([out.view(*views.shape[:2], -1).mean(1) for out in outputs]).mean(0)

    def _softmax(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._forward(self.network, pixels).softmax(1)

    def _multi_scale(self, images: Images, protocol: MultiScale) -> np.ndarray:
        average_softmax = protocol.average == "softmax"

        def scores(batch: torch.Tensor) -> torch.Tensor:
            return self._map_scores(batch, protocol.mirror, average_softmax)

        scales = [self._by_shape(images, side, scores) for side in protocol.shorter_sides]
        mean = torch.from_numpy(np.mean(scales, axis=0))
        return (mean if average_softmax else mean.softmax(1)).numpy()

    def _map_scores(self, batch: torch.Tensor, mirror: bool, softmax: bool) -> torch.Tensor:
        pixels = self._normalised(batch)
        views = [pixels, pixels.flip(3)] if mirror else [pixels]
        found = [self._forward(lambda x: score_map(self.network, x).mean((2, 3)), view) for view in views]
        return torch.stack([scores.softmax(1) if softmax else scores for scores in found]).mean(0)

    def _forward(self, function: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """`function` of (n, 3, h, w), at most `batch_size` at once, in fp32."""
        outputs = []
        for part in pixels.split(self._batch_size):
            with autocast(self.precision, self._device):
                outputs.append(function(part).float())
        return torch.cat(outputs)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        return normalise(images.to(self._device), self._statistics)

    def _by_shape(
        self, images: Images, shorter_side: int | None, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> np.ndarray:
        """`function`'s rows (N, classes), images of equal shape going through it together."""
        rows = np.empty((len(images), len(self.class_names)), np.float32)
        for indices, batch in _batches(images, shorter_side, self._batch_size):
            rows[indices] = function(torch.from_numpy(batch)).cpu().numpy()
        return rows


def _batches(images: Images, side: int | None, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Indices and stacked images (n, h, w, 3), n ≤ size, of equal shape after resizing."""
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for index, image in enumerate(images):
        resized = image if side is None else resize_shorter_side(image, side)
        group = waiting.setdefault(resized.shape, [])
        group.append((index, resized))
        if len(group) == size:
            yield _stack(waiting.pop(resized.shape))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
    return [index for index, _ in group], np.stack([image for _, image in group])


def _check(images: Images) -> None:
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image {index}: {image.dtype} {image.shape}; give uint8 of shape (height, width, 3)")
