"""Arrow IPC shards: rows of image, label and key, written as a stream and read memory-mapped without copying."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from pipeline.data.errors import StoreError

Shape = tuple[int, int, int]


def shard_schema(shape: Shape | None) -> pa.Schema:
    """Columns of a shard; decoded images of one `shape` are rows of fixed width."""
    image = pa.binary() if shape is None else pa.binary(math.prod(shape))
    return pa.schema(
        [pa.field("image", image, False), pa.field("label", pa.int64(), False), pa.field("key", pa.string(), False)]
    )


class ShardWriter:
    """Writes one shard; encoded images go to disk as soon as `batch_bytes` of them have come together.

    Decoded images form a single record batch, so that they can be read as one array.
    """

    def __init__(self, path: str | Path, shape: Shape | None, batch_bytes: int) -> None:
        self._schema = shard_schema(shape)
        self._shape, self._batch_bytes = shape, batch_bytes
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._images: list[bytes] = []
        self._labels: list[int] = []
        self._keys: list[str] = []
        self._held = 0

    def add(self, image: bytes, label: int, key: str) -> None:
        """Append a row; `image` holds the pixels or the encoded bytes."""
        self._images.append(image)
        self._labels.append(label)
        self._keys.append(key)
        self._held += len(image)
        if self._shape is None and self._held >= self._batch_bytes:
            self._flush()

    def _flush(self) -> None:
        if not self._images:
            return
        columns = [
            pa.array(self._images, self._schema.field("image").type),
            pa.array(self._labels),
            pa.array(self._keys),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._images, self._labels, self._keys, self._held = [], [], [], 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._writer.close()
        finally:
            self._sink.close()


class Shard:
    """A shard that is memory-mapped: nothing is read until a row is."""

    def __init__(self, path: str | Path, shape: Shape | None) -> None:
        self._path, self._shape = path, shape
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{path}: not a readable shard ({error}); prepare the data again") from error
        if reader.schema != shard_schema(shape):
            raise StoreError(
                f"{path}: its columns are not those of a shard of {shape or 'encoded images'}; prepare it again"
            )
        self._batches = batches
        self._starts = [0, *itertools.accumulate(batch.num_rows for batch in batches)]
        self._images = [_image_buffer(batch) for batch in batches]

    def __len__(self) -> int:
        return self._starts[-1]

    def encoded(self, row: int) -> memoryview:
        """The stored bytes of a row, not copied."""
        index = bisect.bisect_right(self._starts, row) - 1
        offsets, data = self._images[index]
        position = row - self._starts[index]
        return data[offsets[position] : offsets[position + 1]]

    def array(self) -> np.ndarray:
        """All images of a decoded shard, uint8 (rows, H, W, 3), not copied."""
        if self._shape is None:
            raise ValueError(f"{self._path}: its images are encoded and have no common shape")
        parts = [
            np.frombuffer(data, np.uint8, batch.num_rows * math.prod(self._shape), int(offsets[0]))
            for batch, (offsets, data) in zip(self._batches, self._images, strict=True)
        ]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return flat.reshape(-1, *self._shape)

    def column(self, name: str) -> list:
        """The labels or the keys of all rows."""
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]


def _image_buffer(batch: pa.RecordBatch) -> tuple[Sequence[int] | np.ndarray, memoryview]:
    column = batch.column("image")
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        return range(0, (batch.num_rows + 1) * width, width), memoryview(column.buffers()[1]).cast("B")
    _, offsets, data = column.buffers()
    return np.frombuffer(offsets, np.int32, batch.num_rows + 1), memoryview(data).cast("B")
