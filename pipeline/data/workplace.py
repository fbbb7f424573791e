"""Where a store is made, apart from the finished one, and how it takes its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.cache import CachedFiles, LocalFiles, NodeCache
from pipeline.data.manifest import MANIFEST, STATISTICS, FileEntry, Manifest
from pipeline.data.store import Files
from pipeline.data.tasks import RECORDS, SEEN
from pipeline.storage import (
    StorageError,
    absolute_url,
    atomic_directory,
    attempt,
    is_local,
    join_url,
    local_path,
    publish,
    sha256_file,
)


@dataclass(frozen=True)
class Workplace:
    """The folder that the tasks write to, local or remote, and the stage's own out."""

    folder: str
    out: Path
    store: str | None
    """The manifest's `store`: the folder where it is not the out itself."""
    earlier: str | None
    """A finished store whose shards may be taken over."""

    @staticmethod
    def of(out: Path, store: str | None, identity: str) -> Workplace:
        """Beside `out`; or below the URL `store`, in a folder of its own for each identity: nothing is overwritten."""
        if store is None:
            folder = out.absolute().parent / f".{out.name}.preparing"
            return Workplace(str(folder), out, None, str(out.absolute()) if out.exists() else None)
        # A path that is relative would be another one to tasks and workers, which have working folders of their own.
        folder_url = join_url(store if "://" in store else absolute_url(store), out.name, identity[:12])
        return Workplace(folder_url, out, folder_url, None)

    def check_writable(self) -> None:
        """StorageError, before any work, where nothing can be written; a local folder is marked for the tasks."""
        probe = join_url(self.folder, ".writable")
        try:
            with publish(probe) as partial:
                partial.write_bytes(b"")
            attempt(lambda system, path: system.rm_file(path), probe, verb="write")
            if is_local(self.folder):
                (local_path(self.folder) / SEEN).touch()
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    @contextmanager
    def new_file(self, name: str, entries: list[FileEntry]) -> Iterator[Path]:
        """A path to write the file `name` at; its entry is appended to `entries`."""
        with publish(join_url(self.folder, name)) as partial:
            yield partial
            size, digest = partial.stat().st_size, sha256_file(partial)
            entries.append(FileEntry(name=name, bytes=size, sha256=digest))

    def files(self) -> Files:
        """The files written so far, for reading."""
        if is_local(self.folder):
            return LocalFiles(local_path(self.folder))
        return CachedFiles(self.folder, NodeCache.of_environment())

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and put the finished store in place of the earlier one, which has stayed until now."""
        with publish(join_url(self.folder, MANIFEST)) as partial:
            partial.write_bytes(manifest.to_bytes())
        if self.store is None:
            self._swap(manifest)
        else:
            with atomic_directory(self.out) as folder:
                (folder / MANIFEST).write_bytes(manifest.to_bytes())

    def _swap(self, manifest: Manifest) -> None:
        work, aside = local_path(self.folder), self.out.parent / f".{self.out.name}.earlier"
        _remove_leftovers(work, manifest)
        shutil.rmtree(aside, ignore_errors=True)
        if self.out.exists():
            self.out.rename(aside)
        work.rename(self.out)
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(work: Path, manifest: Manifest) -> None:
    """Files of attempts with other parameters, and partial ones of a killed attempt."""
    wanted = {MANIFEST, STATISTICS}
    for split in manifest.splits.values():
        wanted |= {split.index.name, *(shard.name for shard in split.shards)}
        wanted |= {f"{RECORDS}/{Path(shard.name).stem}.json" for shard in split.shards}
    for path in work.rglob("*"):
        if path.is_file() and path.relative_to(work).as_posix() not in wanted:
            path.unlink()
