"""Residual building blocks of the paper (Section 3): basic block, bottleneck, and shortcuts A, B, C and none."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["A", "B", "C", "none"]
StrideIn = Literal["conv1x1", "conv3x3"]

SHORTCUTS: tuple[Shortcut, ...] = ("A", "B", "C", "none")
STRIDES_IN: tuple[StrideIn, ...] = ("conv1x1", "conv3x3")


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Convolution W * x without bias (the BN after it has one), padded so that only the stride changes the size."""
    padding = (kernel_size - 1) // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)


class ZeroPaddedIdentity(nn.Module):
    """Shortcut A across sizes: [x[::stride, ::stride], 0], identity sub-sampled and zero-padded with new channels.

    (N, C, H, W) -> (N, C + new_channels, ceil(H / stride), ceil(W / stride)). It has no parameters.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        sampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(sampled, (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        return f"new_channels={self.new_channels}, stride={self.stride}"


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Shortcut W_s x of Equation (2): BN(conv1x1(x)) with the block's stride."""
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def make_shortcut(option: Shortcut, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The shortcut of one block (Section 4.1, "Identity vs. Projection Shortcuts"); None for a plain block.

    A: identity, zero-padded where the dimensions change. B: projection where they change, else identity.
    C: projection always. Raises ValueError on another option.
    """
    if option not in SHORTCUTS:
        raise ValueError(f"unknown shortcut {option!r}: use one of {', '.join(SHORTCUTS)}")
    if option == "none":
        return None
    changes = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and changes):
        return projection(in_channels, out_channels, stride)
    return ZeroPaddedIdentity(out_channels - in_channels, stride) if changes else nn.Identity()


class ResidualBlock(nn.Module):
    """Residual block: relu(F(x) + shortcut(x)), Equation (1); relu(F(x)) where there is no shortcut (plain nets).

    A subclass defines F in `residual`. (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.downsample = shortcut  # torchvision's name, so that its state dicts load

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        if self.downsample is not None:
            out = out + self.downsample(x)
        return F.relu(out, inplace=True)


class BasicBlock(ResidualBlock):
    """F(x) = BN(conv3x3(relu(BN(conv3x3(x))))), the first with the stride (Figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: Shortcut = "A") -> None:
        super().__init__(make_shortcut(shortcut, in_channels, channels, stride))
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(out))


class Bottleneck(ResidualBlock):
    """F(x) = BN(conv1x1(relu(BN(conv3x3(relu(BN(conv1x1(x)))))))), the last 4 times as wide (Figure 5, right).

    The stride is in the first 1x1 as in the paper (`stride_in="conv1x1"`), or in the 3x3 as in later
    implementations (`"conv3x3"`). Raises ValueError on another `stride_in`.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: Shortcut = "B",
        stride_in: StrideIn = "conv1x1",
    ) -> None:
        if stride_in not in STRIDES_IN:
            raise ValueError(f"unknown stride_in {stride_in!r}: use one of {', '.join(STRIDES_IN)}")
        out_channels = channels * self.expansion
        stride1, stride2 = (stride, 1) if stride_in == "conv1x1" else (1, stride)
        super().__init__(make_shortcut(shortcut, in_channels, out_channels, stride))
        self.conv1 = conv(in_channels, channels, 1, stride1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride2)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return self.bn3(self.conv3(out))
