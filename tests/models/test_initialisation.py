"""He initialisation: the distribution of each layer's weights, and what it is for."""

import math

import pytest
import torch
from torch import nn

from pipeline.models import build
from pipeline.models.highway import HighwayLayer
from pipeline.models.initialisation import he_initialise


@pytest.mark.parametrize("name", ["resnet50", "resnet56", "googlenet", "bn_inception", "highway19"])
def test_weights_have_the_he_deviation(name):
    network = build(name, 100)
    checked = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 2000:
            fan_in = module.weight[0].numel()
            expected = math.sqrt(2 / fan_in)
            tolerance = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors of a deviation
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert module.weight.mean().item() == pytest.approx(0, abs=5 * expected / module.weight.numel() ** 0.5)
            checked += 1
    assert checked >= 16


def test_prelu_net_allows_for_its_slope():
    network = build("prelu_net", 10, width=0.125)
    convolution = network.features[5]
    assert convolution.weight.shape[1:] == (48, 3, 3)
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (1.0625 * 48 * 9)), rel=0.02)
    slopes = [module.weight for module in network.modules() if isinstance(module, nn.PReLU)]
    assert len(slopes) == 21
    assert all(torch.all(slope == 0.25) for slope in slopes)


@pytest.mark.parametrize("name", ["vgg16", "googlenet", "resnet20", "prelu_net"])
def test_biases_start_at_zero(name):
    options = {"width": 0.05} if name in ("vgg16", "prelu_net") else {}
    biases = [parameter for key, parameter in build(name, 10, **options).named_parameters() if key.endswith("bias")]
    assert biases
    assert all(torch.count_nonzero(bias) == 0 for bias in biases)


def test_bn_starts_as_identity_with_empty_statistics():
    for module in build("resnet20", 10).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.running_mean == 0)
            assert torch.all(module.running_var == 1)
            assert module.num_batches_tracked == 0


def test_highway_gates_start_by_carrying():
    layers = [module for module in build("highway32", 10).modules() if isinstance(module, HighwayLayer)]
    assert len(layers) == 27
    assert all(torch.all(layer.gate.bias == -2) and torch.all(layer.transform.bias == 0) for layer in layers)


def test_keeps_the_second_moment_through_thirty_layers():
    layers = [module for _ in range(30) for module in (nn.Linear(512, 512), nn.ReLU())]
    network = nn.Sequential(*layers)
    x = torch.randn(64, 512)
    with torch.no_grad():
        assert network(x).square().mean() < 0.01  # with torch's own initialisation the signal is lost
        he_initialise(network)
        assert 0.1 < network(x).square().mean() / x.square().mean() < 10


def test_unknown_layer_with_weights_is_refused():
    with pytest.raises(TypeError, match="no initialisation is defined for the weights of LayerNorm"):
        he_initialise(nn.Sequential(nn.Conv2d(3, 3, 1), nn.LayerNorm(3)))
