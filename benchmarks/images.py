"""The images that benchmarks work on: photographs where they are at hand, else generated ones of the same form."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch
from PIL import Image

from benchmarks.record import add_output_option
from pipeline.cluster import cores
from pipeline.schema import Data

DATA_VARIABLE = "RESNET_TEST_DATA"
SUFFIXES = (".jpg", ".jpeg")
USUAL_SIZE = (500, 375)
"""Width and height of ImageNet's usual image."""


def add_image_options(parser: argparse.ArgumentParser, images: int) -> None:
    """Options that say which JPEG images to take, and how many by default."""
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help=f"a tar archive or folder of JPEG files; by default imagenette's in {DATA_VARIABLE}, else generated ones",
    )
    parser.add_argument("--images", type=int, default=images, help="how many images")
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="take the files as they are; otherwise mosaics of 500x375 pixels are made of them, as large as ImageNet's"
        " usual image, for sources with smaller ones",
    )


def one_core_options(description: str | None, arguments: list[str] | None, rounds: int) -> argparse.Namespace:
    """The options of a benchmark that reads images on one core, to which this process is bound from here on."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_image_options(parser, images=512)
    parser.add_argument("--rounds", type=int, default=rounds)
    add_output_option(parser)
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    return options


def usual_workers() -> int:
    """Processes of a peer's DataLoader: one for each core that may be used; more than 16 feed no faster."""
    return min(16, cores())


def require_batch(images: int, batch: int) -> None:
    """SystemExit for fewer images than a mini-batch takes: the peer, which drops what is left over, would have none."""
    if images < batch:
        raise SystemExit(f"{images} images, of which a mini-batch takes {batch}: give more (--images)")


def write_images(arguments: argparse.Namespace, folder: Path) -> list[bytes]:
    """Write the chosen images below `folder`/train/<class>/, two classes in turn; returns the files' contents."""
    images = list(_chosen(arguments))
    for number, content in enumerate(images):
        path = folder / "train" / f"class{number % 2}" / f"{number:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return images


def _chosen(arguments: argparse.Namespace) -> list[bytes]:
    source = arguments.source or _test_data("imagenette/ILSVRC2012_img_val.tar")
    if source is None:
        print("generated images of 500x375 pixels; give an archive or folder for photographs")
        return generated(arguments.images)
    contents = list(itertools.islice(_contents(source), arguments.images))
    if not contents:
        raise SystemExit(f"{source}: no JPEG files there")
    return contents if arguments.as_stored else _mosaics(contents)


def _test_data(name: str) -> Path | None:
    folder = os.environ.get(DATA_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise SystemExit(f"{DATA_VARIABLE}: {folder} is no folder")
    return Path(folder) / name if folder and (Path(folder) / name).exists() else None


def _contents(source: Path) -> Iterator[bytes]:
    if source.is_dir():
        yield from (path.read_bytes() for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES)
        return
    try:
        with tarfile.open(source) as tar:
            for info in tar:
                file = tar.extractfile(info)
                if file is not None and Path(info.name).suffix.lower() in SUFFIXES:
                    yield file.read()
    except (OSError, tarfile.TarError) as error:
        raise SystemExit(f"{source}: no folder or tar archive of JPEG files: {error}") from None


def generated(count: int) -> list[bytes]:
    """JPEG files of 500x375 pixels, smooth shapes with some grain, so that they are as long as photographs."""
    generator = np.random.default_rng(0)
    return [simplejpeg.encode_jpeg(_picture(generator, *USUAL_SIZE, grain=12.0), quality=90) for _ in range(count)]


def _picture(generator: np.random.Generator, width: int, height: int, grain: float) -> np.ndarray:
    coarse = generator.integers(0, 256, (height // 8 or 1, width // 8 or 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + generator.normal(0, grain, smooth.shape)
    return np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8))


def _mosaics(contents: Sequence[bytes]) -> list[bytes]:
    """Neighbouring images pasted together: as many pixels as usual, each with a photograph's detail."""
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    return [
        _mosaic(pictures, number, USUAL_SIZE if number % 3 else USUAL_SIZE[::-1]) for number in range(len(pictures))
    ]


def _mosaic(pictures: Sequence[Image.Image], first: int, size: tuple[int, int]) -> bytes:
    canvas, position, left, top, row = Image.new("RGB", size), first, 0, 0, 0
    while top < size[1]:
        picture = pictures[position % len(pictures)]
        canvas.paste(picture, (left, top))
        position, left, row = position + 1, left + picture.width, max(row, picture.height)
        if left >= size[0]:
            left, top, row = 0, top + row, 0
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_cifar(folder: Path, images: int, test_images: int = 100) -> None:
    """CIFAR-10's first images, or generated ones of their size, as Parquet in the hub's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", images), ("test", test_images)):
        name = f"{split}-00000-of-00001.parquet"
        source = _test_data(f"cifar10/{name}")
        pq.write_table(_generated_cifar(count) if source is None else _first_rows(source, count), folder / name)


def _first_rows(file: Path, count: int) -> pa.Table:
    return pa.Table.from_batches(itertools.islice(pq.ParquetFile(file).iter_batches(count), 1)).slice(0, count)


def _generated_cifar(count: int) -> pa.Table:
    print("generated images of 32x32 pixels")
    generator = np.random.default_rng(0)
    encoded = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(_picture(generator, 32, 32, grain=6.0)).save(buffer, "PNG", compress_level=1)
        encoded.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
    return pa.table({"img": encoded, "label": [number % 10 for number in range(count)]})


def data_of(source: str, url: Path, **changes: object) -> Data:
    """Parameters of `prepare` for a folder with images: every one trained on, the mean as the paper has it."""
    tree = {
        "source": source,
        "url": str(url),
        "store": None,
        "keep": "encoded",
        "size": None,
        "limit_shorter_side": None,
        "shard_images": 1024,
        "on_bad_image": "error",
        "max_pixels": 10**8,
        "holdout": {"images": 0, "seed": 0, "balanced": False, "train_on": True},
        "mean": {"kind": "per_pixel", "shorter_side": 256, "crop": 224, "divide_by_std": False},
    }
    return Data.model_validate({**tree, **changes})
