"""The ImageNet family against Table 1 and against torchvision's networks."""

import pytest
import torch
import torchvision
from torch import nn

from pipeline.models import build
from pipeline.models.imagenet import ARCHITECTURES


def randomise(network: nn.Module) -> None:
    """Random BN scales, shifts and statistics too, so that every entry of the state dict matters."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "torchvisions"),
    [
        ("resnet18b", {}, "resnet18"),
        ("resnet34b", {}, "resnet34"),
        ("resnet50", {"stride_in": "conv3x3"}, "resnet50"),
        ("resnet101", {"stride_in": "conv3x3"}, "resnet101"),
        ("resnet152", {"stride_in": "conv3x3"}, "resnet152"),
    ],
)
def test_equals_torchvision(name, options, torchvisions):
    theirs = getattr(torchvision.models, torchvisions)(num_classes=7).eval()
    randomise(theirs)
    ours = build(name, 7, **options).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 65, 96)
    with torch.no_grad():
        expected = theirs(images)
        assert torch.isfinite(expected).all()
        scale = expected.abs().max()
        torch.testing.assert_close(ours(images) / scale, expected / scale, atol=1e-5, rtol=0)


def test_stride_placement_changes_the_function_and_not_the_parameters():
    paper, later = build("resnet50", 3).eval(), build("resnet50", 3, stride_in="conv3x3").eval()
    later.load_state_dict(paper.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(paper(images), later(images), atol=1e-3)
    assert [paper.get_submodule(f"layer{i}.0.conv1").stride for i in (1, 2, 3, 4)] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert later.get_submodule("layer2.0.conv1").stride == (1, 1)
    assert later.get_submodule("layer2.0.conv2").stride == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_map_sizes_of_table_1(name):
    with torch.device("meta"):
        network = build(name, 1000)
        x = network.maxpool(network.conv1(torch.zeros(1, 3, 224, 224)))
        sizes = [x.shape[-1]]
        for index in range(1, 5):
            x = network.get_submodule(f"layer{index}")(x)
            sizes.append(x.shape[-1])
    assert sizes == [56, 56, 28, 14, 7]
    assert x.shape[1] == (2048 if name in ("resnet50", "resnet101", "resnet152") else 512)


@pytest.mark.parametrize(
    ("name", "projections"), [("plain34", 0), ("resnet34a", 0), ("resnet34b", 3), ("resnet34c", 16)]
)
def test_number_of_projections(name, projections):
    with torch.device("meta"):
        parameters = dict(build(name, 10).named_parameters())
    assert sum(key.endswith("downsample.0.weight") for key in parameters) == projections


def test_plain_equals_residual_without_its_shortcuts():
    plain, residual = build("plain18", 5), build("resnet18a", 5)
    plain.load_state_dict(residual.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(plain(images), residual(images), atol=1e-3)
    for module in residual.modules():
        if hasattr(module, "downsample"):
            module.downsample = None
    torch.testing.assert_close(plain(images), residual(images))
