"""Highway networks of Table 6 (Srivastava et al. 2015, "Training Very Deep Networks"), of 19 and 32 layers."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.convolutional import GlobalPoolNetwork
from pipeline.models.initialisation import he_initialise

GATE_BIAS = -2.0
"""Initial bias of the transform gates: negative, so that layers start by carrying their input."""


@dataclass(frozen=True)
class Architecture:
    """Channels of the groups, kernel sizes of the highway layers in each, and channels of the last 1x1 convolution."""

    channels: tuple[int, int, int]
    kernels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    last: int = 100


ARCHITECTURES: dict[str, Architecture] = {
    "highway19": Architecture((32, 80, 128), ((3,) * 4, (3,) * 5, (3,) * 5)),
    "highway32": Architecture((32, 64, 96), ((1, 3, 1, 3, 1, 3, 1, 3, 1),) * 3),
}
"""highway19 is the authors' released definition (2.3M parameters). Of the 32-layer network the paper publishes only
that 3x3 and 1x1 alternate and that there are about 1.25M parameters: highway32 has the form of highway19 with those,
and twice the channels of FitNet 1."""


class HighwayLayer(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)), with H(x) = relu(W_H * x + b_H) and T(x) = sigmoid(W_T * x + b_T); same shape."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.gate = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, F.relu(self.transform(x)), torch.sigmoid(self.gate(x)))


class HighwayNetwork(GlobalPoolNetwork):
    """Three groups of a plain 3x3 convolution and highway layers, max-pooled between; conv1x1, global pool, fc.

    (N, 3, H, W) -> (N, num_classes) for H, W >= 4. Dropout 0.2 on the image, after each pooling and before fc.
    """

    minimum_size = 4

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        groups: list[nn.Module] = []
        inputs = 3
        for channels, kernels in zip(architecture.channels, architecture.kernels, strict=True):
            groups.append(make_group(inputs, channels, kernels))
            inputs = channels
        self.groups = nn.Sequential(groups[0], nn.MaxPool2d(2), groups[1], nn.MaxPool2d(2), groups[2])
        self.last = nn.Sequential(nn.Conv2d(inputs, architecture.last, 1), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(architecture.last, num_classes)

    def feature_map(self, images: Tensor) -> Tensor:
        """The 1x1 convolution's output: (N, 3, H, W) -> (N, 100, floor(H / 4), floor(W / 4))."""
        return self.last(self.groups(images))

    def classify(self, pooled: Tensor) -> Tensor:
        return self.fc(self.dropout(pooled))


def make_group(in_channels: int, channels: int, kernels: tuple[int, ...]) -> nn.Sequential:
    """Dropout, a plain layer that changes the number of channels, then highway layers."""
    plain = nn.Conv2d(in_channels, channels, 3, padding=1)
    layers = (HighwayLayer(channels, kernel_size) for kernel_size in kernels)
    return nn.Sequential(nn.Dropout(0.2), plain, nn.ReLU(inplace=True), *layers)


def initialise(network: nn.Module) -> None:
    """He initialisation, with the gates' biases at -2."""
    he_initialise(network)
    for module in network.modules():
        if isinstance(module, HighwayLayer):
            nn.init.constant_(module.gate.bias, GATE_BIAS)  # type: ignore[arg-type]
