"""Layers, parameters and multiply-adds against the golden file and the papers."""

import pytest
import torch
from torch import nn

from pipeline.models import build, find, names
from pipeline.models.complexity import Complexity, complexity_of, measure

measured: dict[str, Complexity] = {}


def complexity(name: str) -> Complexity:
    """A network's complexity with its own data's image size and classes, measured once."""
    if name not in measured:
        measured[name] = complexity_of(name, find(name).num_classes, find(name).image_size)
    return measured[name]


@pytest.mark.parametrize("name", names())
def test_parameters_are_golden(golden, name):
    assert complexity(name).parameters == golden["parameters"][name]


def test_multiply_adds_are_golden(golden):
    expected = golden["multiply_adds"]
    assert {name: complexity(name).multiply_adds for name in expected} == expected


def test_golden_file_names_known_networks(golden):
    assert set(golden["parameters"]) == set(names())
    for table in ("multiply_adds", "layers", "published_multiply_adds", "published_parameters"):
        assert set(golden[table]) <= set(names())


def test_multiply_adds_are_those_published(golden):
    for name, published in golden["published_multiply_adds"].items():
        assert complexity(name).multiply_adds == pytest.approx(published, rel=0.02), name


def test_parameters_are_those_published(golden):
    for name, (millions, decimals) in golden["published_parameters"].items():
        assert round(complexity(name).parameters / 1e6, decimals) == millions, name
    assert complexity("highway32").parameters == pytest.approx(1.25e6, rel=0.02)


def test_stride_in_the_3x3_costs_more(golden):
    for name, multiply_adds in golden["multiply_adds_with_stride_in_conv3x3"].items():
        assert complexity_of(name, 1000, 224, stride_in="conv3x3").multiply_adds == multiply_adds


@pytest.mark.parametrize("name", names())
def test_layers_are_those_of_the_name(golden, name):
    digits = "".join(character for character in name if character.isdigit())
    expected = golden["layers"].get(name) or (int(digits) if digits else 34)
    assert complexity(name).layers == expected


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_and_residual_imagenet_networks_have_equal_parameters(depth):
    assert complexity(f"plain{depth}").parameters == complexity(f"resnet{depth}a").parameters


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_plain_and_residual_cifar_networks_have_equal_parameters(depth):
    assert complexity(f"plain{depth}").parameters == complexity(f"resnet{depth}").parameters


def test_counts_of_released_variants(golden):
    with torch.device("meta"):
        googlenet, inception = build("googlenet", 1000), build("bn_inception", 1000)
    main = sum(p.numel() for key, p in googlenet.named_parameters() if not key.startswith("aux"))
    assert main == golden["published_variants"]["googlenet_without_auxiliary"]
    biases = sum(m.out_channels for m in inception.modules() if isinstance(m, nn.Conv2d) and m.groups == 1)
    separable, full = 24 * 49 + 24 * 64, 64 * 3 * 49
    released = golden["published_variants"]["bn_inception_with_biases_and_full_stem"]
    assert complexity("bn_inception").parameters - separable + full + biases == released


def test_by_layer_counts_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(4 * 25, 7)
    )
    result = measure(network, 5)
    assert [layer.name for layer in result.by_layer] == ["0", "1", "3"]
    assert [layer.kind for layer in result.by_layer] == ["conv 3x3", "conv 1x1", "fc"]
    assert [layer.multiply_adds for layer in result.by_layer] == [25 * 6 * 9, 25 * 4 * 6, 7 * 100]
    assert [layer.parameters for layer in result.by_layer] == [54, 28, 707]
    assert [layer.output_shape for layer in result.by_layer] == [(6, 5, 5), (4, 5, 5), (7,)]
    assert (result.layers, result.parameters, result.output_shape) == (2, 54 + 28 + 707, (7,))


def test_projections_stand_beside_the_main_path():
    names_of_layers = [layer.name for layer in complexity("resnet34c").by_layer]
    assert len(names_of_layers) == 34 + 16
    assert names_of_layers[:4] == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.downsample.0"]
    assert names_of_layers[-1] == "fc"


def test_layers_add_up_to_the_parameters_without_bn():
    assert sum(layer.parameters for layer in complexity("vgg16").by_layer) == complexity("vgg16").parameters


def test_frozen_parameters_are_not_trainable():
    network = build("resnet8", 10)
    network.fc.requires_grad_(False)
    assert measure(network, 16).parameters == measure(build("resnet8", 10), 16).parameters - 650


def test_measuring_leaves_the_network_as_it_was():
    network = build("resnet8", 10).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    measure(network, 16)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="images of 8x8 pixels are too small"):
        complexity_of("vgg16", 10, 8)
