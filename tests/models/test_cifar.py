"""The CIFAR-10 family against Section 4.2."""

import pytest
import torch
from torch import nn

from pipeline.models import build
from pipeline.models.cifar import CifarNetwork, is_depth


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 18])
@pytest.mark.parametrize("family", ["plain", "resnet"])
def test_depth_is_6n_plus_2(family, n):
    with torch.device("meta"):
        network = build(f"{family}{6 * n + 2}", 10)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == 6 * n + 2
    assert [sum(c.out_channels == width for c in convolutions) for width in (16, 32, 64)] == [2 * n + 1, 2 * n, 2 * n]


@pytest.mark.parametrize("depth", [2, 7, 18, 21, 110 + 3])
def test_other_depths_are_refused(depth):
    assert not is_depth(depth)
    with pytest.raises(ValueError, match=f"depth {depth} is not in the CIFAR family: it must be 6n"):
        CifarNetwork(depth, 10, "A")


def test_map_sizes():
    network = build("resnet20", 10)
    sizes = []
    for index in (1, 2, 3):
        network.get_submodule(f"layer{index}").register_forward_hook(
            lambda _, __, out: sizes.append(tuple(out.shape[1:]))
        )
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_option_b_adds_two_projections():
    a, b = build("resnet20", 10), build("resnet20", 10, shortcut="B")
    added = set(b.state_dict()) - set(a.state_dict())
    assert {key.split("downsample")[0] for key in added} == {"layer2.0.", "layer3.0."}
    count = sum(p.numel() for p in b.parameters()) - sum(p.numel() for p in a.parameters())
    assert count == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("shortcut", ["C", "none", "a"])
def test_other_shortcuts_are_refused(shortcut):
    with pytest.raises(
        ValueError, match=rf"unknown shortcut '{shortcut}' for the CIFAR family: use A \(the paper's\) or B"
    ):
        build("resnet20", 10, shortcut=shortcut)


@pytest.mark.slow
def test_resnet1202_runs():
    network = build("resnet1202", 10).train()
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(2, 3, 8, 8))).all()
