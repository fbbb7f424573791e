"""GoogLeNet, Inception v1 (Szegedy et al. 2015), with its two auxiliary classifiers in training."""

from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNet as TorchvisionGoogLeNet
from torchvision.models.googlenet import GoogLeNetOutputs, Inception, InceptionAux

from pipeline.models.convolutional import dense, require_images

Form = Literal["paper", "torchvision"]

TRUNK = (
    *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3"),
    *("inception4a", "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4"),
    *("inception5a", "inception5b"),
)
"""The layers from the image to the last feature map, in order."""


class ConvReLU(nn.Module):
    """relu(W * x + b): the convolution of Inception v1, which has no BN."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class Inception5x5(Inception):
    """[conv1x1, conv3x3(conv1x1), conv5x5(conv1x1), conv1x1(max-pool3x3)] of x, each with ReLU.

    torchvision's module, with the 5x5 convolution of the paper where torchvision has a 3x3.
    """

    def __init__(self, in_channels: int, *channels: int) -> None:
        super().__init__(in_channels, *channels, conv_block=ConvReLU)
        reduced, outputs = channels[3:5]
        self.branch3[1] = ConvReLU(reduced, outputs, kernel_size=5, padding=2)


class GoogLeNet(TorchvisionGoogLeNet):
    """Stem, nine Inception modules, global average pool, dropout, fc: 22 layers.

    `form="paper"` is the published network: 5x5 convolutions, local response normalisation around the stem, biases,
    dropout 0.4. `form="torchvision"` is torchvision's variant, whose state dicts load: BN and 3x3 instead, dropout 0.2.
    (N, 3, H, W) -> (N, num_classes) for H, W >= 15 in evaluation mode; in training mode a tuple of three such tensors:
    scores, second and first auxiliary scores. Raises ValueError on another form.
    """

    minimum_size = 15
    maxpool1: nn.Module
    maxpool2: nn.Module

    def __init__(self, num_classes: int, *, form: Form = "paper") -> None:
        if form not in ("paper", "torchvision"):
            raise ValueError(f"unknown form {form!r} of googlenet: use paper or torchvision")
        if form == "torchvision":
            super().__init__(num_classes, init_weights=False)
            return
        blocks = [ConvReLU, Inception5x5, partial(InceptionAux, conv_block=ConvReLU)]
        super().__init__(num_classes, init_weights=False, blocks=blocks, dropout=0.4)
        self.maxpool1 = nn.Sequential(self.maxpool1, nn.LocalResponseNorm(5))
        self.maxpool2 = nn.Sequential(nn.LocalResponseNorm(5), self.maxpool2)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """Scores before softmax, with the auxiliary ones in training. Raises ValueError on too small images."""
        require_images(x, self.minimum_size)
        return super().forward(x)

    def score_map(self, images: Tensor) -> Tensor:
        """Scores at every position: (N, 3, H, W) -> (N, num_classes, h, w); their mean is the evaluation-mode score."""
        require_images(images, self.minimum_size)
        for name in TRUNK:
            images = getattr(self, name)(images)
        return dense(self.fc, images)
