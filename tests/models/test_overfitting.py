"""A network of every kind learns 64 images by heart: zero training error."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from pipeline.models import build
from pipeline.training.loss import TrainingLoss

IMAGES = 64
CLASSES = 10
MOST_ITERATIONS = 200
CHECKED_EVERY = 10

# Network, options, image size in pixels and learning rate.
KINDS = [
    ("plain8", {}, 16, 0.1),
    ("resnet8", {}, 16, 0.1),
    ("resnet8", {"shortcut": "B"}, 16, 0.1),
    ("plain18", {}, 32, 0.02),
    ("resnet18a", {}, 32, 0.02),
    ("resnet18b", {}, 32, 0.02),
    ("resnet34c", {}, 32, 0.02),
    ("resnet50", {}, 32, 0.005),
    ("resnet50", {"stride_in": "conv3x3"}, 32, 0.005),
    ("vgg16", {"width": 0.125}, 32, 0.02),
    ("googlenet", {}, 32, 0.02),
    ("googlenet", {"form": "torchvision"}, 32, 0.02),
    ("bn_inception", {}, 32, 0.02),
    ("prelu_net", {"width": 0.125}, 32, 0.02),
    ("highway19", {}, 8, 0.05),
    ("highway32", {}, 8, 0.05),
]


def digits(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first handwritten digits of scikit-learn: images (64, 3, size, size) of unit deviation, labels (64,)."""
    data = load_digits()
    images = torch.from_numpy(data.images[:IMAGES]).float()[:, None]
    images = F.interpolate((images - images.mean()) / images.std(), size=size, mode="bilinear")
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(data.target[:IMAGES])


def eased(network: nn.Module) -> nn.Module:
    """Without dropout, which keeps from learning by heart, and with BN statistics that follow within a few steps."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5  # each step sees all 64 images
    return network


def wrong_of(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """Number of images that the network in evaluation mode gets wrong."""
    with torch.no_grad():
        wrong = int((network.eval()(images).argmax(1) != labels).sum())
    network.train()
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "size", "rate"), KINDS)
def test_zero_training_error_on_64_images(name, options, size, rate):
    images, labels = digits(size)
    network = eased(build(name, CLASSES, **options)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    loss = TrainingLoss(label_smoothing=0.0)
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    wrong = IMAGES
    for iteration in range(1, MOST_ITERATIONS + 1):
        optimiser.zero_grad()
        loss(network(images), labels).backward()
        if not normalised:  # without BN, the first steps at this rate diverge
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if iteration % CHECKED_EVERY == 0 and (wrong := wrong_of(network, images, labels)) == 0:
            break
    assert wrong == 0, f"{wrong} of {IMAGES} images are still wrong after {MOST_ITERATIONS} iterations"
