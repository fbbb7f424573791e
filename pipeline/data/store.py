"""The store of images: a manifest and memory-mapped shards, read by position without copying."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.data.cache import CachedFiles, LocalFiles, NodeCache
from pipeline.data.errors import StoreError
from pipeline.data.images import decode_rgb
from pipeline.data.manifest import MANIFEST, FileEntry, Manifest, SplitEntry
from pipeline.data.shards import Shape, Shard
from pipeline.storage import StorageError, is_local, join_url, local_path, read_bytes

T = TypeVar("T")
Files = LocalFiles | CachedFiles
"""Opens a store's files, whole and of the right size."""


class Store:
    """A prepared data set; opened from its folder, or from the folder of the manifest where the shards lie in S3."""

    def __init__(self, manifest: Manifest, files: Files) -> None:
        self.manifest, self._files = manifest, files

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and through its checksums of every byte of the store."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    @staticmethod
    def open(location: str | Path, cache: NodeCache | None = None) -> Store:
        """Open the store whose manifest lies in the folder or URL `location`.

        StoreError when there is none, StorageError where that cannot be found out.

        Shards in S3 are read through `cache`, by default the one that the environment names.
        """
        where = join_url(location, MANIFEST)
        try:
            manifest = Manifest.parse(read_bytes(where), where)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise StoreError(f"{error}; run the prepare stage") from error
        url = manifest.store or str(location)
        if is_local(url):
            return Store(manifest, LocalFiles(local_path(url)))
        return Store(manifest, CachedFiles(url, cache or NodeCache.of_environment()))

    def split(self, name: str) -> Split:
        """A split by the data set's own name for it: train, val or test."""
        if name not in self.manifest.splits:
            raise StoreError(f"no split '{name}' in this store; there are: {', '.join(self.manifest.splits)}")
        return Split(name, self.manifest.splits[name], self.manifest.image_shape, self._files)

    def opened(self, entry: FileEntry, use: Callable[[Path], T]) -> T:
        """What `use` makes of the local path of one of the store's files."""
        return self._files.opened(entry, use)


class Split:
    """The images of one split, by position; picklable, so that loader processes can open it themselves."""

    def __init__(self, name: str, entry: SplitEntry, shape: Shape | None, files: Files) -> None:
        self.name, self.shape = name, shape
        self.n_images = entry.n_images
        self._entry, self._files = entry, files
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
        return self._files.opened(self._entry.index, _read_index)

    def array(self) -> np.ndarray:
        """All images, uint8 (N, H, W, 3), of a decoded store; not copied where there is one shard."""
        if self.shape is None:
            raise ValueError(f"the {self.name} images are kept encoded and have no common shape; use image(i)")
        parts = [self._shard(number).array() for number in range(len(self._entry.shards))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def image(self, i: int) -> np.ndarray:
        """RGB pixels of image `i`, uint8 (H, W, 3), decoded by PIL where it is kept encoded."""
        return self._decoded(i, self.encoded(i))

    def images(self, indices: Iterable[int], threads: int = 1) -> list[np.ndarray]:
        """Several images, as `image` gives each, in the order asked for; decoded by `threads` threads."""
        chosen = [int(i) for i in indices]
        if threads == 1 or self.shape is not None:
            return [self.image(i) for i in chosen]
        # This thread alone opens shards; copies, as views of images that wait would keep their shards mapped.
        contents = [bytes(self.encoded(i)) for i in chosen]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self._decoded, chosen, contents))

    def _decoded(self, i: int, content: bytes | memoryview) -> np.ndarray:
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
            shard = self._files.opened(entry, lambda path: Shard(path, self.shape))
            if len(shard) != entry.rows:
                raise StoreError(f"{entry.name}: {len(shard)} rows, not {entry.rows}; prepare the data again")
            self._make_room(entry.bytes)
            self._open[number] = shard
        return self._open[number]

    def _make_room(self, needed: int) -> None:
        limit = self._files.mapped_bytes
        while limit is not None and self._open and needed + self._mapped_bytes() > limit:
            del self._open[next(iter(self._open))]

    def _mapped_bytes(self) -> int:
        return sum(self._entry.shards[number].bytes for number in self._open)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_index", None)
        return {**state, "_open": {}}


def _read_index(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: not a readable index ({error}); prepare the data again") from error
