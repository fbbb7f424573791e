"""The images that benchmarks make or take."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import simplejpeg

from benchmarks.images import DATA_VARIABLE, add_image_options, generated, write_cifar, write_images


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_image_options(parser, images=4)
    return parser.parse_args(arguments)


def test_generated_images_are_as_large_as_imagenets() -> None:
    for content in generated(2):
        assert simplejpeg.decode_jpeg(content).shape == (375, 500, 3)
        assert 30_000 < len(content) < 200_000


def test_without_photographs_images_are_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    contents = write_images(parsed(), tmp_path)
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.JPEG"))
    assert written == [
        "train/class0/00000.JPEG",
        "train/class0/00002.JPEG",
        "train/class1/00001.JPEG",
        "train/class1/00003.JPEG",
    ]
    assert (tmp_path / written[0]).read_bytes() == contents[0]


def test_mosaics_have_the_usual_size_and_files_stay_as_stored(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, content in enumerate(generated(2)):
        small = simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(content)[:120, :90].copy())
        (source / f"{number}.jpg").write_bytes(small)
    mosaics = write_images(parsed(str(source)), tmp_path / "mosaics")
    assert [simplejpeg.decode_jpeg_header(content)[:2] for content in mosaics] == [(500, 375), (375, 500)]
    stored = write_images(parsed(str(source), "--as-stored"), tmp_path / "stored")
    assert [simplejpeg.decode_jpeg_header(content)[:2] for content in stored] == [(120, 90)] * 2


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no JPEG files there"):
        write_images(parsed(str(tmp_path)), tmp_path / "out")


def test_cifar_is_the_data_sets_own_first_images(test_data: Path, tmp_path: Path) -> None:
    write_cifar(tmp_path, 5, test_images=2)
    for split, count in (("train", 5), ("test", 2)):
        name = f"{split}-00000-of-00001.parquet"
        original = next(pq.ParquetFile(test_data / "cifar10" / name).iter_batches(count))
        assert pq.read_table(tmp_path / name).to_pylist() == original.to_pylist()
