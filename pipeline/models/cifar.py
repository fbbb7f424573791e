"""The CIFAR-10 family of Section 4.2: plain and residual nets of 6n + 2 layers."""

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.blocks import BasicBlock, Shortcut, conv
from pipeline.models.convolutional import GlobalPoolNetwork

GROUP_CHANNELS = (16, 32, 64)
"""Filters on the maps of 32x32, 16x16 and 8x8 pixels."""

PLAIN_DEPTHS = (20, 32, 44, 56, 110)
RESNET_DEPTHS = (20, 32, 44, 56, 110, 1202)


def is_depth(depth: int) -> bool:
    """Whether the family has a net of that many layers: 6n + 2 with n >= 1."""
    return depth >= 8 and depth % 6 == 2


class CifarNetwork(GlobalPoolNetwork):
    """conv3x3, three groups of n basic blocks, global average pool, fc: 6n + 2 layers (Section 4.2).

    (N, 3, H, W) -> (N, num_classes); the last map has ceil(H / 4) x ceil(W / 4) positions.
    Raises ValueError if `depth` is not 6n + 2.
    """

    def __init__(self, depth: int, num_classes: int, shortcut: Shortcut) -> None:
        if not is_depth(depth):
            raise ValueError(f"depth {depth} is not in the CIFAR family: it must be 6n + 2, such as 20, 32, 56 or 110")
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = conv(3, GROUP_CHANNELS[0], 3)
        self.bn1 = nn.BatchNorm2d(GROUP_CHANNELS[0])
        self.layer1 = make_group(16, 16, count, 1, shortcut)
        self.layer2 = make_group(16, 32, count, 2, shortcut)
        self.layer3 = make_group(32, 64, count, 2, shortcut)
        self.fc = nn.Linear(GROUP_CHANNELS[-1], num_classes)

    def feature_map(self, images: Tensor) -> Tensor:
        """The last group's output: (N, 3, H, W) -> (N, 64, ceil(H / 4), ceil(W / 4))."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.layer3(self.layer2(self.layer1(x)))


def make_group(in_channels: int, channels: int, count: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    """`count` basic blocks on one map size, the first of them with the stride."""
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, shortcut) for _ in range(count - 1)))


def plain_network(depth: int, num_classes: int) -> CifarNetwork:
    """The plain net: the same layers without shortcuts."""
    return CifarNetwork(depth, num_classes, "none")


def residual_network(depth: int, num_classes: int, *, shortcut: Shortcut = "A") -> CifarNetwork:
    """The residual net; the paper has option A throughout. Raises ValueError on a shortcut other than A and B."""
    if shortcut not in ("A", "B"):
        raise ValueError(f"unknown shortcut {shortcut!r} for the CIFAR family: use A (the paper's) or B")
    return CifarNetwork(depth, num_classes, shortcut)
