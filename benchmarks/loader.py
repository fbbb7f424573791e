"""Training images a second on one core: this project's loader against torchvision's reference way.

Both read the same JPEG files' content and make the same views, in batches of float32 on the CPU: shorter side drawn
from [256, 480], 224x224 crop, mirror, mean subtracted. The peer is ImageFolder, PIL and torchvision's v1 transforms.
Rounds are interleaved. The last line is `ratio: <ours/peer>`.

    python -m benchmarks.loader ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.images import data_of, one_core_options, require_batch, write_images
from benchmarks.limits import decode_rate
from benchmarks.pairs import interleaved, stepping, warm
from benchmarks.record import Limit, finish
from pipeline.data.loader import TrainingLoader
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.schema import Augmentation

SCALE, CROP, BATCH = (256, 480), 224, 32


def main(arguments: list[str] | None = None) -> None:
    """Print both rates, the decode-only rate and the ratio."""
    options = one_core_options(__doc__, arguments, rounds=5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(options, folder / "images")
        require_batch(len(images), BATCH)
        ours, peer = _ours(folder), _peer(folder)
        warm(ours, peer, steps=1)
        batches = -(-len(images) // BATCH)
        pairs = interleaved(stepping(ours, batches, BATCH), stepping(peer, batches, BATCH), options.rounds)
        decode = decode_rate(images, options.rounds)
    _describe(images)
    limit = Limit("JPEG decode only, one core", decode)
    finish([pairs.measurement("loader, training views on one core", "images/s", limit)], options.json)


def _ours(folder: Path) -> Iterator[torch.Tensor]:
    mean = {"kind": "per_pixel", "shorter_side": SCALE[0], "crop": CROP, "divide_by_std": True}
    data = data_of("class_folders", folder / "images", mean=mean)
    prepare(data, folder / "store")
    store = Store.open(folder / "store")
    split = store.split("train")
    loader = TrainingLoader(
        split,
        np.arange(split.n_images),
        augmentation=Augmentation(scale=SCALE, pad=0, crop=CROP, mirror=True, color_noise=0.0),
        statistics=InputStatistics.of_store(store, data.mean),
        batch_size=BATCH,
        seed=0,
    )
    return (images for images, _ in loader.batches(0))


class _ScaleJitter:
    """Shorter side drawn uniformly, as torchvision's v1 transforms have nothing for it."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return transforms.functional.resize(picture, random.randint(*SCALE))


def _peer(folder: Path) -> Iterator[torch.Tensor]:
    views = transforms.Compose(
        [
            _ScaleJitter(),
            transforms.RandomCrop(CROP),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder / "images" / "train"), views), batch_size=BATCH, shuffle=True, drop_last=True
    )
    return (images for _ in itertools.count() for images, _ in loader)


def _describe(images: list[bytes]) -> None:
    sizes = [simplejpeg.decode_jpeg_header(content)[:2] for content in images]
    height, width = np.median(sizes, axis=0).astype(int)
    kilobytes = np.mean([len(content) for content in images]) / 1000
    print(f"{len(images)} JPEGs, median {width}x{height} pixels, mean {kilobytes:.0f} kB; one core")


if __name__ == "__main__":
    main()
