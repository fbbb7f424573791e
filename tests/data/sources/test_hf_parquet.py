"""Tests of pipeline.data.sources.hf_parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from pipeline.data.errors import SourceError
from pipeline.data.sources.base import Sample
from pipeline.data.sources.hf_parquet import HfParquet
from tests.data.material import jpeg


def write(path: Path, rows: list[tuple[Any, Any]], image: str = "image", names: list[str] | None = None) -> None:
    table = pa.table({image: [i for i, _ in rows], "label": pa.array([label for _, label in rows], pa.int64())})
    if names:
        info = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def row(seed: int, label: int | None) -> tuple[dict[str, Any], int | None]:
    return {"bytes": jpeg(seed), "path": None}, label


def read(folder: Path, shard_images: int = 4) -> dict[str, list[Sample]]:
    source = HfParquet(str(folder))
    found: dict[str, list[Sample]] = {}
    for piece in source.listing(shard_images, map).pieces:
        samples = list(source.read(piece))
        assert len(samples) == piece.images <= shard_images
        found.setdefault(piece.split, []).extend(samples)
    return found


@pytest.mark.parametrize("shard_images", [1, 4, 100])
@pytest.mark.parametrize("image", ["image", "img"])
def test_rows_in_order_whatever_the_pieces(tmp_path: Path, image: str, shard_images: int) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [row(n, n % 2) for n in range(8)], image, ["cat", "dog"])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [row(n, 1) for n in range(8, 11)], image, ["cat", "dog"])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [row(20, 0)], image, ["cat", "dog"])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [row(30, -1), row(31, None)], image, ["cat", "dog"])
    found = read(tmp_path, shard_images)
    assert [s.label for s in found["train"]] == [0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1]
    assert [s.image for s in found["train"]] == [jpeg(n) for n in range(11)]
    assert len({s.key for s in found["train"]}) == 11
    assert [(s.image, s.label) for s in found["val"]] == [(jpeg(20), 0)]
    assert [s.label for s in found["test"]] == [-1, -1]
    assert HfParquet(str(tmp_path)).listing(4, map).class_names == ("cat", "dog")


def test_a_read_that_fails_in_the_middle_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [row(n, n % 2) for n in range(9)])
    url, content = f"memory://{tmp_path.name}", (tmp_path / "train.parquet").read_bytes()
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/train.parquet", content)
    source = HfParquet(url)
    (piece,) = source.listing(9, map).pieces
    read, reads = MemoryFile.read, []

    def failing(file: MemoryFile, size: int = -1) -> bytes:
        reads.append(size)
        if len(reads) % 3 == 2:
            raise ConnectionResetError("dropped")
        return read(file, size)

    monkeypatch.setattr(MemoryFile, "read", failing)
    monkeypatch.setattr("pipeline.storage.time.sleep", lambda seconds: None)
    assert [sample.image for sample in source.read(piece)] == [jpeg(n) for n in range(9)]
    assert len(reads) > 5


def test_without_declared_names_classes_are_numbered(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [row(0, 0), row(1, 2)])
    assert HfParquet(str(tmp_path)).listing(4, map).class_names == ("0", "1", "2")


def test_labels_out_of_range_and_rows_without_bytes_are_problems(tmp_path: Path) -> None:
    rows = [row(0, 0), row(1, 2), row(2, -2), ({"bytes": None, "path": "x.jpg"}, 1)]
    write(tmp_path / "train.parquet", rows, names=["cat", "dog"])
    problems = [sample.problem for sample in read(tmp_path)["train"]]
    assert problems == [
        None,
        "label 2 is none of the 2 classes",
        "label -2 is none of the 2 classes",
        "the row has no image bytes",
    ]


def test_other_layouts_are_refused_by_name(tmp_path: Path) -> None:
    source = HfParquet(str(tmp_path))
    with pytest.raises(SourceError, match=r"no file named train-\*\.parquet"):
        source.listing(4, map)
    path = tmp_path / "train.parquet"
    path.write_bytes(b"text")
    with pytest.raises(SourceError, match=r"train\.parquet: not a Parquet file"):
        source.listing(4, map)
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), path)
    with pytest.raises(SourceError, match="its columns are picture, label; image or img"):
        source.listing(4, map)
    pq.write_table(pa.table({"image": [b""], "label": [0]}), path)
    with pytest.raises(SourceError, match="column 'image' is binary, not a struct"):
        source.listing(4, map)


def test_a_file_cut_short_after_listing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write(path, [row(n, 0) for n in range(6)])
    source = HfParquet(str(tmp_path))
    (piece,) = source.listing(10, map).pieces
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"train\.parquet: rows 0 to 6 cannot be read"):
        list(source.read(piece))
