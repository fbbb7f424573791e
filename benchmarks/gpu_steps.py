"""The iterations that the GPU's benchmark times, ours and the peer's; torch, torchvision and numpy are enough."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pipeline.data.augment import crop_offset, crops, draw, pad_zeros, sent
from pipeline.data.plan import Plan
from pipeline.models.zoo import build
from pipeline.training.loss import TrainingLoss
from pipeline.training.precision import autocast, resolve_precision

CIFAR_BATCH = 128
CIFAR_VIEWS: Any = SimpleNamespace(scale=None, pad=4, crop=32, mirror=True, color_noise=0.0)
BN_IMAGES, BN_IMAGES_224 = 64, 32
"""Of which a forward and backward pass is, as the presets say; the gradients of a mini-batch's passes add up."""
COMPILED: dict[str, dict[str, Any]] = {"compiled": {}, "compiled with CUDA graphs": {"mode": "reduce-overhead"}}
"""Options of torch.compile; CUDA graphs are none of the pipeline's."""
Steps = Iterator[Any]


def made_up(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (count, 3, size, size) and labels among 1,000, on the device."""
    return torch.randn(count, 3, size, size, device=device), torch.randint(1000, (count,), device=device)


def endlessly(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batch again and again."""
    while True:
        yield images, labels


def cifar_batches(pixels: np.ndarray, labels: np.ndarray, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The paper's views of whole batches, cut on the device, which holds all images (as the pipeline's loader does)."""
    resident, mean = torch.from_numpy(pixels).to(device), torch.from_numpy(pixels.mean(0, dtype=np.float32)).to(device)
    plan, iteration = Plan(len(pixels), CIFAR_BATCH, 0), 0
    while True:
        chosen, draws = plan.indices(iteration), draw(plan.generator(iteration), CIFAR_BATCH, CIFAR_VIEWS)
        padded = pad_zeros(resident[sent(chosen, device)] - mean, CIFAR_VIEWS.pad)
        top, left = crop_offset(draws.position, *padded.shape[1:3], CIFAR_VIEWS.crop)
        views = crops(padded, top, left, draws.mirror, CIFAR_VIEWS.crop)
        yield views.permute(0, 3, 1, 2), sent(labels[chosen], device)
        iteration += 1


def network_of(name: str, classes: int, device: torch.device, way: str) -> tuple[nn.Module, nn.Module]:
    """A network in channels_last order, and the same one as it is to be called.

    Compiled for one shape, whole: beyond so many compilations torch would go on uncompiled and say nothing.
    """
    torch.manual_seed(0)
    network = build(name, classes).to(device).to(memory_format=torch.channels_last)
    if way == "eager":
        return network, network
    return network, cast(nn.Module, torch.compile(network, dynamic=False, fullgraph=True, **COMPILED[way]))


def our_steps(
    name: str, classes: int, batches: Iterator[tuple[Tensor, Tensor]], bn_images: int, device: torch.device, way: str
) -> Steps:
    """Iterations as the pipeline's loop does them, in passes of `bn_images`; nothing waits for the device."""
    network, called = network_of(name, classes, device, way)
    sgd = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)
    precision, criterion = resolve_precision("bf16", device), TrainingLoss(0.0)
    sums = torch.zeros(2, device=device, dtype=torch.float64)
    for images, labels in batches:
        sgd.zero_grad(set_to_none=True)
        for part, wanted in zip(images.split(bn_images), labels.split(bn_images), strict=True):
            with autocast(precision, device):
                outputs = called(part)
            loss = criterion(outputs, wanted)
            (loss * (len(part) / len(images))).backward()
            with torch.no_grad():
                sums += torch.stack([loss.detach() * len(part), (outputs.argmax(1) != wanted).sum()])
        sgd.step()
        yield sums


def usual_steps(name: str, classes: int, batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Steps:
    """Iterations as the usual script does them."""
    torch.manual_seed(0)
    model = build(name, classes).to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    for inputs, targets in batches:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        yield loss.item()


class UsualImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, transformed one by one."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, *then: nn.Module) -> None:
        views = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self._transform = transforms.Compose([*views, *then])
        self._pixels, self._labels = pixels, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), int(self._labels[index])


def usual_batches(pixels: np.ndarray, labels: np.ndarray, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from a DataLoader's processes, epoch after epoch."""
    options: Any = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(UsualImages(pixels, labels), CIFAR_BATCH, shuffle=True, drop_last=True, **options)
    while True:
        yield from loader


@torch.inference_mode()
def scores(name: str, views: Tensor, device: torch.device, way: str | None) -> Steps:
    """Probabilities averaged over each image's ten views; ours in bf16 and channels_last, the peer's for `way` None."""
    _, called = network_of(name, 1000, device, way or "eager")
    called.eval()
    if way is None:
        called.to(memory_format=torch.contiguous_format)
    inputs = views if way is None else views.contiguous(memory_format=torch.channels_last)
    while True:
        with autocast("fp32" if way is None else "bf16", device):
            found = called(inputs)
        yield found.float().softmax(1).unflatten(0, (-1, 10)).mean(1)
