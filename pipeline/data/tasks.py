"""The work of preparing a store, cut into tasks that any process on any machine can do: a shard each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
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
from pipeline.storage import atomic_file, sha256_file

RECORDS = "records"


@dataclass(frozen=True)
class ShardTask:
    """What is needed to write one shard, or to see that it is there already."""

    name: str
    source: Source
    piece: Piece
    conversion: Conversion
    skip_bad: bool
    batch_bytes: int
    folder: Path
    earlier: Path | None
    """The folder of an earlier store, from which a shard of the same specification is taken over."""

    def digest(self) -> str:
        """SHA-256 of all that determines the shard's bytes."""
        parts = [SCHEMA_VERSION, self.name, self.skip_bad, self.batch_bytes]
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
    """Write the task's shard and its record, unless a whole and right one is there; returns the record."""
    spec = task.digest()
    finished = _finished(task, spec)
    return finished if finished is not None else _write(task, spec)


def sum_images(task: SumTask) -> Sums:
    """Sums over the task's rows of the train split."""
    sums = Sums.zero(task.crop)
    split = task.store.split("train")
    for row in range(*task.rows):
        sums.add_image(split.image(row), task.shorter_side)
    return sums


def _finished(task: ShardTask, spec: str) -> ShardRecord | None:
    for folder in filter(None, (task.folder, task.earlier)):
        record = read_record(folder, task.name)
        if record is None or record.spec != spec or record.shard is None:
            continue
        path = folder / record.shard.name
        if not path.is_file() or sha256_file(path) != record.shard.sha256:
            continue
        if folder != task.folder:
            with atomic_file(task.folder / record.shard.name) as partial:
                shutil.copyfile(path, partial)
            _write_record(task, record)
        return record
    return None


def read_record(folder: Path, name: str) -> ShardRecord | None:
    """The record of a shard; None where there is no readable one."""
    try:
        return ShardRecord.model_validate_json((folder / RECORDS / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None


def _write(task: ShardTask, spec: str) -> ShardRecord:
    rows = _Rows(task.conversion, task.source, task.piece)
    with atomic_file(task.folder / f"{task.name}.arrow") as partial:
        shape = rows.fill(partial, task.batch_bytes)
        allowed = rows.labels and (task.skip_bad or not rows.bad)
        shard = _entry(partial, f"{task.name}.arrow", len(rows.labels)) if allowed else None
    record = ShardRecord(
        spec=spec,
        shard=shard,
        image_shape=shape,
        labels=tuple(rows.labels),
        keys=tuple(rows.keys),
        oddities=dict(sorted(rows.oddities.items())),
        bad=tuple(rows.bad),
    )
    if shard is None:
        (task.folder / f"{task.name}.arrow").unlink()
    else:
        _write_record(task, record)
    return record


def _write_record(task: ShardTask, record: ShardRecord) -> None:
    with atomic_file(task.folder / RECORDS / f"{task.name}.json") as partial:
        partial.write_text(record.model_dump_json(), encoding="utf-8")


def _entry(path: Path, name: str, rows: int) -> ShardEntry:
    return ShardEntry(name=name, bytes=path.stat().st_size, sha256=sha256_file(path), rows=rows)


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
        samples = self._source.read(self._piece)
        first = self._next_good(samples)
        if first is None:
            return None
        self._shape = first[1].shape if self._conversion.keep == "decoded" else None
        with ShardWriter(path, self._shape, batch_bytes) as writer:
            found: tuple[Sample, Converted] | None = first
            while found is not None:
                sample, converted = found
                writer.add(converted.content, sample.label, sample.key)
                self.labels.append(sample.label)
                self.keys.append(sample.key)
                self.oddities.update(converted.oddities)
                found = self._next_good(samples)
        return self._shape

    def _next_good(self, samples: Iterator[Sample]) -> tuple[Sample, Converted] | None:
        for sample in samples:
            try:
                return sample, self._convert(sample)
            except ImageError as error:
                self.bad.append(Skipped(key=sample.key, reason=str(error)))
        return None

    def _convert(self, sample: Sample) -> Converted:
        if sample.problem is not None:
            raise ImageError(sample.problem)
        converted = convert(sample.image, self._conversion)
        if self._shape is not None and converted.shape != self._shape:
            raise ImageError(
                f"{converted.shape[1]}x{converted.shape[0]} pixels, not {self._shape[1]}x{self._shape[0]} as the others"
            )
        return converted
