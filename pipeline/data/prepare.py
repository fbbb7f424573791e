"""From a source to a finished store: shards, then statistics, then the manifest, put in place all at once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.data.errors import BadImagesError, SourceError
from pipeline.data.images import Conversion
from pipeline.data.manifest import STATISTICS, ColorPca, FileEntry, Manifest, MeanEntry, ShardRecord, SplitEntry
from pipeline.data.progress import shown
from pipeline.data.sources import Listing, RunTasks, open_source
from pipeline.data.sources.base import UNLABELLED, ranges
from pipeline.data.statistics import InputStatistics, Sums
from pipeline.data.store import Store
from pipeline.data.tasks import ShardTask, SumTask, sum_images, write_shard
from pipeline.data.workplace import Workplace
from pipeline.schema import Data

_NO_FILE = FileEntry(name=STATISTICS, bytes=0, sha256="0" * 64)
_NO_PCA = ColorPca(eigenvalues=(0, 0, 0), eigenvectors=((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def prepare(data: Data, out: Path, *, run_tasks: RunTasks = map) -> Manifest:
    """Make the store that `data` describes in the folder `out`, replacing what was there only once all is done.

    `run_tasks` is like `map` and may spread the tasks over processes, and over machines that see the same files. An
    interrupted call is taken up where it was: shards lie in a hidden folder beside `out`, or below `data.store`.
    Raises SourceError (what the source lacks), BadImagesError (every bad image) or StorageError, naming the file.
    """
    listing, tasks, place = _plan(data, out, run_tasks)
    place.check_writable()
    records = list(shown(run_tasks(write_shard, tasks), [task.piece.images for task in tasks], "images stored"))
    _refuse_bad(tasks, records, data)
    manifest = _manifest(data, listing, tasks, records, place)
    manifest = _with_statistics(manifest, data, place, run_tasks)
    place.finish(manifest)
    return manifest


def _plan(data: Data, out: Path, run_tasks: RunTasks) -> tuple[Listing, list[ShardTask], Workplace]:
    source = open_source(data)
    listing = source.listing(data.shard_images, run_tasks)
    conversion = Conversion(data.keep, data.size, data.limit_shorter_side, data.max_pixels)
    skip, batch_bytes = data.on_bad_image == "skip", data.memory_mib * 2**20
    tasks = [
        ShardTask(name, source, data.url, piece, conversion, skip, batch_bytes, "", None)
        for name, piece in zip(_shard_names(listing), listing.pieces, strict=True)
    ]
    place = Workplace.of(out, data.store, _identity(data, tasks))
    return listing, [dataclasses.replace(t, folder=place.folder, earlier=place.earlier) for t in tasks], place


def _shard_names(listing: Listing) -> list[str]:
    numbers: Counter[str] = Counter()
    names = []
    for piece in listing.pieces:
        names.append(f"{piece.split}-{numbers[piece.split]:05d}")
        numbers[piece.split] += 1
    return names


def _identity(data: Data, tasks: Sequence[ShardTask]) -> str:
    parts = [task.digest() for task in tasks] + [data.mean.model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _refuse_bad(tasks: Sequence[ShardTask], records: Sequence[ShardRecord], data: Data) -> None:
    bad: dict[str, list[tuple[str, str]]] = {}
    for task, record in zip(tasks, records, strict=True):
        for image in record.bad:
            bad.setdefault(task.piece.split, []).append((image.key, image.reason))
    if bad and data.on_bad_image == "error":
        raise BadImagesError(bad)
    shapes = {record.image_shape for record in records if record.shard is not None}
    if len(shapes) > 1:
        raise SourceError(f"{data.url}: images of different shapes {shapes} cannot be kept decoded; set data.size")


def _manifest(
    data: Data, listing: Listing, tasks: Sequence[ShardTask], records: Sequence[ShardRecord], place: Workplace
) -> Manifest:
    splits = {}
    for split in dict.fromkeys(piece.split for piece in listing.pieces):
        own = [record for task, record in zip(tasks, records, strict=True) if task.piece.split == split]
        splits[split] = _split_entry(split, listing, own, place)
    if "train" not in splits or not splits["train"].n_images:
        raise SourceError(f"{data.url or data.source}: no image in the train split")
    return Manifest(
        schema_version=1,
        source=data.source,
        url=data.url,
        store=place.store,
        keep=data.keep,
        image_shape=next(record.image_shape for record in records if record.shard is not None),
        limit_shorter_side=data.limit_shorter_side,
        class_keys=listing.class_keys,
        class_names=listing.class_names,
        splits=splits,
        mean=MeanEntry(shorter_side=data.mean.shorter_side, crop=data.mean.crop),
        statistics=_NO_FILE,
        color_pca=_NO_PCA,
    )


def _split_entry(split: str, listing: Listing, records: Sequence[ShardRecord], place: Workplace) -> SplitEntry:
    labels = [label for record in records for label in record.labels]
    keys = [key for record in records for key in record.keys]
    counts = Counter(labels)
    oddities = sum((Counter(record.oddities) for record in records), Counter[str]())
    return SplitEntry(
        n_images=len(labels),
        unlabelled=counts[UNLABELLED],
        images_by_class={key: counts[label] for label, key in enumerate(listing.class_keys)},
        shards=tuple(record.shard for record in records if record.shard is not None),
        index=_write_index(f"{split}-index.arrow", labels, keys, place),
        oddities=dict(sorted(oddities.items())),
        skipped=tuple(image for record in records for image in record.bad),
    )


def _write_index(name: str, labels: Sequence[int], keys: Sequence[str], place: Workplace) -> FileEntry:
    schema = pa.schema([pa.field("label", pa.int64(), False), pa.field("key", pa.string(), False)])
    table = pa.table([pa.array(labels, pa.int64()), pa.array(keys, pa.string())], schema=schema)
    entries: list[FileEntry] = []
    with place.new_file(name, entries) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_table(table)
    return entries[0]


def _with_statistics(manifest: Manifest, data: Data, place: Workplace, run_tasks: RunTasks) -> Manifest:
    statistics = _statistics(Store(manifest, place.files()), data, run_tasks)
    entries: list[FileEntry] = []
    with place.new_file(STATISTICS, entries) as partial:
        statistics.save(partial)
    return manifest.model_copy(update={"statistics": entries[0], "color_pca": _color_pca(statistics)})


def _statistics(store: Store, data: Data, run_tasks: RunTasks) -> InputStatistics:
    parts = ranges(store.manifest.splits["train"].n_images, data.shard_images)
    tasks = [SumTask(store, part, data.mean.shorter_side, data.mean.crop) for part in parts]
    total = Sums.zero(data.mean.crop)
    for sums in shown(run_tasks(sum_images, tasks), [stop - start for start, stop in parts], "images averaged"):
        total.add(sums)
    return total.statistics()


def _color_pca(statistics: InputStatistics) -> ColorPca:
    assert statistics.eigenvalues is not None
    assert statistics.eigenvectors is not None
    tree = {"eigenvalues": statistics.eigenvalues.tolist(), "eigenvectors": statistics.eigenvectors.tolist()}
    return ColorPca.model_validate(tree)
