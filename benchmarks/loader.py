"""Training images a second on one core: this project's loader against torchvision's reference way.

Both read the same JPEG files' content and make the same views, in batches of float32 on the CPU: shorter side drawn
from [256, 480], 224x224 crop, mirror, mean subtracted. The peer is ImageFolder, PIL and torchvision's v1 transforms.
Rounds are interleaved. The last line is `ratio: <ours/peer>`.

    python -m benchmarks.loader ILSVRC2012_img_val.tar
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pipeline.data.loader import TrainingLoader
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.schema import Augmentation, Data

SCALE, CROP, BATCH = (256, 480), 224, 32
MOSAIC = (500, 375)


def main() -> None:
    """Print both rates, the decode-only rate and the ratio."""
    parser = parser_of_images(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(arguments, folder / "images")
        ours, peer = _ours(folder), _peer(folder)
        rates = _interleaved({"ours": ours, "peer": peer}, arguments.images, arguments.rounds)
        decode = max(_decode_rate(images) for _ in range(arguments.rounds))
    _print(rates, decode, images)


def parser_of_images(description: str) -> argparse.ArgumentParser:
    """Options that say which images to take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a tar archive or folder of JPEG files")
    parser.add_argument("--images", type=int, default=512, help="how many images, and views a round")
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="take the files as they are; otherwise mosaics of 500x375 pixels are made of them, as large as ImageNet's"
        " usual image, for sources with smaller ones",
    )
    return parser


def write_images(arguments: argparse.Namespace, folder: Path) -> list[bytes]:
    """Write the chosen images below `folder`/train/<class>/; returns the files' contents."""
    contents = list(itertools.islice(_contents(arguments.source), arguments.images))
    if not contents:
        raise SystemExit(f"{arguments.source}: no JPEG files there")
    images = contents if arguments.as_stored else _mosaics(contents)
    for number, content in enumerate(images):
        path = folder / "train" / f"class{number % 2}" / f"{number:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return images


def _contents(source: Path) -> Iterator[bytes]:
    if source.is_dir():
        yield from (path.read_bytes() for path in sorted(source.rglob("*.[jJ][pP]*[gG]")))
        return
    with tarfile.open(source) as tar:
        for info in tar:
            file = tar.extractfile(info)
            if file is not None:
                yield file.read()


def _mosaics(contents: list[bytes]) -> list[bytes]:
    """Neighbouring images pasted together: as many pixels as usual, each with a photograph's detail."""
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    found = []
    for number in range(len(pictures)):
        size = MOSAIC if number % 3 else MOSAIC[::-1]
        canvas, position, left, top, row = Image.new("RGB", size), number, 0, 0, 0
        while top < size[1]:
            picture = pictures[position % len(pictures)]
            canvas.paste(picture, (left, top))
            position, left, row = position + 1, left + picture.width, max(row, picture.height)
            if left >= size[0]:
                left, top, row = 0, top + row, 0
        buffer = io.BytesIO()
        canvas.save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def _ours(folder: Path) -> Callable[[], Iterator[torch.Tensor]]:
    data = Data.model_validate(
        {
            "source": "class_folders",
            "url": str(folder / "images"),
            "store": None,
            "keep": "encoded",
            "size": None,
            "limit_shorter_side": None,
            "shard_images": 1024,
            "on_bad_image": "error",
            "max_pixels": 10**8,
            "holdout": {"images": 0, "seed": 0, "balanced": False, "train_on": True},
            "mean": {"kind": "per_pixel", "shorter_side": SCALE[0], "crop": CROP, "divide_by_std": True},
        }
    )
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
    return lambda: (images for images, _ in loader.batches(0))


class _ScaleJitter:
    """Shorter side drawn uniformly, as torchvision's v1 transforms have nothing for it."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return transforms.functional.resize(picture, random.randint(*SCALE))


def _peer(folder: Path) -> Callable[[], Iterator[torch.Tensor]]:
    views = transforms.Compose(
        [
            _ScaleJitter(),
            transforms.RandomCrop(CROP),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder / "images" / "train"), views), batch_size=BATCH, shuffle=True)
    return lambda: (images for _ in itertools.count() for images, _ in loader)


def _interleaved(
    ways: dict[str, Callable[[], Iterator[torch.Tensor]]], images: int, rounds: int
) -> dict[str, list[float]]:
    iterators = {name: make() for name, make in ways.items()}
    for iterator in iterators.values():
        next(iterator)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, iterator in iterators.items():
            rates[name].append(_rate(iterator, images))
    return rates


def _rate(iterator: Iterator[torch.Tensor], images: int) -> float:
    start, done = time.perf_counter(), 0
    while done < images:
        done += len(next(iterator))
    return done / (time.perf_counter() - start)


def _decode_rate(images: list[bytes]) -> float:
    start = time.perf_counter()
    for content in images:
        simplejpeg.decode_jpeg(content, strict=False)
    return len(images) / (time.perf_counter() - start)


def _print(rates: dict[str, list[float]], decode: float, images: list[bytes]) -> None:
    sizes = [simplejpeg.decode_jpeg_header(content)[:2] for content in images]
    height, width = np.median(sizes, axis=0).astype(int)
    kilobytes = np.mean([len(content) for content in images]) / 1000
    ours, peer = (statistics.median(rates[name]) for name in ("ours", "peer"))
    print(f"{len(images)} JPEGs, median {width}x{height} pixels, mean {kilobytes:.0f} kB; one core, medians of rounds")
    for name, values in rates.items():
        print(f"{name}: {statistics.median(values):.0f} images/s ({min(values):.0f} to {max(values):.0f})")
    print(f"decode only (simplejpeg): {decode:.0f} images/s; ours is {100 * ours / decode:.0f} % of it")
    print(f"ratio: {ours / peer:.2f}")


if __name__ == "__main__":
    main()
