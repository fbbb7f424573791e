"""Parquet files in the layout of the Hugging Face hub: an image struct of bytes and path, and a label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import UNLABELLED, Listing, Piece, RunTasks, Sample, ranges
from pipeline.data.sources.window import Window
from pipeline.storage import RangeReader, attempt, file_size, join_url, list_files

_SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels")
_NAME = re.compile(r"(?:^|/)(train|validation|valid|val|test)(?:-[^/]*)?\.parquet$")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class HfParquet:
    """A folder or URL with files named train-*.parquet, validation-*.parquet and test-*.parquet, at any depth."""

    url: str

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """Pieces end where files end. SourceError for files of another layout or labels out of range."""
        files = self._files()
        rows = {file: self._rows(file) for names in files.values() for file in names}
        names = self._class_names(files["train"])
        pieces = []
        for split, split_files in files.items():
            spans = [(f, *span) for f in split_files for span in ranges(rows[f], shard_images)]
            sizes = {file: file_size(join_url(self.url, file)) for file in split_files}
            pieces += [Piece(split, b - a, (f, sizes[f], a, b, len(names))) for f, a, b in spans]
        return Listing(names, names, tuple(pieces))

    def read(self, piece: Piece) -> Iterator[Sample]:
        """The images' bytes, some dozens of rows at a time; SourceError where they cannot be read as Parquet."""
        file, size, start, stop, n_classes = piece.content
        url = join_url(self.url, file)
        try:
            with RangeReader(url) as reader, Window(reader, 0, size) as handle:
                for row, image, label in _rows_of(pq.ParquetFile(handle), url, start, stop):
                    yield _sample(f"{file}:{row}", image, label, n_classes)
        except (OSError, pa.ArrowInvalid) as error:
            raise SourceError(f"{url}: rows {start} to {stop} cannot be read ({error})") from error

    def _files(self) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        for name in list_files(self.url):
            match = _NAME.search(name)
            if match is not None:
                files.setdefault(_SPLITS[match[1]], []).append(name)
        if "train" not in files:
            raise SourceError(f"{self.url}: no file named train-*.parquet there")
        return {split: files[split] for split in ("train", "val", "test") if split in files}

    def _rows(self, file: str) -> int:
        return self._open(
            file, lambda parquet, url: (_columns(parquet.schema_arrow, url), parquet.metadata.num_rows)[1]
        )

    def _class_names(self, files: list[str]) -> tuple[str, ...]:
        names = self._open(files[0], lambda parquet, url: _declared_names(parquet.schema_arrow, url))
        if names is not None:
            return names
        highest = max(self._open(file, _highest_label) for file in files)
        return tuple(str(label) for label in range(highest + 1))

    def _open(self, file: str, action: Any) -> Any:
        url = join_url(self.url, file)

        def run(system: Any, path: str) -> Any:
            with system.open(path, "rb") as handle:
                try:
                    return action(pq.ParquetFile(handle), url)
                except pa.ArrowInvalid as error:
                    raise SourceError(f"{url}: not a Parquet file ({error})") from error

        return attempt(run, url)


def _columns(schema: pa.Schema, url: str) -> tuple[str, str]:
    image = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        wanted = f"{' or '.join(_IMAGE_COLUMNS)} and {' or '.join(_LABEL_COLUMNS)}"
        raise SourceError(f"{url}: its columns are {', '.join(schema.names)}; {wanted} are needed")
    kind = schema.field(image).type
    if not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise SourceError(f"{url}: column '{image}' is {kind}, not a struct of bytes and path")
    return image, label


def _declared_names(schema: pa.Schema, url: str) -> tuple[str, ...] | None:
    label = _columns(schema, url)[1]
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, ValueError, TypeError):
        return None


def _highest_label(parquet: pq.ParquetFile, url: str) -> int:
    label = _columns(parquet.schema_arrow, url)[1]
    column = parquet.read(columns=[label]).column(label)
    return max((value for value in column.to_pylist() if value is not None), default=UNLABELLED)


def _rows_of(
    parquet: pq.ParquetFile, url: str, start: int, stop: int
) -> Iterator[tuple[int, Mapping[str, Any] | None, int | None]]:
    """Row number, image and label of rows start..stop, from the row groups that hold them alone."""
    image, label = _columns(parquet.schema_arrow, url)
    first = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + rows > start:
            number = first
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[image, label]):
                pairs = zip(batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True)
                yield from ((row, *pair) for row, pair in enumerate(pairs, number) if start <= row < stop)
                number += batch.num_rows
        first += rows


def _sample(key: str, image: Mapping[str, Any] | None, label: int | None, n_classes: int) -> Sample:
    value = UNLABELLED if label is None else int(label)
    content = (image or {}).get("bytes")
    if not UNLABELLED <= value < n_classes:
        return Sample(key, value, b"", f"label {value} is none of the {n_classes} classes")
    if content is None:
        return Sample(key, value, b"", "the row has no image bytes")
    return Sample(key, value, content)
