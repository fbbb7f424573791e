"""PReLU-net, model C of "Delving Deep into Rectifiers" (He et al. 2015, Table 3): 22 layers, no BN."""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.convolutional import dense_classifier, require_images
from pipeline.models.initialisation import he_initialise
from pipeline.models.vgg import fully_connected, scaled

GROUP_CHANNELS = (384, 768, 896)
GROUP_DEPTH = 6
LEVELS = (7, 3, 2, 1)
"""Levels of the spatial pyramid: bins a side."""
WINDOW = 14
"""Side in positions of the last feature map of a 224x224 image, which the pyramid divides."""

initialise = partial(he_initialise, negative_slope=0.25)
"""He initialisation for rectifiers of slope 0.25, with which PReLU starts."""


class PReLUNet(nn.Module):
    """conv7x7/2 and three groups of six 3x3 convolutions, max-pooled between, pyramid pooling, three fc layers.

    A channel-wise PReLU follows each layer but the last. (N, 3, H, W) -> (N, num_classes) for H, W >= 15, the pyramid
    dividing a map of any size. `width` multiplies the channels of every hidden layer.
    """

    minimum_size = 15

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(size, width) for size in (96, *GROUP_CHANNELS)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 7, stride=2, padding=3), nn.PReLU(channels[0])]
        for inputs, outputs in pairwise(channels):
            layers += [nn.MaxPool2d(2), *group(inputs, outputs)]
        self.features = nn.Sequential(*layers)
        bins = sum(level * level for level in LEVELS)
        hidden = scaled(4096, width)
        self.classifier = fully_connected((channels[-1] * bins, hidden, hidden, num_classes), nn.PReLU)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before softmax. Raises ValueError on images that are too small."""
        require_images(images, self.minimum_size)
        return self.classifier(pyramid(self.features(images)))

    def score_map(self, images: Tensor) -> Tensor:
        """Every 14x14 window of the last map, pyramid-pooled and classified: (N, 3, H, W) -> (N, num_classes, h, w).

        This is the dense sliding window of that paper's test. h = max(floor(ceil(H / 2) / 8), 14) - 13: where a side
        of the map is under 14, the window spans it whole, as the forward does. The pooled map takes
        56448 * h * w * 4 bytes an image.
        """
        require_images(images, self.minimum_size)
        return dense_classifier(self.classifier, dense_pyramid(self.features(images)), 1)


def group(in_channels: int, channels: int) -> list[nn.Module]:
    """Six 3x3 convolutions, each with a PReLU after it."""
    layers: list[nn.Module] = []
    for inputs in (in_channels, *[channels] * (GROUP_DEPTH - 1)):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.PReLU(channels)]
    return layers


def pyramid(features: Tensor) -> Tensor:
    """Maxima over 7x7, 3x3, 2x2 and 1x1 bins of the map: (N, C, h, w) -> (N, 63 C)."""
    return torch.cat([F.adaptive_max_pool2d(features, level).flatten(1) for level in LEVELS], 1)


def dense_pyramid(features: Tensor) -> Tensor:
    """`pyramid` of every 14x14 window: (N, C, h, w) -> (N, 63 C, h - 13, w - 13); 1 for a side under 14."""
    height, width = (min(WINDOW, side) for side in features.shape[2:])
    levels = []
    for level in LEVELS:
        cells = [
            sliding_maximum(features, rows, columns, (height, width))
            for rows in bins_of(height, level)
            for columns in bins_of(width, level)
        ]
        levels.append(torch.stack(cells, 2).flatten(1, 2))
    return torch.cat(levels, 1)


def bins_of(side: int, level: int) -> list[tuple[int, int]]:
    """First and past-the-last position of each of `level` bins of a side: those of adaptive pooling."""
    return [(i * side // level, -((i + 1) * side // -level)) for i in range(level)]


def sliding_maximum(
    features: Tensor, rows: tuple[int, int], columns: tuple[int, int], window: tuple[int, int]
) -> Tensor:
    """Maximum over one bin of the window, for every place of the window: (N, C, h, w) -> (N, C, h', w')."""
    height, width = features.shape[2:]
    bottom, right = height - window[0] + rows[1], width - window[1] + columns[1]
    reached = features[:, :, rows[0] : bottom, columns[0] : right]
    return F.max_pool2d(reached, (rows[1] - rows[0], columns[1] - columns[0]), stride=1)
