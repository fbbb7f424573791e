"""VGG-16 (Simonyan and Zisserman 2015, configuration D): the row "VGG-16" of Tables 3 to 5."""

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from pipeline.models.convolutional import dense_classifier, require_images

MAP = 7
"""Side in positions of the last feature map of a 224x224 image, which the first fully connected layer sees."""


def fully_connected(sizes: tuple[int, ...], activation: Callable[[int], nn.Module]) -> nn.Sequential:
    """Linear layers between the given sizes, with activation(size) and dropout 0.5 after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), activation(outputs), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 1. Raises ValueError unless width is positive."""
    if width <= 0:
        raise ValueError(f"width must be positive, not {width}: 1 is the published network")
    return max(1, round(channels * width))


class VGG16(VGG):
    """13 convolutions 3x3 with ReLU, five max-pools 2x2, three fully connected layers; no BN.

    (N, 3, H, W) -> (N, num_classes) for H, W >= 32; a last map of another size than 7x7 is average-pooled to 7x7.
    torchvision's network and parameter names. `width` multiplies the channels of every hidden layer.
    """

    minimum_size = 32

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        layers = [size if isinstance(size, str) else scaled(size, width) for size in cfgs["D"]]
        super().__init__(make_layers(layers), num_classes=num_classes, init_weights=False)
        hidden = scaled(4096, width)
        self.classifier = fully_connected(
            (scaled(512, width) * MAP * MAP, hidden, hidden, num_classes), lambda _: nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores before softmax. Raises ValueError on images that are too small."""
        require_images(x, self.minimum_size)
        return super().forward(x)

    def score_map(self, images: Tensor) -> Tensor:
        """The first fully connected layer as a 7x7 convolution: (N, 3, H, W) -> (N, num_classes, h, w).

        h = max(floor(H / 32), 7) - 6. A side of the last map under 7 is pooled to 7, as the forward does.
        """
        require_images(images, self.minimum_size)
        features = self.features(images)
        height, width = features.shape[2:]
        features = F.adaptive_avg_pool2d(features, (max(height, MAP), max(width, MAP)))
        return dense_classifier(self.classifier, features, MAP)
