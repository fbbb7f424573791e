"""A network of every kind learns 64 images by heart: zero training error."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models import build

IMAGES = 64
CLASSES = 10

# Network, options, image size in pixels, learning rate, iterations. Those without BN take a smaller rate.
KINDS = [
    ("plain8", {}, 16, 0.1, 60),
    ("resnet8", {}, 16, 0.1, 60),
    ("resnet8", {"shortcut": "B"}, 16, 0.1, 60),
    ("plain18", {}, 32, 0.1, 30),
    ("resnet18a", {}, 32, 0.05, 30),
    ("resnet18b", {}, 32, 0.05, 30),
    ("resnet34c", {}, 32, 0.05, 30),
    ("resnet50", {}, 32, 0.05, 30),
    ("resnet50", {"stride_in": "conv3x3"}, 32, 0.05, 30),
    ("vgg16", {"width": 0.125}, 32, 0.01, 150),
    ("googlenet", {}, 64, 0.01, 60),
    ("googlenet", {"form": "torchvision"}, 64, 0.05, 30),
    ("bn_inception", {}, 32, 0.05, 30),
    ("prelu_net", {"width": 0.125}, 32, 0.01, 60),
    ("highway19", {}, 16, 0.05, 150),
    ("highway32", {}, 16, 0.05, 150),
]


def without_dropout(network: nn.Module) -> nn.Module:
    """Dropout keeps networks from learning images by heart."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def training_loss(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, with that of the auxiliary classifiers where there are some."""
    outputs = network(images)
    if isinstance(outputs, torch.Tensor):
        return F.cross_entropy(outputs, labels)
    scores, *auxiliary = outputs
    return F.cross_entropy(scores, labels) + network.auxiliary_weight * sum(
        F.cross_entropy(each, labels) for each in auxiliary
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "size", "rate", "iterations"), KINDS)
def test_zero_training_error_on_64_images(name, options, size, rate, iterations):
    images, labels = torch.randn(IMAGES, 3, size, size), torch.randint(CLASSES, (IMAGES,))
    network = without_dropout(build(name, CLASSES, **options)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    for _ in range(iterations):
        optimiser.zero_grad()
        training_loss(network, images, labels).backward()
        optimiser.step()
    with torch.no_grad():
        predictions = network.eval()(images).argmax(1)
    wrong = int((predictions != labels).sum())
    assert wrong == 0, f"{wrong} of {IMAGES} images are still wrong"
