"""Tests of pipeline.data.sources.class_folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.errors import SourceError
from pipeline.data.sources.class_folders import ClassFolders
from pipeline.storage import publish
from tests.data.material import jpeg, write_class_folders

IMAGES = {
    "train/cat/a.jpg": jpeg(1),
    "train/cat/b.JPEG": jpeg(2),
    "train/Dog/a.jpg": jpeg(3),
    "train/cat/.DS_Store": b"junk",
    "val/cat/c.jpg": jpeg(4),
    "test/d.jpg": jpeg(5),
}
EXPECTED = {
    ("train", "train/Dog/a.jpg"): (0, jpeg(3)),
    ("train", "train/cat/a.jpg"): (1, jpeg(1)),
    ("train", "train/cat/b.JPEG"): (1, jpeg(2)),
    ("val", "val/cat/c.jpg"): (1, jpeg(4)),
    ("test", "test/d.jpg"): (-1, jpeg(5)),
}


def found(url: str) -> dict[tuple[str, str], tuple[int, bytes]]:
    source = ClassFolders(url)
    listing = source.listing(2, map)
    assert listing.class_names == ("Dog", "cat")
    return {
        (piece.split, sample.key): (sample.label, bytes(sample.image))
        for piece in listing.pieces
        for sample in source.read(piece)
    }


def test_files_of_a_folder(tmp_path: Path) -> None:
    assert found(str(write_class_folders(tmp_path, IMAGES))) == EXPECTED


@pytest.mark.slow
def test_objects_in_s3(s3: str) -> None:
    for name, content in IMAGES.items():
        with publish(f"{s3}/{name}") as partial:
            partial.write_bytes(content)
    assert found(s3) == EXPECTED


def test_a_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"train/cat/a.jpg": b"", "val/bird/a.jpg": b""})
    with pytest.raises(SourceError, match=r"val/bird/a\.jpg lies in no class folder that train/ has"):
        ClassFolders(str(tmp_path)).listing(2, map)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError, match="no images below train/<class>/"):
            ClassFolders(str(folder)).listing(2, map)
