"""Images a second of ResNet-50's training at 224x224: our loader and loop against torchvision's reference way.

The peer is ImageFolder, PIL, RandomResizedCrop and mirroring in a DataLoader's processes, fp32, NCHW, torch's SGD.
Ours has the paper's scale jitter and colour noise. Both see 32 images a step. The last line is `ratio: <ours/peer>`.

    python -m benchmarks.imagenet_training ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.images import add_image_options, data_of, require_batch, usual_workers, write_images
from benchmarks.limits import matrix_limit
from benchmarks.ours import WAYS, add_compile_option, described, gigaflops, preset, recipe, training_steps
from benchmarks.pairs import apart, interleaved, stepping, warm
from benchmarks.record import Measurement, add_output_option, finish
from pipeline.data.prepare import prepare
from pipeline.memory import environment
from pipeline.models import build

SIZE = 224


def main(arguments: list[str] | None = None) -> None:
    """Print both rates."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        require_batch(len(write_images(options, folder / "images")), options.batch_size)
        mean = preset("imagenet")["data"]["mean"]
        prepare(data_of("class_folders", folder / "images", mean=mean), folder / "store")
        found = [_measure(folder, options, compile) for compile in WAYS[options.compile]]
    finish(found, options.json)


def _measure(folder: Path, options: argparse.Namespace, compile: bool) -> Measurement:
    batch, network, count = options.batch_size, options.network, options.iterations
    training = recipe("imagenet", batch, batch, compile=compile)
    with (
        apart(
            training_steps, folder / "store", "imagenet", network, training, options.processes, variables=environment()
        ) as ours,
        apart(reference_steps, folder / "images" / "train", network, batch, options.workers) as peer,
    ):
        warm(ours, peer, steps=2)
        rates = interleaved(stepping(ours, count, batch), stepping(peer, count, batch), options.rounds)
    limit = matrix_limit(gigaflops(network, 2, SIZE, training=True))
    return rates.measurement(f"{network}, training at {SIZE}{described(compile, 'auto')}", "images/s", limit)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_image_options(parser, images=256)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=3, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    add_compile_option(parser)
    parser.add_argument("--processes", type=int, default=0, help="of our loader")
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes of the peer's DataLoader")
    add_output_option(parser)
    return parser.parse_args(arguments)


def reference_steps(folder: Path, network: str, batch_size: int, workers: int) -> Iterator[float]:
    """The iterations of a reference-style loop over class folders, endlessly; each item is the training loss."""
    augment = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = ImageFolder(str(folder), transforms.Compose([*augment, normalise]))
    loader = DataLoader(images, batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True)
    model = build(network, len(images.classes)).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    while True:
        for inputs, targets in loader:
            outputs = model(inputs)
            loss = criterion(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


if __name__ == "__main__":
    main()
