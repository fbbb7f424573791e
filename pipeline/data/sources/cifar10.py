"""CIFAR-10: the official archives, their checksums verified, or Parquet files in the hub's layout."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import Listing, Piece, RunTasks, Sample, ranges
from pipeline.data.sources.hf_parquet import HfParquet
from pipeline.storage import exists, join_url, read_bytes

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OFFICIAL_MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
_IMAGES = {"train": 50_000, "test": 10_000}
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar10:
    """The folder or URL of an official archive or of Parquet files, or an archive itself."""

    url: str
    md5: tuple[tuple[str, str], ...] = tuple(OFFICIAL_MD5.items())
    images: tuple[tuple[str, int], ...] = tuple(_IMAGES.items())

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """50,000 training and 10,000 test images; SourceError for any other number, class or checksum."""
        archive = self._archive()
        listing = self._parquet(shard_images, run_tasks) if archive is None else self._of_archive(archive, shard_images)
        found = Counter[str]()
        for piece in listing.pieces:
            found[piece.split] += piece.images
        if found != Counter(dict(self.images)):
            raise SourceError(f"{self.url}: {dict(found)} images, but CIFAR-10 has {dict(self.images)}")
        return listing

    def read(self, piece: Piece) -> Iterator[Sample]:
        """Pixels, uint8 (32, 32, 3), from an archive; encoded images from Parquet."""
        if len(piece.content) != 3:
            yield from HfParquet(self.url).read(piece)
            return
        name, start, stop = piece.content
        images, labels = self._read(name)[piece.split]
        for row in range(start, stop):
            label = int(labels[row])
            problem = None if label < len(CLASSES) else f"label {label} is none of the {len(CLASSES)} classes"
            yield Sample(f"{piece.split}/{row:05d}", label, images[row], problem)

    def _archive(self) -> str | None:
        """The archive's name, where there is one."""
        names = [name for name, _ in self.md5]
        given = [name for name in names if self.url.endswith(f"/{name}")]
        return next(iter(given or [name for name in names if exists(join_url(self.url, name))]), None)

    def _read(self, archive: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        url = self.url if self.url.endswith(f"/{archive}") else join_url(self.url, archive)
        return read_archive(url, dict(self.md5)[archive])

    def _parquet(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        listing = HfParquet(self.url).listing(shard_images, run_tasks)
        if listing.class_names != CLASSES:
            raise SourceError(f"{self.url}: classes {', '.join(listing.class_names)} are not CIFAR-10's")
        return listing

    def _of_archive(self, archive: str, shard_images: int) -> Listing:
        splits = self._read(archive)
        pieces = [
            Piece(split, stop - start, (archive, start, stop))
            for split, (images, _) in splits.items()
            for start, stop in ranges(len(images), shard_images)
        ]
        return Listing(CLASSES, CLASSES, tuple(pieces))


@functools.lru_cache(maxsize=1)
def read_archive(url: str, md5: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 (N, 32, 32, 3) and labels (N,) by split; SourceError for a wrong checksum or missing batches."""
    content = read_bytes(url)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise SourceError(f"{url}: MD5 {found} instead of {md5}: not the official archive, or a damaged download")
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        for info in tar:
            name = info.name.rsplit("/", 1)[-1]
            if "batch" in name and info.isreg() and not name.endswith((".meta", ".txt", ".html")):
                file = tar.extractfile(info)
                assert file is not None
                batches[name.removesuffix(".bin")] = _batch(name, file.read())
    return {split: _joined(batches, names, url) for split, names in _BATCHES.items()}


def _joined(batches: dict[str, Any], names: list[str], url: str) -> tuple[np.ndarray, np.ndarray]:
    missing = [name for name in names if name not in batches]
    if missing:
        raise SourceError(f"{url}: no {', '.join(missing)} in it")
    images = np.concatenate([batches[name][0] for name in names]).reshape(-1, *_SHAPE)
    return images.transpose(0, 2, 3, 1), np.concatenate([batches[name][1] for name in names])


def _batch(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072), planes of red, green and blue, and labels (n,)."""
    if name.endswith(".bin"):
        rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
        return rows[:, 1:], rows[:, 0]
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    return batch[b"data"], np.asarray(batch[b"labels"])


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else."""

    _ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        """The few names that an array's pickle needs."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
