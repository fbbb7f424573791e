"""From a source to a finished store: shards, then statistics, then the manifest, put in place all at once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.data.errors import BadImagesError, SourceError
from pipeline.data.images import Conversion
from pipeline.data.manifest import (
    MANIFEST,
    STATISTICS,
    ColorPca,
    FileEntry,
    Manifest,
    MeanEntry,
    ShardRecord,
    SplitEntry,
)
from pipeline.data.sources import Listing, RunTasks, Source, open_source
from pipeline.data.sources.base import UNLABELLED, ranges
from pipeline.data.statistics import InputStatistics, Sums
from pipeline.data.store import Store, local_store
from pipeline.data.tasks import ShardTask, SumTask, sum_images, write_shard
from pipeline.schema import Data
from pipeline.storage import atomic_file, sha256_file

_BATCH_BYTES = 16 * 2**20


def prepare(data: Data, out: Path, *, run_tasks: RunTasks = map) -> Manifest:
    """Make the store that `data` describes in the folder `out`, replacing what was there only once all is done.

    `run_tasks` is like `map` and may spread the tasks over processes and machines that share `out`'s file system.
    An interrupted call is taken up where it was: work lies in a hidden folder beside `out`. Raises SourceError,
    BadImagesError (every bad image listed) or OSError, naming the file.
    """
    source = open_source(data)
    listing = source.listing(data.shard_images, run_tasks)
    work = out.parent / f".{out.name}.preparing"
    work.mkdir(parents=True, exist_ok=True)
    tasks = _shard_tasks(data, source, listing, work, out)
    records = list(run_tasks(write_shard, tasks))
    _refuse_bad(tasks, records, data)
    manifest = _finish(data, listing, tasks, records, work, run_tasks)
    _put_in_place(work, out, manifest)
    return manifest


def _shard_tasks(data: Data, source: Source, listing: Listing, work: Path, out: Path) -> list[ShardTask]:
    conversion = Conversion(data.keep, data.size, data.limit_shorter_side, data.max_pixels)
    numbers: Counter[str] = Counter()
    tasks = []
    for piece in listing.pieces:
        name = f"{piece.split}-{numbers[piece.split]:05d}"
        numbers[piece.split] += 1
        skip = data.on_bad_image == "skip"
        tasks.append(ShardTask(name, source, piece, conversion, skip, _BATCH_BYTES, work, out))
    return tasks


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


def _finish(
    data: Data,
    listing: Listing,
    tasks: Sequence[ShardTask],
    records: Sequence[ShardRecord],
    work: Path,
    run_tasks: RunTasks,
) -> Manifest:
    splits = {}
    for split in dict.fromkeys(piece.split for piece in listing.pieces):
        own = [record for task, record in zip(tasks, records, strict=True) if task.piece.split == split]
        splits[split] = _split_entry(split, listing, own, work)
    if not splits.get("train") or not splits["train"].n_images:
        raise SourceError(f"{data.url or data.source}: no image in the train split")
    manifest = _manifest(data, listing, splits, next(r.image_shape for r in records if r.shard is not None))
    statistics = _statistics(local_store(manifest, work), data, run_tasks)
    with atomic_file(work / STATISTICS) as partial:
        statistics.save(partial)
    manifest = manifest.model_copy(
        update={"statistics": _file_entry(work / STATISTICS), "color_pca": _color_pca(statistics)}
    )
    with atomic_file(work / MANIFEST) as partial:
        partial.write_bytes(manifest.to_bytes())
    return manifest


def _split_entry(split: str, listing: Listing, records: Sequence[ShardRecord], work: Path) -> SplitEntry:
    labels = [label for record in records for label in record.labels]
    keys = [key for record in records for key in record.keys]
    _write_index(work / f"{split}-index.arrow", labels, keys)
    counts = Counter(labels)
    oddities = sum((Counter(record.oddities) for record in records), Counter[str]())
    return SplitEntry(
        n_images=len(labels),
        unlabelled=counts[UNLABELLED],
        images_by_class={key: counts[label] for label, key in enumerate(listing.class_keys)},
        shards=tuple(record.shard for record in records if record.shard is not None),
        index=_file_entry(work / f"{split}-index.arrow"),
        oddities=dict(sorted(oddities.items())),
        skipped=tuple(image for record in records for image in record.bad),
    )


def _write_index(path: Path, labels: Sequence[int], keys: Sequence[str]) -> None:
    schema = pa.schema([pa.field("label", pa.int64(), False), pa.field("key", pa.string(), False)])
    table = pa.table([pa.array(labels, pa.int64()), pa.array(keys, pa.string())], schema=schema)
    with atomic_file(path) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_table(table)


def _manifest(
    data: Data, listing: Listing, splits: dict[str, SplitEntry], shape: tuple[int, int, int] | None
) -> Manifest:
    nothing = FileEntry(name=STATISTICS, bytes=0, sha256="0" * 64)
    flat = ColorPca(eigenvalues=(0, 0, 0), eigenvectors=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return Manifest(
        schema_version=1,
        source=data.source,
        url=data.url,
        store=None,
        keep=data.keep,
        image_shape=shape,
        limit_shorter_side=data.limit_shorter_side,
        class_keys=listing.class_keys,
        class_names=listing.class_names,
        splits=splits,
        mean=MeanEntry(shorter_side=data.mean.shorter_side, crop=data.mean.crop),
        statistics=nothing,
        color_pca=flat,
    )


def _statistics(store: Store, data: Data, run_tasks: RunTasks) -> InputStatistics:
    n_images = store.manifest.splits["train"].n_images
    tasks = [
        SumTask(store, rows, data.mean.shorter_side, data.mean.crop) for rows in ranges(n_images, data.shard_images)
    ]
    total = Sums.zero(data.mean.crop)
    sums: Iterable[Sums] = run_tasks(sum_images, tasks)
    for part in sums:
        total.add(part)
    return total.statistics()


def _color_pca(statistics: InputStatistics) -> ColorPca:
    assert statistics.eigenvalues is not None
    assert statistics.eigenvectors is not None
    tree = {"eigenvalues": statistics.eigenvalues.tolist(), "eigenvectors": statistics.eigenvectors.tolist()}
    return ColorPca.model_validate(tree)


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))


def _put_in_place(work: Path, out: Path, manifest: Manifest) -> None:
    """Swap the finished folder for the earlier one, which stays until then; leftovers of other attempts go."""
    wanted = {MANIFEST, STATISTICS, "records"}
    for split in manifest.splits.values():
        wanted |= {split.index.name, *(shard.name for shard in split.shards)}
    for path in work.iterdir():
        if path.name not in wanted and path.is_file():
            path.unlink()
    earlier = out.parent / f".{out.name}.earlier"
    shutil.rmtree(earlier, ignore_errors=True)
    if out.exists():
        out.rename(earlier)
    work.rename(out)
    shutil.rmtree(earlier, ignore_errors=True)
