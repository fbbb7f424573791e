"""A bounded folder on this machine that holds the files of remote stores, verified before they are used."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from pipeline.data.errors import StoreError
from pipeline.data.manifest import FileEntry
from pipeline.storage import DEFAULT_RETRY, Retry, StorageError, download, join_url, sha256_file

CACHE_VARIABLE = "RESNET_CACHE"
LIMIT_VARIABLE = "RESNET_CACHE_GIB"
_DEFAULT_GIB = 200.0
_ABANDONED_SECONDS = 3600
_VERIFIED = 1_000_000_000.0
"""When a file that was found right was last modified: who writes to it sets another. It was last used when accessed."""
_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


class NodeCache:
    """Files by their SHA-256, shared by all processes of a machine; the least recently used go when room is needed.

    A file that a process has mapped stays readable to it after it is removed. Sent to another machine, a cache that the
    environment named is the one that the environment names there.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, retry: Retry = DEFAULT_RETRY) -> None:
        self._folder, self.limit_bytes, self._retry = Path(folder), limit_bytes, retry
        self._of_environment = False

    def __reduce__(self) -> tuple[Callable[..., NodeCache], tuple[Any, ...]]:
        if self._of_environment:
            return NodeCache.of_environment, ()
        return NodeCache, (self._folder, self.limit_bytes, self._retry)

    @staticmethod
    def of_environment() -> NodeCache:
        """In the folder RESNET_CACHE, of RESNET_CACHE_GIB (200): what differs between machines is no parameter."""
        folder = os.environ.get(CACHE_VARIABLE) or Path(tempfile.gettempdir()) / "resnet-cache"
        text = os.environ.get(LIMIT_VARIABLE, str(_DEFAULT_GIB))
        try:
            gib = float(text)
        except ValueError:
            raise ValueError(f"{LIMIT_VARIABLE}={text!r} is not a number of GiB") from None
        cache = NodeCache(folder, int(gib * 2**30))
        cache._of_environment = True
        return cache

    def get(self, url: str, entry: FileEntry) -> Path:
        """The local path of the file `entry` of the store at `url`, downloaded where need be.

        Its SHA-256 is verified once on each machine, and again when something has written to it since.

        StoreError for a file that is not what the manifest says, StorageError when it cannot be had.
        """
        if entry.bytes > self.limit_bytes:
            reason = f"{entry.bytes} bytes do not fit into the cache of {self.limit_bytes}"
            raise StoreError(f"{entry.name}: {reason}; raise {LIMIT_VARIABLE}")
        path = self._folder / entry.sha256
        with self._usable_lock(f"{entry.sha256}.lock"):
            if not self._is_right(path, entry):
                self._fill(path, join_url(url, entry.name), entry)
        return path

    def opened(self, url: str, entry: FileEntry, use: Callable[[Path], T]) -> T:
        """What `use` makes of the file's path, as by opening or mapping it: nobody removes the file meanwhile.

        Errors of `get`, and those of `use`.
        """
        while True:
            path = self.get(url, entry)
            with self._lock():
                if path.exists():  # else others needed room between these two lines
                    return use(path)

    def _is_right(self, path: Path, entry: FileEntry) -> bool:
        """Whether it is the manifest's file, which then counts as used just now."""
        try:
            found = path.stat()
            known = found.st_mtime == _VERIFIED
            right = found.st_size == entry.bytes and (known or sha256_file(path) == entry.sha256)
            if right:
                _mark(path)
            return right
        except FileNotFoundError:
            return False

    def _fill(self, path: Path, url: str, entry: FileEntry) -> None:
        partial = self._reserve(entry)
        try:
            download(url, partial, self._retry)
            if sha256_file(partial) != entry.sha256:
                raise StoreError(f"{url}: not the file of the manifest (SHA-256 differs); prepare the data again")
            with self._lock():  # so that nobody who makes room sees it under both names, or neither
                partial.replace(path)
                _mark(path)  # not before: a partial file that is old by its time is taken for an abandoned one
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{url}: cannot be kept in {self._folder}: {error}") from error
        finally:
            with self._lock():
                partial.unlink(missing_ok=True)

    def _usable_lock(self, name: str) -> AbstractContextManager[object]:
        """A lock that is held already; StorageError where the folder is no place for it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return FileLock(self._folder / name).acquire()
        except OSError as error:
            raise StorageError(
                f"{self._folder}: no place for a cache ({error.strerror or error}); set {CACHE_VARIABLE} to another"
            ) from error

    def _lock(self) -> FileLock:
        return FileLock(self._folder / "cache.lock")

    def _reserve(self, entry: FileEntry) -> Path:
        """A file whose name has its final size, for which room is made.

        Downloads that go on at once are never removed, so that together they may be over the limit for as long.
        """
        with self._lock():
            self._make_room(entry.bytes)
            partial = self._folder / f"{entry.sha256}.{os.getpid()}.{entry.bytes}.partial"
            partial.touch()
        return partial

    def _make_room(self, needed: int) -> None:
        files = sorted((path.stat().st_atime, _final_size(path), path) for path in self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + needed <= self.limit_bytes:
                return
            if path.suffix == ".partial" and time.time() - path.stat().st_mtime < _ABANDONED_SECONDS:
                continue
            path.unlink(missing_ok=True)
            total -= size
            _LOGGER.info("%s: removed to keep the cache within %d bytes", path, self.limit_bytes)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.suffix != ".lock" and path.is_file()]


def _final_size(path: Path) -> int:
    """Bytes of a file, or those that it will have once it is downloaded."""
    promised = path.name.split(".")[-2] if path.suffix == ".partial" else "0"
    return max(path.stat().st_size, int(promised))


class CachedFiles:
    """The files of a remote store by way of the node's cache."""

    def __init__(self, url: str, cache: NodeCache) -> None:
        self._url, self._cache = url, cache

    @property
    def mapped_bytes(self) -> int | None:
        """How much of it one process may keep mapped, since what is mapped stays on the disk."""
        return self._cache.limit_bytes

    def opened(self, entry: FileEntry, use: Callable[[Path], T]) -> T:
        """What `use` makes of the file's local path, as by mapping it; nobody removes the file meanwhile."""
        return self._cache.opened(self._url, entry, use)


class LocalFiles:
    """The files of a store on this file system."""

    mapped_bytes: int | None = None

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def opened(self, entry: FileEntry, use: Callable[[Path], T]) -> T:
        """What `use` makes of the file's path, as by mapping it.

        StoreError where it is not there, or of another size than in the manifest.
        """
        path = self._folder / entry.name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}); prepare the data again") from error
        if size != entry.bytes:
            raise StoreError(f"{path}: {size} bytes, not {entry.bytes} as in the manifest; prepare the data again")
        return use(path)


def _mark(path: Path) -> None:
    """Write down that the file was found to be the manifest's, and is used just now."""
    os.utime(path, (time.time(), _VERIFIED))
