"""Images a second of ten-crop evaluation, JPEG files to probabilities: our Predictor against torchvision's TenCrop.

The peer is written as torchvision's documentation has it: Resize, TenCrop and a stack of tensors in a DataLoader's
processes, the crops of a few images in one forward pass, fp32, NCHW. Both have the same network with random weights.
Ours is measured as the presets have it, in fp32 and uncompiled, and then in the format that the hardware is fast in.
The last line is `ratio: <ours/peer>`, of the first.

    python -m benchmarks.evaluation ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.images import add_image_options, data_of, require_batch, usual_workers, write_images
from benchmarks.limits import matrix_limit
from benchmarks.ours import WAYS, add_compile_option, gigaflops
from benchmarks.pairs import apart, interleaved, stepping, warm
from benchmarks.record import Measurement, add_output_option, finish
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.evaluation.predictor import Predictor
from pipeline.memory import reuse_freed_memory
from pipeline.models import build
from pipeline.schema import TenCrop
from pipeline.training.precision import resolve_precision

SIDE, CROP, CLASSES = 256, 224, 1000


def main(arguments: list[str] | None = None) -> None:
    """Print both rates."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        require_batch(len(write_images(options, folder / "images")), options.images_together)
        prepare(data_of("class_folders", folder / "images"), folder / "store")
        found = [_measure(folder, options, precision, compile) for precision, compile in _ways(options)]
    finish(found, options.json)


def _ways(options: argparse.Namespace) -> list[tuple[str, bool]]:
    """Number formats of ours, and whether it is compiled; the presets' first."""
    if options.precision:
        return [(options.precision, compile) for compile in WAYS[options.compile]]
    others = [("auto", compile) for compile in WAYS[options.compile] if compile or _resolved("auto") != "fp32"]
    return [("fp32", False), *others]


def _resolved(precision: str) -> str:
    return resolve_precision(precision, torch.device("cpu"))


def _measure(folder: Path, options: argparse.Namespace, precision: str, compile: bool) -> Measurement:
    network, together = options.network, options.images_together
    with (
        apart(our_evaluation, folder / "store", network, precision, together, compile) as ours,
        apart(usual_evaluation, folder / "images" / "train", network, together, options.workers) as peer,
    ):
        warm(ours, peer, steps=1)
        count = max(1, options.images_a_round // together)
        rates = interleaved(stepping(ours, count, together), stepping(peer, count, together), options.rounds)
    limit = matrix_limit(10 * gigaflops(network, CLASSES, CROP, training=False))
    how = f"{_resolved(precision)}{', compiled' if compile else ''}"
    return rates.measurement(f"{network}, ten-crop evaluation, {how}", "images/s", limit)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_image_options(parser, images=64)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), help="of ours; by default fp32, then auto")
    add_compile_option(parser)
    parser.add_argument("--images-together", type=int, default=4, help="whose crops make one forward pass")
    parser.add_argument("--images-a-round", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes of the peer's DataLoader")
    add_output_option(parser)
    return parser.parse_args(arguments)


def our_evaluation(
    location: Path, network: str, precision: str, images_together: int, compile: bool = False
) -> Iterator[np.ndarray]:
    """Probabilities of a few images at a time, decoded from the store, endlessly."""
    reuse_freed_memory()  # as the evaluate stage does
    store = Store.open(location)
    split, names = store.split("train"), [str(number) for number in range(CLASSES)]
    statistics = store.opened(store.manifest.statistics, InputStatistics.load)
    torch.manual_seed(0)
    predictor = Predictor(
        build(network, CLASSES),
        statistics,
        names,
        precision=precision,
        batch_size=10 * images_together,
        compile=compile,
    )
    protocol = TenCrop(shorter_side=SIDE, crop=CROP)
    for start in itertools.count(0, images_together):
        indices = np.arange(start, start + images_together) % split.n_images
        yield predictor.predict([split.image(int(i)) for i in indices], protocol)


@torch.no_grad()
def usual_evaluation(folder: Path, network: str, images_together: int, workers: int) -> Iterator[np.ndarray]:
    """Probabilities of a few images at a time, read from class folders, endlessly."""
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    to_tensors = transforms.Lambda(
        lambda crops: torch.stack([normalise(transforms.ToTensor()(crop)) for crop in crops])
    )
    views = transforms.Compose([transforms.Resize(SIDE), transforms.TenCrop(CROP), to_tensors])
    loader = DataLoader(
        ImageFolder(str(folder), views), batch_size=images_together, num_workers=workers, drop_last=True
    )
    torch.manual_seed(0)
    model = build(network, CLASSES).eval()
    for images, _ in itertools.chain.from_iterable(itertools.repeat(loader)):
        outputs = model(images.flatten(0, 1)).softmax(1)
        yield outputs.view(len(images), 10, -1).mean(1).numpy()


if __name__ == "__main__":
    main()
