"""Blocks and shortcuts against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.blocks import BasicBlock, Bottleneck, ZeroPaddedIdentity, make_shortcut


def bn(x: Tensor) -> Tensor:
    """Batch normalisation with unit scale and no shift, written out."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def test_zero_padded_identity_samples_and_pads():
    x = torch.arange(2 * 5 * 5, dtype=torch.float32).reshape(1, 2, 5, 5)
    out = ZeroPaddedIdentity(new_channels=3, stride=2)(x)
    assert out.shape == (1, 5, 3, 3)
    assert torch.equal(out[0, 0], torch.tensor([[0.0, 2.0, 4.0], [10.0, 12.0, 14.0], [20.0, 22.0, 24.0]]))
    assert torch.equal(out[0, 2:], torch.zeros(3, 3, 3))


@pytest.mark.parametrize(
    ("option", "changed", "unchanged"),
    [
        ("A", ZeroPaddedIdentity, nn.Identity),
        ("B", nn.Sequential, nn.Identity),
        ("C", nn.Sequential, nn.Sequential),
        ("none", type(None), type(None)),
    ],
)
def test_shortcut_options(option, changed, unchanged):
    assert isinstance(make_shortcut(option, 16, 32, 2), changed)
    assert isinstance(make_shortcut(option, 16, 16, 1), unchanged)


def test_unknown_shortcut_is_named():
    with pytest.raises(ValueError, match="'D': use one of A, B, C, none"):
        make_shortcut("D", 16, 16, 1)


@pytest.mark.parametrize("option", ["A", "B", "C"])
@pytest.mark.parametrize("size", [1, 7, 8])
def test_basic_block_is_relu_of_residual_plus_shortcut(option, size):
    block = BasicBlock(4, 8, stride=2, shortcut=option)
    x = torch.randn(3, 4, size, size)
    inner = torch.relu(bn(F.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    residual = bn(F.conv2d(inner, block.conv2.weight, padding=1))
    if option == "A":
        shortcut = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
    else:
        shortcut = bn(F.conv2d(x, block.downsample[0].weight, stride=2))
    torch.testing.assert_close(block(x), torch.relu(residual + shortcut), atol=1e-5, rtol=1e-5)


def test_plain_block_has_no_addition():
    block = BasicBlock(4, 4, shortcut="none")
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 6, 6)
    assert torch.count_nonzero(block(x)) == 0
    with_shortcut = BasicBlock(4, 4, shortcut="A")
    nn.init.zeros_(with_shortcut.conv2.weight)
    assert torch.equal(with_shortcut(x), x)


@pytest.mark.parametrize(("stride_in", "strides"), [("conv1x1", (2, 1, 1)), ("conv3x3", (1, 2, 1))])
def test_bottleneck_formula_and_stride(stride_in, strides):
    block = Bottleneck(8, 4, stride=2, shortcut="B", stride_in=stride_in)
    x = torch.randn(3, 8, 7, 7)
    out = torch.relu(bn(F.conv2d(x, block.conv1.weight, stride=strides[0])))
    out = torch.relu(bn(F.conv2d(out, block.conv2.weight, stride=strides[1], padding=1)))
    out = bn(F.conv2d(out, block.conv3.weight, stride=strides[2]))
    expected = torch.relu(out + bn(F.conv2d(x, block.downsample[0].weight, stride=2)))
    assert expected.shape == (3, 16, 4, 4)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_unknown_stride_placement_is_named():
    with pytest.raises(ValueError, match="unknown stride_in 'first': use one of conv1x1, conv3x3"):
        Bottleneck(8, 4, stride_in="first")


def test_convolutions_have_no_bias():
    blocks = [BasicBlock(4, 8, 2, "B"), Bottleneck(4, 2, 2, "C")]
    convolutions = [m for block in blocks for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 7
    assert all(convolution.bias is None for convolution in convolutions)
