"""Fully convolutional form of a network: the same weights give a map of scores over an image of any size."""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn


@runtime_checkable
class FullyConvolutional(Protocol):
    """A network that has a fully convolutional form."""

    def score_map(self, images: Tensor) -> Tensor: ...


def require_images(images: Tensor, minimum: int = 1) -> None:
    """Raise ValueError unless `images` is (N, 3, H, W) with H and W at least `minimum` pixels."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have the shape (N, 3, H, W), not {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height < minimum or width < minimum:
        raise ValueError(f"images of {height}x{width} pixels are too small: this network needs {minimum}x{minimum}")


def dense(layer: nn.Linear, features: Tensor, kernel_size: int = 1) -> Tensor:
    """Apply a fully connected layer at every position: W * x + b with W seen as a kernel_size^2 convolution.

    (N, C, H, W) -> (N, layer.out_features, H - kernel_size + 1, W - kernel_size + 1), where
    layer.in_features = C * kernel_size^2. The weights are viewed, not copied.
    """
    kernel = layer.weight.view(layer.out_features, -1, kernel_size, kernel_size)
    return F.conv2d(features, kernel, layer.bias)


def dense_classifier(layers: nn.Sequential, features: Tensor, kernel_size: int) -> Tensor:
    """Apply fully connected layers, with what stands between them, at every position of a feature map.

    (N, C, H, W) -> (N, num_classes, H - kernel_size + 1, W - kernel_size + 1); the first layer sees
    kernel_size x kernel_size positions, the others one.
    """
    first = True
    for layer in layers:
        if isinstance(layer, nn.Linear):
            features = dense(layer, features, kernel_size if first else 1)
            first = False
        else:
            features = layer(features)
    return features


class GlobalPoolNetwork(nn.Module):
    """fc(mean over positions of feature_map(x)): the paper's classifier after global average pooling.

    A subclass defines `feature_map`, (N, 3, H, W) -> (N, C, h, w), and the layer `fc`, C -> num_classes.
    """

    fc: nn.Linear
    minimum_size = 1
    """Least height and width of the images in pixels."""

    def feature_map(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Scores before softmax, (N, 3, H, W) -> (N, num_classes). Raises ValueError on images of another shape."""
        require_images(images, self.minimum_size)
        return self.classify(F.adaptive_avg_pool2d(self.feature_map(images), 1).flatten(1))

    def classify(self, pooled: Tensor) -> Tensor:
        """Scores of pooled features, (N, C) -> (N, num_classes)."""
        return self.fc(pooled)

    def score_map(self, images: Tensor) -> Tensor:
        """Scores at every position, (N, 3, H, W) -> (N, num_classes, h, w); their mean is the forward's score."""
        require_images(images, self.minimum_size)
        return dense(self.fc, self.feature_map(images))


def score_map(network: nn.Module, images: Tensor) -> Tensor:
    """Scores of the network applied fully convolutionally (Section 3.4), from the same weights.

    The pooling and the fully connected layers become dense convolutions over the last feature map: (N, 3, H, W) ->
    (N, num_classes, h, w), before softmax. Where h = w = 1 it equals the network's own output in evaluation mode.
    Raises TypeError for a network without that form, ValueError on images that are too small for it.
    """
    if not isinstance(network, FullyConvolutional):
        raise TypeError(f"{type(network).__name__} has no fully convolutional form: it defines no score_map")
    return network.score_map(images)
