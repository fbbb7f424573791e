"""Layer responses of Figure 7 against the values computed from the layers' outputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models import build
from pipeline.models.responses import layer_responses


def test_equals_the_deviation_over_all_images():
    network = build("resnet8", 10)
    batches = [torch.randn(4, 3, 16, 16), torch.randn(3, 3, 16, 16) + 1]
    responses = layer_responses(network, batches)
    network.eval()
    with torch.no_grad():
        first = network.bn1(network.conv1(torch.cat(batches)))
        block = network.layer1[0]
        second = block.bn1(block.conv1(F.relu(first)))
        third = block.bn2(block.conv2(F.relu(second)))
    assert responses[0] == ("conv1", pytest.approx(first.std(correction=0).item(), rel=1e-5))
    assert responses[1] == ("layer1.0.conv1", pytest.approx(second.std(correction=0).item(), rel=1e-5))
    assert responses[2] == ("layer1.0.conv2", pytest.approx(third.std(correction=0).item(), rel=1e-5))


@pytest.mark.parametrize("name", ["plain20", "resnet20"])
def test_every_3x3_layer_in_order(name):
    responses = layer_responses(build(name, 10), [torch.randn(2, 3, 8, 8)])
    assert len(responses) == 19
    expected = ["conv1"] + [f"layer{g}.{b}.conv{c}" for g in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert [layer for layer, _ in responses] == expected
    assert all(deviation > 0 for _, deviation in responses)


def test_only_the_3x3_layer_of_a_bottleneck():
    responses = layer_responses(build("resnet50", 10), [torch.randn(1, 3, 32, 32)])
    assert [layer.rsplit(".", 1)[1] for layer, _ in responses] == ["conv2"] * 16


def test_scale_of_bn_is_the_response_of_a_normalised_layer():
    network = build("resnet8", 10).train()
    images = torch.randn(64, 3, 8, 8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network(images)
    nn.init.constant_(network.bn1.weight, 0.25)
    assert layer_responses(network, [images])[0][1] == pytest.approx(0.25, rel=1e-2)


def test_network_is_left_as_it_was():
    network = build("resnet8", 10).train()
    layer_responses(network, [torch.randn(2, 3, 8, 8)])
    assert network.training
    assert network.bn1.num_batches_tracked == 0
    assert not any(module._forward_hooks for module in network.modules())


def test_network_without_bn_is_refused():
    with pytest.raises(ValueError, match="HighwayNetwork has no 3x3 convolution followed by BN"):
        layer_responses(build("highway19", 10), [torch.randn(1, 3, 8, 8)])


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="need at least one batch"):
        layer_responses(build("resnet8", 10), [])
