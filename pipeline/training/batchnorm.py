"""BN statistics recomputed after training as a strict average, as for the authors' released models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.training.distributed import average_buffers


@torch.no_grad()
def recompute_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set every BN's running mean and variance to their plain average over `batches` of training images.

    Each batch (n, 3, H, W) counts the same, so all should be of the size that BN saw in training. Every worker gives
    its share of the images; the average is taken over all workers. A network without BN is left alone.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    was_training = network.training
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    for count, images in enumerate(batches, 1):
        for layer in layers:
            layer.momentum = 1 / count  # None would say the same, and have a GPU waited for in each layer
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    average_buffers(network)
    network.train(was_training)


def split_batch(images: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Cut a batch into parts of `size` images, each contiguous in the batch's own memory format."""
    yield from images.split(size)
