"""The zoo: from a network's name to the network."""

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pipeline.models import cifar, highway, imagenet
from pipeline.models.blocks import Bottleneck
from pipeline.models.initialisation import he_initialise


@dataclass(frozen=True)
class Entry:
    """How a network is made: `construct(num_classes, *, options)`, then `initialise(network)`.

    `image_size` in pixels a side and `num_classes` are those of the data it was published for.
    """

    construct: Callable[..., nn.Module]
    initialise: Callable[[nn.Module], None] = he_initialise
    image_size: int = 224
    num_classes: int = 1000

    def options(self) -> tuple[str, ...]:
        """Names of the options that the network takes, in the order of its constructor."""
        parameters = inspect.signature(self.construct).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "num_classes")


def _imagenet_entry(architecture: imagenet.Architecture) -> Entry:
    construct = imagenet.bottleneck_network if architecture.block is Bottleneck else imagenet.basic_network
    return Entry(partial(construct, architecture))


def _cifar_entry(family: str, depth: int) -> Entry:
    construct = {"plain": cifar.plain_network, "resnet": cifar.residual_network}[family]
    return Entry(partial(construct, depth), image_size=32, num_classes=10)


def _highway_entry(architecture: highway.Architecture) -> Entry:
    construct = partial(highway.HighwayNetwork, architecture)
    return Entry(construct, highway.initialise, image_size=32, num_classes=10)


# The networks made of torchvision's blocks are imported when they are asked for: torchvision takes over a second.
def _vgg16() -> Entry:
    from pipeline.models.vgg import VGG16

    return Entry(VGG16)


def _googlenet() -> Entry:
    from pipeline.models.googlenet import GoogLeNet

    return Entry(GoogLeNet)


def _bn_inception() -> Entry:
    from pipeline.models.bn_inception import BNInception

    return Entry(BNInception)


def _prelu_net() -> Entry:
    from pipeline.models import prelu_net

    return Entry(prelu_net.PReLUNet, prelu_net.initialise)


NETWORKS: dict[str, Entry | Callable[[], Entry]] = {
    **{name: _imagenet_entry(architecture) for name, architecture in imagenet.ARCHITECTURES.items()},
    "vgg16": _vgg16,
    "googlenet": _googlenet,
    "bn_inception": _bn_inception,
    "prelu_net": _prelu_net,
    **{f"plain{depth}": _cifar_entry("plain", depth) for depth in cifar.PLAIN_DEPTHS},
    **{f"resnet{depth}": _cifar_entry("resnet", depth) for depth in cifar.RESNET_DEPTHS},
    **{name: _highway_entry(architecture) for name, architecture in highway.ARCHITECTURES.items()},
}
"""The named networks. Besides them `find` knows every other depth 6n + 2 of the CIFAR family."""


def names() -> list[str]:
    """Names of the networks. Any other plainD or resnetD with D = 6n + 2 can be built too."""
    return list(NETWORKS)


def find(name: str) -> Entry:
    """The entry of a network. Raises ValueError with the known names if there is none of that name."""
    if name in NETWORKS:
        entry = NETWORKS[name]
        return entry if isinstance(entry, Entry) else entry()
    match = re.fullmatch(r"(plain|resnet)([1-9]\d*)", name)
    if match and cifar.is_depth(int(match[2])):
        return _cifar_entry(match[1], int(match[2]))
    close = [known for known in NETWORKS if name and known.startswith(name)]
    close = close or difflib.get_close_matches(name, NETWORKS, n=3, cutoff=0.7)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    known = f"{', '.join(NETWORKS)}, and any other plainD or resnetD with D = 6n + 2"
    raise ValueError(f"unknown network {name!r}.{hint} Known are {known}")


def build(name: str, num_classes: int, **options: object) -> nn.Module:
    """The network of that name, He-initialised from torch's generator: float (N, 3, H, W) -> (N, num_classes) scores.

    googlenet returns (scores, auxiliary scores, ...) in training mode. It is made on torch's default device (so
    `with torch.device(...)` places it). Raises ValueError on an unknown name (with the known ones), an unknown option
    (with the allowed ones), an option's value that does not exist, and a num_classes under 1.
    """
    entry = find(name)
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    allowed = entry.options()
    for option in options:
        if option not in allowed:
            raise ValueError(f"unknown option {option!r} of {name}: allowed are {', '.join(allowed) or 'none'}")
    device = torch.get_default_device()
    with torch.device("meta"):  # no weights are drawn twice: torch's own initialisation has nothing to fill
        network = entry.construct(num_classes=num_classes, **options)
    network.to_empty(device=device)
    entry.initialise(network)
    return network
