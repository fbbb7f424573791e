"""Class probabilities of images by the paper's test protocols."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.compiling import compiled
from pipeline.data.resize import resize_shorter_side
from pipeline.data.statistics import InputStatistics, normalise
from pipeline.evaluation.views import center_crop, five_crop
from pipeline.models import score_map
from pipeline.models.saved import INPUT, load_network
from pipeline.schema import CenterCrop, MultiScale, SingleView, TenCrop
from pipeline.training.precision import autocast, resolve_precision

Protocol = SingleView | CenterCrop | TenCrop | MultiScale
Images = Sequence[np.ndarray] | np.ndarray
Cut = Callable[[np.ndarray], torch.Tensor]
"""From an image (h, w, 3) to its views (v, h', w', 3), all uint8."""


class Predictor:
    """A trained network with its input statistics, ready to look at images.

    `network` is the network as trained; what predicts is a copy of it with BN folded into the convolutions, made here:
    weights changed later change no prediction.
    """

    def __init__(
        self,
        network: nn.Module,
        statistics: InputStatistics,
        class_names: Sequence[str],
        *,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        batch_size: int = 512,
        compile: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()
        self._folded = fold_batch_norm(self.network).to(memory_format=torch.channels_last)
        self._fast = self._folded
        if compile:
            self._fast = compiled(self._folded, self.device, "evaluation.compile")
        self._usual_batch: dict[tuple[bool, torch.Size], int] = {}
        self._statistics = statistics
        self._batch_size = batch_size
        self.class_names = tuple(class_names)
        self.precision = resolve_precision(precision, self.device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        batch_size: int = 512,
        compile: bool = False,
    ) -> Predictor:
        """The predictor of a model folder; ValueError if its weights were altered."""
        network, card = load_network(folder)
        statistics = InputStatistics.load(Path(folder) / INPUT)
        return cls(
            network,
            statistics,
            card.class_names,
            device=device,
            precision=precision,
            batch_size=batch_size,
            compile=compile,
        )

    @torch.inference_mode()
    def predict(self, images: Images, protocol: Protocol) -> np.ndarray:
        """Probabilities, float32 (N, classes), of RGB images (each uint8 (h, w, 3)) by a protocol.

        ValueError for images of another type or too small for the protocol's crop.
        """
        _check(images)
        if isinstance(protocol, MultiScale):
            return self._multi_scale(images, protocol, {protocol.way: protocol})[protocol.way]
        mirror = isinstance(protocol, TenCrop)
        return self._mean_over_views(images, _views_of(protocol), mirror, lambda pixels: self._softmax(pixels, mirror))

    def inputs(self, images: Images, protocol: SingleView | CenterCrop) -> Iterator[torch.Tensor]:
        """What the network is given of each image by a protocol of one view: float32 (n, 3, h, w), in batches."""
        _check(images)
        for _, views in _batches(images, _views_of(protocol), self._batch_size):
            yield self._normalised(views.squeeze(1))

    @torch.inference_mode()
    def predict_ways(self, images: Images, protocol: MultiScale) -> dict[str, np.ndarray]:
        """Probabilities by all four ways of averaging (`MultiScale.ways`), from one forward pass a view."""
        _check(images)
        return self._multi_scale(images, protocol, protocol.ways())

    def _multi_scale(self, images: Images, protocol: MultiScale, ways: dict[str, MultiScale]) -> dict[str, np.ndarray]:
        total = {name: np.zeros((len(images), len(self.class_names)), np.float64) for name in ways}
        mirror = any(way.mirror for way in ways.values())
        for side in protocol.shorter_sides:
            for indices, scores in self._outputs(images, _whole(side), mirror, self._dense_scores):
                for name, way in ways.items():
                    seen = scores if way.mirror else scores[:1]
                    seen = seen.softmax(3) if way.average == "softmax" else seen
                    total[name][indices] += seen.mean((0, 2)).cpu().numpy()
        return {
            name: self._as_probabilities(total[name] / len(protocol.shorter_sides), way) for name, way in ways.items()
        }

    @staticmethod
    def _as_probabilities(mean: np.ndarray, way: MultiScale) -> np.ndarray:
        found = mean.astype(np.float32)
        return found if way.average == "softmax" else torch.from_numpy(found).softmax(1).numpy()

    def _dense_scores(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._forward(lambda x: score_map(self._folded, x).mean((2, 3)), pixels)

    def _mean_over_views(
        self, images: Images, cut: Cut, mirror: bool, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> np.ndarray:
        """`function`'s rows (N, classes), averaged over an image's views and, with `mirror`, their mirror images."""
        rows = np.empty((len(images), len(self.class_names)), np.float32)
        for indices, outputs in self._outputs(images, cut, mirror, function):
            rows[indices] = outputs.mean((0, 2)).cpu().numpy()
        return rows

    def _outputs(
        self, images: Images, cut: Cut, mirror: bool, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Indices and `function`'s rows (1 or 2, n, v, classes) of n images' views, as they are and mirrored."""
        for indices, views in _batches(images, cut, self._batch_size // (2 if mirror else 1)):
            pixels = self._normalised(views.flatten(0, 1))
            if mirror:
                pixels = torch.cat([pixels, pixels.flip(3)])
            outputs = function(pixels)
            yield indices, outputs.view(-1, *views.shape[:2], outputs.shape[1])

    def _softmax(self, pixels: torch.Tensor, mirror: bool) -> torch.Tensor:
        return self._forward(lambda part: self._scores(part, mirror), pixels).softmax(1)

    def _scores(self, pixels: torch.Tensor, mirror: bool) -> torch.Tensor:
        """Compiled for the first, whole batch of a size of image, with mirror images or without: not for the rest."""
        usual = self._usual_batch.setdefault((mirror, pixels.shape[2:]), len(pixels))
        return cast(torch.Tensor, (self._fast if len(pixels) == usual else self._folded)(pixels))

    def _forward(self, function: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """`function` of (n, 3, h, w), at most `batch_size` at once, in fp32."""
        outputs = []
        for part in pixels.split(self._batch_size):
            with autocast(self.precision, self.device):
                outputs.append(function(part).float())
        return torch.cat(outputs)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        return normalise(images.to(self.device), self._statistics)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, BN in its convolutions' weights; the network itself if it has no BN.

    A BN belongs to the convolution defined just before it in the same module, as everywhere in pipeline.models.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    for module in folded.modules():
        for (conv_name, conv), (bn_name, bn) in itertools.pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, bn))
                setattr(module, bn_name, nn.Identity())
    return folded


def _views_of(protocol: SingleView | CenterCrop | TenCrop) -> Cut:
    """What cuts one image's views, without mirror images."""
    if isinstance(protocol, SingleView):
        return _whole(None)
    crops = five_crop if isinstance(protocol, TenCrop) else center_crop
    whole, crop = _whole(protocol.shorter_side), protocol.crop
    return lambda image: crops(whole(image), crop).squeeze(0)


def _whole(shorter_side: int | None) -> Cut:
    def view(image: np.ndarray) -> torch.Tensor:
        resized = image if shorter_side is None else resize_shorter_side(image, shorter_side)
        return torch.tensor(resized[None])

    return view


def _batches(images: Images, cut: Cut, views_at_once: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Indices and views (n, v, h, w, 3) of images whose views have one shape; n·v ≤ `views_at_once` unless n is 1."""
    waiting: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
    for index, image in enumerate(images):
        views = cut(image)
        group = waiting.setdefault(tuple(views.shape), [])
        group.append((index, views))
        if (len(group) + 1) * len(views) > views_at_once:
            yield _stack(waiting.pop(tuple(views.shape)))
    for group in waiting.values():
        yield _stack(group)


def _stack(group: list[tuple[int, torch.Tensor]]) -> tuple[list[int], torch.Tensor]:
    return [index for index, _ in group], torch.stack([views for _, views in group])


def _check(images: Images) -> None:
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image {index}: {image.dtype} {image.shape}; give uint8 of shape (height, width, 3)")
