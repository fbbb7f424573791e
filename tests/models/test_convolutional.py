"""Score maps: the fully convolutional form against the pooled one, for every kind of network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models import build, score_map
from pipeline.models.convolutional import dense, dense_classifier
from pipeline.models.prelu_net import bins_of, dense_pyramid, pyramid

IMAGENET = ("plain18", "resnet18a", "resnet34c", "resnet50", "googlenet", "bn_inception")
CIFAR = ("plain20", "resnet20", "highway19", "highway32")
SMALL = {"vgg16": {"width": 0.06}, "prelu_net": {"width": 0.06}}


def network_of(name: str) -> nn.Module:
    """A network with statistics of some batch in its BN, so that its scores are of the order of 1."""
    network = build(name, 6, **SMALL.get(name, {})).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        network(torch.randn(4, 3, 64, 64))
    return network.eval()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 4) for name in CIFAR),
        *((name, 32) for name in IMAGENET),
        *(("vgg16", size) for size in (32, 100, 224, 255)),
        *(("prelu_net", size) for size in (15, 32, 100, 224, 238)),
    ],
)
def test_equals_the_forward_where_the_map_is_one_pixel(name, size):
    network = network_of(name)
    images = torch.randn(2, 3, size, size)
    scores, scored = network(images), score_map(network, images)
    assert scored.shape == (2, 6, 1, 1)
    scale = scores.abs().max()
    torch.testing.assert_close(scored[:, :, 0, 0] / scale, scores / scale, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", IMAGENET + CIFAR)
def test_mean_of_the_map_is_the_pooled_score(name):
    network = network_of(name)
    images = torch.randn(2, 3, 68, 97)
    scored = score_map(network, images)
    assert scored.shape[2] * scored.shape[3] > 1
    scores = network(images)
    scale = scores.abs().max()
    torch.testing.assert_close(scored.mean((2, 3)) / scale, scores / scale, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg16", "googlenet", "prelu_net"])
def test_uses_the_weights_themselves(name):
    network = network_of(name)
    images = torch.randn(1, 3, 64, 64)
    before = score_map(network, images)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    last.bias += 3
    torch.testing.assert_close(score_map(network, images), before + 3)


@torch.no_grad()
def test_vgg_map_is_the_classifier_of_each_7x7_window():
    network = network_of("vgg16")
    images = torch.randn(1, 3, 288, 320)
    scored, features = score_map(network, images), network.features(images)
    assert scored.shape == (1, 6, 3, 4)
    for row, column in [(0, 0), (2, 1), (1, 3)]:
        window = features[:, :, row : row + 7, column : column + 7]
        torch.testing.assert_close(scored[:, :, row, column], network.classifier(window.flatten(1)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_prelu_net_map_is_the_classifier_of_each_14x14_window():
    network = network_of("prelu_net")
    images = torch.randn(1, 3, 240, 272)
    scored, features = score_map(network, images), network.features(images)
    assert scored.shape == (1, 6, 2, 4)
    for row, column in [(0, 0), (1, 1), (1, 3)]:
        window = features[:, :, row : row + 14, column : column + 14]
        expected = network.classifier(pyramid(window))
        torch.testing.assert_close(scored[:, :, row, column], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 5, 13, 14])
def test_dense_pyramid_of_one_window_is_the_pyramid(size):
    features = torch.randn(2, 3, size, 14)
    assert torch.equal(dense_pyramid(features)[:, :, 0, 0], pyramid(features))


@pytest.mark.parametrize("level", [1, 2, 3, 7])
def test_bins_are_those_of_adaptive_pooling(level):
    row = torch.arange(14.0)
    expected = F.adaptive_max_pool1d(row[None, None], level)[0, 0].tolist()
    assert [row[start:end].max().item() for start, end in bins_of(14, level)] == expected
    assert bins_of(14, 3) == [(0, 5), (4, 10), (9, 14)]


def test_dense_is_the_layer_at_every_position():
    layer, features = nn.Linear(8, 5), torch.randn(2, 2, 3, 4)
    out = dense(layer, features, kernel_size=2)
    assert out.shape == (2, 5, 2, 3)
    torch.testing.assert_close(out[:, :, 1, 2], layer(features[:, :, 1:3, 2:4].flatten(1)))


def test_dense_classifier_is_the_layers_at_every_position():
    layers = nn.Sequential(nn.Linear(2 * 9, 5), nn.PReLU(5), nn.Linear(5, 4))
    features = torch.randn(1, 2, 4, 3)
    out = dense_classifier(layers, features, 3)
    assert out.shape == (1, 4, 2, 1)
    torch.testing.assert_close(out[:, :, 1, 0], layers(features[:, :, 1:4].flatten(1)))


def test_other_networks_are_refused():
    with pytest.raises(TypeError, match="Linear has no fully convolutional form"):
        score_map(nn.Linear(3, 2), torch.zeros(1, 3, 8, 8))


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="images of 31x40 pixels are too small: this network needs 32x32"):
        score_map(build("vgg16", 2, width=0.05), torch.zeros(1, 3, 31, 40))
