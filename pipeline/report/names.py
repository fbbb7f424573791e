"""Networks, runs and protocols as readers know them, and the order in which they stand."""

from __future__ import annotations

import re
from typing import Literal

from pipeline.config import split_run

Kind = Literal["plain", "resnet", "other"]
Family = Literal["imagenet", "cifar", "other"]
IMAGENET_DEPTHS = (18, 34, 50, 101, 152)
PATTERN = re.compile(r"(plain|resnet)(\d+)([abc]?)")
OTHERS = {
    "vgg16": "VGG-16",
    "googlenet": "GoogLeNet",
    "bn_inception": "BN-inception",
    "prelu_net": "PReLU-net",
    "highway19": "Highway-19",
    "highway32": "Highway-32",
}
PROTOCOLS = {
    "single_view": "single view",
    "center_crop": "1-crop",
    "ten_crop": "10-crop",
    "multi_scale": "multi-scale",
}
HOLDOUT = "holdout"
WAYS = {
    "multi_scale_softmax": "softmax, with mirror images",
    "multi_scale_softmax_unmirrored": "softmax, without mirror images",
    "multi_scale_scores": "scores, with mirror images",
    "multi_scale_scores_unmirrored": "scores, without mirror images",
}
"""What is averaged in multi-scale testing, which the paper leaves open; the declared way stands as multi_scale."""


def kind(network: str) -> Kind:
    """Plain, residual, or another's network."""
    match = PATTERN.fullmatch(network)
    return "other" if match is None else "plain" if match[1] == "plain" else "resnet"


def depth(network: str) -> int | None:
    """Layers with weights, as the name says: 56 for resnet56; None where it doesn't."""
    match = PATTERN.fullmatch(network)
    return int(match[2]) if match else None


def size(network: str) -> str:
    """What a plain net and its residual twin of option A share: '34' for plain34 and resnet34a, '34b' for resnet34b."""
    match = PATTERN.fullmatch(network)
    return match[2] + match[3].removesuffix("a") if match else network


def family(network: str) -> Family:
    """Whether the paper has the network in its ImageNet tables or, as 6n+2 layers, in its CIFAR-10 ones."""
    layers = depth(network)
    if layers in IMAGENET_DEPTHS or network in ("vgg16", "googlenet", "bn_inception", "prelu_net"):
        return "imagenet"
    return "cifar" if network.startswith("highway") or (layers and layers % 6 == 2) else "other"


def label(network: str) -> str:
    """The paper's way of writing a network: resnet34b is 'ResNet-34 B', plain20 'plain-20'."""
    match = PATTERN.fullmatch(network)
    if match is None:
        return OTHERS.get(network, network)
    name = "plain" if match[1] == "plain" else "ResNet"
    return f"{name}-{match[2]} {match[3].upper()}".rstrip()


def is_run(name: str) -> bool:
    """Whether a name is a run's, rather than an ensemble's."""
    try:
        split_run(name)
    except ValueError:
        return False
    return True


def run_label(run: str) -> str:
    """A run in words: 'ResNet-20, seed 0'."""
    network, seed = split_run(run)
    return f"{label(network)}, seed {seed}"


def network_order(network: str) -> tuple[int, int, str]:
    """Sorts plain nets, then residual ones, by depth and shortcut, then others."""
    return ["plain", "resnet", "other"].index(kind(network)), depth(network) or 0, network


def run_order(run: str) -> tuple[tuple[int, int, str], int]:
    """Sorts runs by network, then seed."""
    network, seed = split_run(run)
    return network_order(network), seed


def protocol_label(protocol: str) -> str:
    """The paper's word for a protocol."""
    return PROTOCOLS.get(protocol, protocol.replace("_", " "))


def protocol_order(protocol: str) -> tuple[int, str]:
    """Sorts protocols from the cheapest to the dearest, others after them."""
    known = list(PROTOCOLS)
    return (known.index(protocol) if protocol in known else len(known)), protocol


def evaluate_command(experiment: str, run: str) -> str:
    """What makes a run's figures anew, training first where that is needed."""
    return f"dvc repro evaluate@{experiment}-{run}"


def prepare_command(experiment: str) -> str:
    """What makes the store of images anew."""
    return f"dvc repro prepare@{experiment}"


def train_command(experiment: str, run: str) -> str:
    """What trains a run anew."""
    return f"dvc repro train@{experiment}-{run}"


def ensemble_command(experiment: str) -> str:
    """What makes the ensembles' figures anew, from the runs' probabilities alone."""
    return f"dvc repro --single-item ensemble@{experiment}"
