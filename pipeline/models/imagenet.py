"""The ImageNet family of Table 1: plain and residual nets of 18 to 152 layers, as one table of depths."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.blocks import BasicBlock, Bottleneck, Shortcut, StrideIn, conv
from pipeline.models.convolutional import GlobalPoolNetwork

GROUP_CHANNELS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions in conv2_x, conv3_x, conv4_x and conv5_x."""


@dataclass(frozen=True)
class Architecture:
    """One column of Table 1: the block, how many of it each group has, and the shortcut (Section 4.1)."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    shortcut: Shortcut


ARCHITECTURES: dict[str, Architecture] = {
    "plain18": Architecture(BasicBlock, (2, 2, 2, 2), "none"),
    "plain34": Architecture(BasicBlock, (3, 4, 6, 3), "none"),
    "resnet18a": Architecture(BasicBlock, (2, 2, 2, 2), "A"),
    "resnet18b": Architecture(BasicBlock, (2, 2, 2, 2), "B"),
    "resnet34a": Architecture(BasicBlock, (3, 4, 6, 3), "A"),
    "resnet34b": Architecture(BasicBlock, (3, 4, 6, 3), "B"),
    "resnet34c": Architecture(BasicBlock, (3, 4, 6, 3), "C"),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3), "B"),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3), "B"),
    "resnet152": Architecture(Bottleneck, (3, 8, 36, 3), "B"),
}


class ImageNetNetwork(GlobalPoolNetwork):
    """conv7x7/2, max-pool 3x3/2, four groups of blocks, global average pool, fc (Table 1).

    (N, 3, H, W) -> (N, num_classes); the last map has ceil(H / 32) x ceil(W / 32) positions. `block_options` go to
    every block. The parameters bear torchvision's names.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, architecture: Architecture, num_classes: int, **block_options: StrideIn) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = 64
        for index, (channels, count) in enumerate(zip(GROUP_CHANNELS, architecture.blocks, strict=True)):
            group = make_group(architecture, in_channels, channels, count, 1 if index == 0 else 2, **block_options)
            self.add_module(f"layer{index + 1}", group)
            in_channels = channels * architecture.block.expansion
        self.fc = nn.Linear(in_channels, num_classes)

    def feature_map(self, images: Tensor) -> Tensor:
        """conv5_x of Table 1: (N, 3, H, W) -> (N, 512 or 2048, ceil(H / 32), ceil(W / 32))."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def make_group(
    architecture: Architecture, in_channels: int, channels: int, count: int, stride: int, **block_options: StrideIn
) -> nn.Sequential:
    """`count` blocks on one map size, the first of them with the stride."""
    block, shortcut = architecture.block, architecture.shortcut
    blocks = [block(in_channels, channels, stride, shortcut, **block_options)]
    for _ in range(count - 1):
        blocks.append(block(channels * block.expansion, channels, 1, shortcut, **block_options))
    return nn.Sequential(*blocks)


def basic_network(architecture: Architecture, num_classes: int) -> ImageNetNetwork:
    """A network of 18 or 34 layers, of basic blocks."""
    return ImageNetNetwork(architecture, num_classes)


def bottleneck_network(
    architecture: Architecture, num_classes: int, *, stride_in: StrideIn = "conv1x1"
) -> ImageNetNetwork:
    """A network of 50, 101 or 152 layers, of bottlenecks; `stride_in` says which convolution has the stride."""
    return ImageNetNetwork(architecture, num_classes, stride_in=stride_in)
