"""Layer responses of Figure 7: how strongly each 3x3 layer's output varies."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from pipeline.models.complexity import evaluating


class Deviation:
    """Standard deviation of all values given so far, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0
        self.total_of_squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        values = values.detach().double()
        self.count += values.numel()
        self.total = self.total + values.sum()
        self.total_of_squares = self.total_of_squares + values.square().sum()

    def value(self) -> float:
        mean = float(self.total) / self.count
        return max(float(self.total_of_squares) / self.count - mean * mean, 0.0) ** 0.5


class Recorder:
    """Forward hooks that pair each 3x3 convolution with the BN called right after it."""

    def __init__(self, network: nn.Module) -> None:
        self.deviations: dict[str, Deviation] = {}
        self.waiting: str | None = None
        self.handles = []
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                self.handles.append(module.register_forward_hook(self.hook(name)))

    def hook(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def record(module: nn.Module, _: object, output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                self.waiting = name if module.kernel_size == (3, 3) else None
            elif self.waiting is not None:
                self.deviations.setdefault(self.waiting, Deviation()).add(output)
                self.waiting = None

        return record

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def layer_responses(network: nn.Module, batches: Iterable[Tensor]) -> list[tuple[str, float]]:
    """Standard deviation of each 3x3 layer's output over all images, after BN and before ReLU or addition (Figure 7).

    `batches` are (N, 3, H, W) on the network's device. Returns (name of the convolution, deviation) in layer order;
    the network runs in evaluation mode and keeps its mode. Raises ValueError if there are no batches, or if the
    network has no 3x3 layer with BN after it.
    """
    recorder = Recorder(network)
    seen = 0
    try:
        with evaluating(network), torch.no_grad():
            for images in batches:
                network(images)
                seen += len(images)
    finally:
        recorder.remove()
    if not seen:
        raise ValueError("layer responses need at least one batch of images: none were given")
    if not recorder.deviations:
        raise ValueError(
            f"{type(network).__name__} has no 3x3 convolution followed by BN, so it has no layer responses"
        )
    return [(name, deviation.value()) for name, deviation in recorder.deviations.items()]
