"""Batch normalisation written so that its loops are fast where torch compiles them for processors.

Torch's own form is compiled to running means and variances (Welford's), a serial chain for each channel, and to sums
that are kept in memory; and it keeps the mean and deviation that the gradients need in the images' own number format,
which bf16 rounds to three digits. Here all sums are taken in two steps, over an image's pixels and then over images,
which are compiled to sums in registers; and statistics have the weights' format, fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LONGEST = 4096
"""Terms beyond which torch keeps a sum's parts in memory. An image of more pixels is summed row by row."""


class CompiledBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that, in training and under torch.compile, computes as this module's docstring says."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, C, H, W) normalised over n, H and W, in the format of `images`."""
        if not (self.training and torch.compiler.is_compiling()):
            return super().forward(images)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        # Once the running mean is near the batch's, the variance loses little to rounding.
        near = self.running_mean.clone()
        normalised, mean, variance = batch_norm(images, self.weight, self.bias, near, self.eps)
        count = images.numel() // images.shape[1]
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return normalised


def for_compiling(network: nn.Module) -> int:
    """Change the network's BN layers to `CompiledBatchNorm2d`, in place; how many. Weights and their names stay.

    Layers without weights, running statistics or a fixed momentum stay torch's, and so do subclasses.
    """
    changed = 0
    for module in network.modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats and module.momentum:
            module.__class__ = CompiledBatchNorm2d
            changed += 1
    return changed


def batch_norm(images: Tensor, weight: Tensor, bias: Tensor, near: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(n, C, H, W) normalised, and the mean and variance (C,) of the batch, of which no gradient is taken.

    `near` (C,) is finite; the closer to the mean, the less the variance loses to rounding.
    """
    normalised, mean, variance = _BatchNorm.apply(images, weight, bias, near, eps)
    return normalised, mean, variance


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, near: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = images.numel() // images.shape[1]
        values = images.to(weight.dtype)
        offsets = values - _per_channel(near)
        offset = _sum(offsets) / count
        mean = near + offset
        variance = (_sum(offsets * offsets) / count - offset * offset).clamp_min(0)
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        normalised = values * _per_channel(scale) + _per_channel(bias - mean * scale)
        ctx.save_for_backward(images, mean, inverse, scale)
        ctx.mark_non_differentiable(mean, variance)
        return normalised.to(images.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        images, mean, inverse, scale = ctx.saved_tensors
        count = images.numel() // images.shape[1]
        slope, values = gradient.to(scale.dtype), images.to(scale.dtype)
        of_bias, of_offsets = _sum(slope), _sum(slope * (values - _per_channel(mean)))
        shrink = scale * inverse * inverse * of_offsets / count
        level = shrink * mean - scale * of_bias / count
        of_images = slope * _per_channel(scale) - values * _per_channel(shrink) + _per_channel(level)
        return of_images.to(images.dtype), of_offsets * inverse, of_bias, None, None


def _sum(values: Tensor) -> Tensor:
    """(n, C, H, W) summed to (C,), in steps of at most `LONGEST` terms where H, W and n are no more than that."""
    height, width = values.shape[2:]
    of_images = values.sum((2, 3)) if height * width <= LONGEST else values.sum(3).sum(2)
    return of_images.sum(0)


def _per_channel(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)
