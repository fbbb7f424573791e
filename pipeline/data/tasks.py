"""The work of preparing a store, cut into tasks that any process on any machine can do: a shard each."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.errors import ImageError
from pipeline.data.images import Conversion, Converted, convert
from pipeline.data.manifest import SCHEMA_VERSION, ShardEntry, ShardRecord, Skipped
from pipeline.data.shards import Shape, ShardWriter
from pipeline.data.sources.base import Piece, Sample, Source
from pipeline.data.statistics import Sums
from pipeline.data.store import Store
from pipeline.storage import (
    DEFAULT_RETRY,
    StorageError,
    download,
    exists,
    is_local,
    join_url,
    local_path,
    publish,
    read_bytes,
    sha256_file,
    sha256_url,
)

RECORDS = "records"
SEEN = ".seen-by-all"
"""A file that the driver puts into a local folder before any task, which each task must find there."""


@dataclass(frozen=True)
class ShardTask:
    """What is needed to write one shard, or to see that it is there already."""

    name: str
    source: Source
    url: str | None
    """The source's as the parameters give it."""
    piece: Piece
    conversion: Conversion
    skip_bad: bool
    batch_bytes: int
    """Encoded images are written as soon as so many bytes of them have come together."""
    folder: str
    """Path or URL of the folder to write to."""
    earlier: str | None
    """The folder of an earlier store, from which a shard of the same specification is taken over."""

    @property
    def file(self) -> str:
        """The shard's file name."""
        return f"{self.name}.arrow"

    def digest(self) -> str:
        """SHA-256 of all that determines the shard's bytes."""
        parts = [SCHEMA_VERSION, self.name, self.skip_bad, self.batch_bytes, type(self.source).__name__, self.url]
        value = [*parts, dataclasses.asdict(self.piece), dataclasses.asdict(self.conversion)]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@dataclass(frozen=True)
class SumTask:
    """What is needed to add up the images of a part of the train split."""

    store: Store
    rows: tuple[int, int]
    shorter_side: int | None
    crop: int


def write_shard(task: ShardTask) -> ShardRecord:
    """Write the task's shard and its record, unless a whole and right one is there; returns the record.

    StorageError when the source cannot be read or the shard cannot be written, or the folder is one of another machine.
    Bad images are in the record.
    """
    _refuse_another_disk(task.folder)
    spec = task.digest()
    return _finished(task, spec) or _taken_over(task, spec) or _written(task, spec)


def sum_images(task: SumTask) -> Sums:
    """Sums over the task's rows of the train split."""
    sums = Sums.zero(task.crop)
    split = task.store.split("train")
    for row in range(*task.rows):
        sums.add_image(split.image(row), task.shorter_side)
    return sums


def _refuse_another_disk(folder: str) -> None:
    if is_local(folder) and not (local_path(folder) / SEEN).exists():
        raise StorageError(
            f"{folder}: {platform.node()} does not see this folder of the machine that prepares: set data.store to a"
            " URL, such as s3://bucket/prefix, or to a folder that all nodes share"
        )


def _finished(task: ShardTask, spec: str) -> ShardRecord | None:
    return _whole_record(task.folder, task, spec)


def _taken_over(task: ShardTask, spec: str) -> ShardRecord | None:
    record = None if task.earlier is None else _whole_record(task.earlier, task, spec)
    if record is not None and task.earlier is not None:
        with _publish(task, task.file) as partial:
            download(join_url(task.earlier, task.file), partial)
        _write_record(task, record)
    return record


def _whole_record(folder: str, task: ShardTask, spec: str) -> ShardRecord | None:
    """The record of a shard in `folder` that is there, of this specification and whole."""
    record = _read_record(folder, task.name)
    if record is None or record.spec != spec or record.shard is None:
        return None
    url = join_url(folder, task.file)
    return record if exists(url) and sha256_url(url) == record.shard.sha256 else None


def _read_record(folder: str, name: str) -> ShardRecord | None:
    url = join_url(folder, RECORDS, f"{name}.json")
    if not exists(url):
        return None
    try:
        return ShardRecord.model_validate_json(read_bytes(url))
    except ValueError:
        return None


class _Unwanted(Exception):
    """The shard is not to be written."""


def _written(task: ShardTask, spec: str) -> ShardRecord:
    rows = _Rows(task.conversion, task.source, task.piece)
    shard, shape = None, None
    with contextlib.suppress(_Unwanted), _publish(task, task.file) as partial:
        shape = rows.fill(partial, task.batch_bytes)
        if not rows.labels or (rows.bad and not task.skip_bad):
            raise _Unwanted
        size, digest = partial.stat().st_size, sha256_file(partial)
        shard = ShardEntry(name=task.file, bytes=size, sha256=digest, rows=len(rows.labels))
    record = rows.record(spec, shard, shape)
    if shard is not None:
        _write_record(task, record)
    return record


def _write_record(task: ShardTask, record: ShardRecord) -> None:
    with _publish(task, f"{RECORDS}/{task.name}.json") as partial:
        partial.write_text(record.model_dump_json(), encoding="utf-8")


@contextlib.contextmanager
def _publish(task: ShardTask, name: str) -> Iterator[Path]:
    url = join_url(task.folder, name)
    try:
        with publish(url, DEFAULT_RETRY) as partial:
            yield partial
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        where = url if is_local(url) else f"{url} (by way of a temporary file)"
        raise StorageError(f"{where}: cannot be written: {reason}") from error


class _Rows:
    """The samples of a piece on their way into a shard; the bad ones are noted and left out."""

    def __init__(self, conversion: Conversion, source: Source, piece: Piece) -> None:
        self._conversion, self._source, self._piece = conversion, source, piece
        self._shape: Shape | None = None
        self.labels: list[int] = []
        self.keys: list[str] = []
        self.oddities: Counter[str] = Counter()
        self.bad: list[Skipped] = []

    def fill(self, path: Path, batch_bytes: int) -> Shape | None:
        """Write the good samples to `path`; returns the common shape of decoded images."""
        rows = self._good()
        first = next(rows, None)
        if first is None:
            return None
        with ShardWriter(path, self._shape, batch_bytes) as writer:
            self._add(writer, *first)
            for sample, converted in rows:
                self._add(writer, sample, converted)
        return self._shape

    def record(self, spec: str, shard: ShardEntry | None, shape: Shape | None) -> ShardRecord:
        """What became of the samples."""
        return ShardRecord(
            spec=spec,
            shard=shard,
            image_shape=shape,
            labels=tuple(self.labels),
            keys=tuple(self.keys),
            oddities=dict(sorted(self.oddities.items())),
            bad=tuple(self.bad),
        )

    def _add(self, writer: ShardWriter, sample: Sample, converted: Converted) -> None:
        writer.add(converted.content, sample.label, sample.key)
        self.labels.append(sample.label)
        self.keys.append(sample.key)
        self.oddities.update(converted.oddities)

    def _good(self) -> Iterator[tuple[Sample, Converted]]:
        for sample in self._source.read(self._piece):
            try:
                yield sample, self._convert(sample)
            except ImageError as error:
                self.bad.append(Skipped(key=sample.key, reason=str(error)))

    def _convert(self, sample: Sample) -> Converted:
        if sample.problem is not None:
            raise ImageError(sample.problem)
        converted = convert(sample.image, self._conversion)
        if self._conversion.keep == "decoded":
            self._shape = self._shape or converted.shape
            if converted.shape != self._shape:
                (height, width, _), (own_height, own_width, _) = self._shape, converted.shape
                raise ImageError(f"{own_width}x{own_height} pixels, not {width}x{height} as those before it")
        return converted
