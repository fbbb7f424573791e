"""BN-Inception, Inception v2 (Ioffe and Szegedy 2015, Figure 5)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

from pipeline.models.convolutional import GlobalPoolNetwork


@dataclass(frozen=True)
class Module:
    """One row of Figure 5: channels of each branch. `one` 0: no 1x1 branch; `projection` 0: the pool passes through."""

    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    pool: Literal["average", "max"]
    projection: int
    stride: int = 1


MODULES: dict[str, Module] = {
    "inception3a": Module(64, (64, 64), (64, 96), "average", 32),
    "inception3b": Module(64, (64, 96), (64, 96), "average", 64),
    "inception3c": Module(0, (128, 160), (64, 96), "max", 0, stride=2),
    "inception4a": Module(224, (64, 96), (96, 128), "average", 128),
    "inception4b": Module(192, (96, 128), (96, 128), "average", 128),
    "inception4c": Module(160, (128, 160), (128, 160), "average", 128),
    "inception4d": Module(96, (128, 192), (160, 192), "average", 128),
    "inception4e": Module(0, (128, 192), (192, 256), "max", 0, stride=2),
    "inception5a": Module(352, (192, 320), (160, 224), "average", 128),
    "inception5b": Module(352, (192, 320), (192, 224), "max", 128),
}
"""Figure 5. Its channels of 4c and 4d add up to 608, where its column of sizes has 576: the channels are taken."""


class InceptionV2(nn.Module):
    """[conv1x1, conv3x3(conv1x1), conv3x3(conv3x3(conv1x1)), conv1x1(pool3x3)] of x; every conv with BN and ReLU.

    (N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, module: Module) -> None:
        super().__init__()
        stride = module.stride
        self.branch1 = Conv2dNormActivation(in_channels, module.one, 1) if module.one else None
        self.branch2 = nn.Sequential(
            Conv2dNormActivation(in_channels, module.three[0], 1),
            Conv2dNormActivation(*module.three, 3, stride=stride),
        )
        self.branch3 = nn.Sequential(
            Conv2dNormActivation(in_channels, module.double[0], 1),
            Conv2dNormActivation(*module.double, 3),
            Conv2dNormActivation(module.double[1], module.double[1], 3, stride=stride),
        )
        self.branch4 = nn.Sequential((nn.AvgPool2d if module.pool == "average" else nn.MaxPool2d)(3, stride, 1))
        if module.projection:
            self.branch4.append(Conv2dNormActivation(in_channels, module.projection, 1))
        pooled = module.projection or in_channels
        self.out_channels = module.one + module.three[1] + module.double[1] + pooled

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat(branches if self.branch1 is None else [self.branch1(x), *branches], 1)


class BNInception(GlobalPoolNetwork):
    """Stem with a separable 7x7/2 convolution, ten Inception modules, global average pool, fc.

    (N, 3, H, W) -> (N, num_classes) for any size. The paper mentions no auxiliary classifiers and removes dropout.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False)  # depth multiplier 8
        self.conv1 = nn.Sequential(depthwise, Conv2dNormActivation(24, 64, 1))
        self.maxpool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(Conv2dNormActivation(64, 64, 1), Conv2dNormActivation(64, 192, 3))
        self.maxpool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.modules_by_name = nn.ModuleDict()
        channels = 192
        for name, module in MODULES.items():
            inception = InceptionV2(channels, module)
            self.modules_by_name[name] = inception
            channels = inception.out_channels
        self.fc = nn.Linear(channels, num_classes)

    def feature_map(self, images: Tensor) -> Tensor:
        """The last module's output: (N, 3, H, W) -> (N, 1024, ceil(H / 32), ceil(W / 32))."""
        x = self.maxpool2(self.conv2(self.maxpool1(self.conv1(images))))
        for module in self.modules_by_name.values():
            x = module(x)
        return x
