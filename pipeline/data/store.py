"""The store of images: a manifest and memory-mapped shards, read by position without copying."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.errors import StoreError
from pipeline.data.images import decode_rgb
from pipeline.data.manifest import MANIFEST, FileEntry, Manifest, SplitEntry
from pipeline.data.shards import Shape, Shard

Fetch = Callable[[FileEntry], Path]
"""Gives the local path of a store's file, whole and of the right size."""


class Store:
    """A prepared data set; opened from its folder, or from the folder of the manifest where the shards lie in S3."""

    def __init__(self, manifest: Manifest, fetch: Fetch) -> None:
        self.manifest, self._fetch = manifest, fetch

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and through its checksums of every byte of the store."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    @staticmethod
    def open(location: str | Path) -> Store:
        """Open the store whose manifest lies in `location`; StoreError when there is none or it is not whole."""
        path = Path(location) / MANIFEST
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); run the prepare stage") from error
        return local_store(Manifest.parse(content, str(path)), Path(location))

    def split(self, name: str) -> Split:
        """A split by the data set's own name for it: train, val or test."""
        if name not in self.manifest.splits:
            raise StoreError(f"no split '{name}' in this store; there are: {', '.join(self.manifest.splits)}")
        return Split(name, self.manifest.splits[name], self.manifest.image_shape, self._fetch)

    def file(self, entry: FileEntry) -> Path:
        """The local path of one of the store's files."""
        return self._fetch(entry)


class Split:
    """The images of one split, by position; picklable, so that loader processes can open it themselves."""

    def __init__(self, name: str, entry: SplitEntry, shape: Shape | None, fetch: Fetch) -> None:
        self.name, self.shape = name, shape
        self.n_images = entry.n_images
        self._entry, self._fetch = entry, fetch
        self._starts = [0, *itertools.accumulate(shard.rows for shard in entry.shards)]
        self._open: dict[int, Shard] = {}

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,); -1 for an image without a label."""
        return self._index.column("label").to_numpy()

    @functools.cached_property
    def keys(self) -> list[str]:
        """What the source calls each image."""
        return self._index.column("key").to_pylist()

    @functools.cached_property
    def _index(self) -> pa.Table:
        path = self._fetch(self._entry.index)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{path}: not a readable index ({error}); prepare the data again") from error

    def array(self) -> np.ndarray:
        """All images, uint8 (N, H, W, 3), of a decoded store; not copied where there is one shard."""
        if self.shape is None:
            raise ValueError(f"the {self.name} images are kept encoded and have no common shape; use image(i)")
        parts = [self._shard(number).array() for number in range(len(self._entry.shards))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def image(self, i: int) -> np.ndarray:
        """RGB pixels of image `i`, uint8 (H, W, 3), decoded by PIL where it is kept encoded."""
        content = self.encoded(i)
        if self.shape is not None:
            return np.frombuffer(content, np.uint8).reshape(self.shape)
        try:
            return decode_rgb(content)
        except Exception as error:  # PIL's decoders raise errors of any kind on broken files
            raise StoreError(f"{self.describe(i)}: cannot be decoded ({error}); prepare the data again") from error

    def encoded(self, i: int) -> memoryview:
        """The stored bytes of image `i`, not copied: JPEG or PNG, or pixels where they are kept decoded."""
        if not 0 <= i < self.n_images:
            raise IndexError(f"{self.name} has {self.n_images} images, no image {i}")
        number = bisect.bisect_right(self._starts, i) - 1
        return self._shard(number).encoded(i - self._starts[number])

    def describe(self, i: int) -> str:
        """Where image `i` lies, for messages."""
        number = bisect.bisect_right(self._starts, i) - 1
        return f"{self._entry.shards[number].name}, row {i - self._starts[number]} ({self.keys[i]})"

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            entry = self._entry.shards[number]
            shard = Shard(self._fetch(entry), self.shape)
            if len(shard) != entry.rows:
                raise StoreError(f"{entry.name}: {len(shard)} rows, not {entry.rows}; prepare the data again")
            self._open[number] = shard
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_index", None)
        return {**state, "_open": {}}


def local_store(manifest: Manifest, folder: Path) -> Store:
    """The store of a manifest whose files lie in `folder`."""
    return Store(manifest, functools.partial(_local_file, folder))


def _local_file(folder: Path, entry: FileEntry) -> Path:
    path = folder / entry.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); prepare the data again") from error
    if size != entry.bytes:
        raise StoreError(f"{path}: {size} bytes, not {entry.bytes} as in the manifest; prepare the data again")
    return path
