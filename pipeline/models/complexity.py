"""Size of a network: layers, trainable parameters and multiply-adds, by a forward of one image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.models import zoo


@dataclass(frozen=True)
class Layer:
    """One convolution or fully connected layer: its output without the batch, parameters and multiply-adds an image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Complexity:
    """A network's size at one image size.

    `layers` are the weighted layers on the longest path from image to scores, as the paper counts them (projections
    and gates stand beside it); `parameters` are the trainable ones of the whole network, auxiliary classifiers with
    them; `by_layer` are the convolutions and fully connected layers that an evaluation-mode forward runs, in its order.
    """

    layers: int
    parameters: int
    output_shape: tuple[int, ...]
    by_layer: tuple[Layer, ...]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and fully connected layers for one image."""
        return sum(layer.multiply_adds for layer in self.by_layer)


def complexity_of(name: str, num_classes: int, size: int, **options: object) -> Complexity:
    """Complexity of a network of the zoo for images of size x size pixels, computed without memory for its weights.

    Raises ValueError as zoo.build does, and on a size that is too small for the network.
    """
    with torch.device("meta"):
        return measure(zoo.build(name, num_classes, **options), size)


def measure(network: nn.Module, size: int) -> Complexity:
    """Complexity for images of size x size pixels, by one evaluation-mode forward on the network's device.

    Raises ValueError on a size that is too small for the network.
    """
    layers: list[Layer] = []
    names = {module: name for name, module in network.named_modules()}

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        layers.append(describe(names[module], module, output))

    images = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    with evaluating(network), hooked(network, record), torch.enable_grad():
        scores = network(images)
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return Complexity(depth(scores), parameters, tuple(scores.shape[1:]), tuple(layers))


def describe(name: str, module: nn.Module, output: Tensor) -> Layer:
    """One layer's size: each output value takes as many multiply-adds as the weights that lead to it."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    kernel = "x".join(str(side) for side in weight.shape[2:])
    return Layer(
        name=name,
        kind=f"conv {kernel}" if kernel else "fc",
        output_shape=tuple(output.shape[1:]),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=output[0].numel() * weight[0].numel(),
    )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, and the mode that the network had after it."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def hooked(network: nn.Module, record: Callable[[nn.Module, object, Tensor], None]) -> Iterator[None]:
    """`record` as a forward hook of every convolution and fully connected layer within the block."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def depth(scores: Tensor) -> int:
    """Weighted layers on the longest path that led to a tensor, read from its autograd graph.

    A depthwise convolution is one layer with the pointwise one after it.
    """
    depths: dict[object, int] = {None: 0}
    stack: list[object] = [scores.grad_fn]
    while stack:
        node = stack[-1]
        inputs = [source for source, _ in node.next_functions] if node is not None else []  # type: ignore[attr-defined]
        missing = [source for source in inputs if source not in depths]
        if missing:
            stack += missing
            continue
        stack.pop()
        depths.setdefault(node, is_weighted(node) + max((depths[source] for source in inputs), default=0))
    return depths[scores.grad_fn]


def is_weighted(node: object) -> bool:
    """Whether an autograd node is of a convolution (other than depthwise) or of a fully connected layer."""
    kind = type(node).__name__
    if kind.startswith("ConvolutionBackward"):
        return node._saved_groups == 1  # type: ignore[attr-defined]
    return kind.startswith("AddmmBackward")
