"""Iterations a second of CIFAR-10 training: our loader and loop against the usual script.

The peer is written as such scripts are: torchvision's v1 transforms image by image in a DataLoader's processes, fp32,
NCHW, torch's SGD, loss and accuracy read after each step. Both train the same network on the same images, 128 at a
time. Rounds are interleaved. The last line is `ratio: <ours/peer>`.

    python -m benchmarks.cifar_training resnet20 resnet110
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.gpu_steps import UsualImages
from benchmarks.images import data_of, require_batch, usual_workers, write_cifar
from benchmarks.limits import matrix_limit
from benchmarks.ours import WAYS, add_compile_option, described, gigaflops, preset, recipe, training_steps
from benchmarks.pairs import apart, interleaved, stepping, warm
from benchmarks.record import Measurement, add_output_option, finish
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.memory import environment
from pipeline.models import build

BATCH = 128
USUAL_MEAN, USUAL_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def main(arguments: list[str] | None = None) -> None:
    """Print both rates of each network."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        store = prepare_cifar(Path(name), options.images)
        ways = itertools.product(options.networks, WAYS[options.compile])
        found = [_measure(network, store, options, compile) for network, compile in ways]
    finish(found, options.json)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet20", "resnet110"])
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a round of ours, about")
    parser.add_argument("--rounds", type=int, default=5)
    add_compile_option(parser)
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="of ours")
    parser.add_argument("--bn-images", type=int, default=BATCH, help="images one BN of ours sees; the preset has 64")
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes of the peer's DataLoader")
    add_output_option(parser)
    return parser.parse_args(arguments)


def prepare_cifar(folder: Path, images: int, test_images: int = 100) -> Path:
    """A store of CIFAR-10's (or generated) images, by the preset's parameters; its folder."""
    require_batch(images, BATCH)
    write_cifar(folder / "parquet", images, test_images)
    mean = preset("cifar10")["data"]["mean"]
    prepare(data_of("hf_parquet", folder / "parquet", keep="decoded", mean=mean), folder / "store")
    return folder / "store"


def _measure(network: str, store: Path, options: argparse.Namespace, compile: bool) -> Measurement:
    training = recipe("cifar10", BATCH, options.bn_images, compile=compile, precision=options.precision)
    with (
        apart(training_steps, store, "cifar10", network, training, 0, variables=environment()) as ours,
        apart(usual_steps, store, network, options.workers) as peer,
    ):
        warm(ours, peer, steps=3)
        count = max(2, round(options.seconds * stepping(ours, 3)()))
        rates = interleaved(stepping(ours, count), stepping(peer, max(2, count // 2)), options.rounds)
    limit = matrix_limit(BATCH * gigaflops(network, 10, 32, training=True))
    how = described(compile, options.precision)
    return rates.measurement(f"{network}, CIFAR-10 training{how}", "iterations/s", limit)


def usual_script(store: Path, network: str, workers: int) -> tuple[nn.Module, torch.optim.Optimizer, Iterator[float]]:
    """The usual script's network and optimizer, and its iterations, endlessly; each item is the training loss."""
    split = Store.open(store).split("train")
    images = UsualImages(split.array(), split.labels, transforms.Normalize(USUAL_MEAN, USUAL_STD))
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)
    model = build(network, len(Store.open(store).manifest.class_names)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return model, optimizer, _iterations(model, optimizer, loader)


def usual_steps(store: Path, network: str, workers: int) -> Iterator[float]:
    """The usual script's iterations alone."""
    yield from usual_script(store, network, workers)[2]


def _iterations(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, int]]
) -> Iterator[float]:
    criterion = nn.CrossEntropyLoss()
    while True:
        seen = correct = 0
        for inputs, targets in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            seen += len(targets)
            correct += outputs.argmax(1).eq(targets).sum().item()
            yield loss.item()


if __name__ == "__main__":
    main()
