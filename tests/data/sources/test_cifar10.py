"""Tests of pipeline.data.sources.cifar10 on archives in the two official layouts, and on the real Parquet files."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.errors import SourceError
from pipeline.data.sources.cifar10 import CLASSES, OFFICIAL_MD5, Cifar10

NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
PER_BATCH = 20


def pixels() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, 32, 32, 3) and labels of each batch."""
    generator = np.random.default_rng(0)
    return {
        name: (generator.integers(0, 256, (PER_BATCH, 32, 32, 3), np.uint8), np.arange(PER_BATCH) % 10)
        for name in NAMES
    }


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    # protocol 2 and bytes keys, as Python 2 wrote the official ones
    return pickle.dumps({b"data": planes(images), b"labels": labels.tolist(), b"filenames": []}, protocol=2)


def binary_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), planes(images)], axis=1).tobytes()


def write(folder: Path, kind: str, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Cifar10:
    name = f"cifar-10-{kind}.tar.gz"
    members = {"readme.html": b"", "batches.meta": b"junk", "batches.meta.txt": b"airplane"}
    for batch, (images, labels) in batches.items():
        suffix, content = ("", python_batch) if kind == "python" else (".bin", binary_batch)
        members[f"{batch}{suffix}"] = content(images, labels)
    with tarfile.open(folder / name, "w:gz") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches/{member}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    digest = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return Cifar10(str(folder), ((name, digest),), (("train", 5 * PER_BATCH), ("test", PER_BATCH)))


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_an_archive_gives_every_image_and_label(tmp_path: Path, kind: str) -> None:
    batches = pixels()
    source = write(tmp_path, kind, batches)
    listing = source.listing(30, map)
    assert listing.class_names == CLASSES
    for split, names in (("train", NAMES[:5]), ("test", NAMES[5:])):
        samples = [s for piece in listing.pieces if piece.split == split for s in source.read(piece)]
        images = np.stack([s.image for s in samples])
        assert np.array_equal(images, np.concatenate([batches[name][0] for name in names]))
        assert [s.label for s in samples] == [label for name in names for label in batches[name][1]]


def test_the_archive_itself_may_be_the_url(tmp_path: Path) -> None:
    source = write(tmp_path, "python", pixels())
    direct = Cifar10(f"{tmp_path}/cifar-10-python.tar.gz", source.md5, source.images)
    assert direct.listing(30, map) == source.listing(30, map)
    (first, *_) = direct.listing(30, map).pieces
    assert len(list(direct.read(first))) == 30


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "python", pixels())
    with pytest.raises(SourceError, match=f"instead of {OFFICIAL_MD5['cifar-10-python.tar.gz']}: not the official"):
        Cifar10(str(tmp_path)).listing(30, map)


def test_a_missing_batch_and_a_wrong_number_are_refused(tmp_path: Path) -> None:
    batches = pixels()
    images, labels = batches["data_batch_2"]
    batches["data_batch_2"] = images[1:], labels[1:]
    with pytest.raises(SourceError, match=r"'train': 99.*CIFAR-10 has .*'train': 100"):
        write(tmp_path, "binary", batches).listing(30, map)
    del batches["data_batch_2"]
    with pytest.raises(SourceError, match="no data_batch_2 in it"):
        write(tmp_path, "binary", batches).listing(30, map)


def test_a_pickle_that_is_no_array_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "run"),)

    source = write(tmp_path, "python", pixels())
    name = "cifar-10-python.tar.gz"
    with tarfile.open(tmp_path / name, "w:gz") as archive:
        content = pickle.dumps(Attack())
        info = tarfile.TarInfo("data_batch_1")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    digest = hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
    with pytest.raises(pickle.UnpicklingError, match="has no place in a CIFAR-10 batch"):
        Cifar10(str(tmp_path), ((name, digest),), source.images).listing(30, map)
    assert not (tmp_path / "run").exists()


def test_the_real_parquet_files_are_listed_whole(test_data: Path) -> None:
    listing = Cifar10(str(test_data / "cifar10")).listing(10_000, map)
    counts = Counter[str]()
    for piece in listing.pieces:
        counts[piece.split] += piece.images
    assert counts == {"train": 50_000, "test": 10_000}
    assert listing.class_names == CLASSES


def test_parquet_of_another_data_set_is_refused(test_data: Path) -> None:
    wrong = Cifar10(str(test_data / "cifar10"), images=(("train", 1), ("test", 1)))
    with pytest.raises(SourceError, match="but CIFAR-10 has"):
        wrong.listing(10_000, map)
