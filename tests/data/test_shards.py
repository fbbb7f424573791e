"""Tests of pipeline.data.shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.errors import StoreError
from pipeline.data.shards import Shard, ShardWriter


def write(path: Path, images: list[bytes], shape: tuple[int, int, int] | None, batch_bytes: int = 1000) -> None:
    with ShardWriter(path, shape, batch_bytes) as writer:
        for number, image in enumerate(images):
            writer.add(image, number - 1, f"key{number}")


@pytest.mark.parametrize("batch_bytes", [1, 50, 10**6])
def test_encoded_rows_come_back_whatever_the_record_batches(tmp_path: Path, batch_bytes: int) -> None:
    images = [bytes([n]) * (n * 7 % 40 + 1) for n in range(20)]
    write(tmp_path / "a", images, None, batch_bytes)
    shard = Shard(tmp_path / "a", None)
    assert len(shard) == 20
    assert [bytes(shard.encoded(row)) for row in (7, 19, 0, *range(20))] == [images[7], images[19], images[0], *images]
    assert shard.column("label") == list(range(-1, 19))
    assert shard.column("key") == [f"key{n}" for n in range(20)]


def test_decoded_rows_are_one_array_that_is_not_copied(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 6, 3), np.uint8)
    write(tmp_path / "a", [image.tobytes() for image in images], (4, 6, 3))
    shard = Shard(tmp_path / "a", (4, 6, 3))
    assert np.array_equal(shard.array(), images)
    assert bytes(shard.encoded(33)) == images[33].tobytes()
    assert not shard.array().flags.owndata
    assert not shard.array().flags.writeable  # the file itself


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [b"1", b"22", b"333"], None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_and_other_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a", [b"x" * 12] * 3, None)
    with pytest.raises(StoreError, match="a: its columns are not those"):
        Shard(tmp_path / "a", (2, 2, 3))
    whole = (tmp_path / "a").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"junk" * 100):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(StoreError, match="a: not a readable shard"):
            Shard(tmp_path / "a", None)
    write(tmp_path / "c", [b"1"], None)
    with pytest.raises(ValueError, match="encoded"):
        Shard(tmp_path / "c", None).array()
