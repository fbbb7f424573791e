"""Tests of pipeline.data.prepare on bad input and under bad circumstances: clear errors, and nothing lost."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.errors import BadImagesError, SourceError
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.data.tasks import SEEN
from pipeline.storage import StorageError
from tests.data.material import (
    WNIDS,
    data,
    digits,
    encoded,
    jpeg,
    picture,
    train_images,
    tree_of,
    write_class_folders,
    write_ilsvrc2012,
)

TWO_CLASSES = {f"train/{name}/{n}.jpg": jpeg(n) for n in range(5) for name in ("cat", "dog")}
BAD = {
    "train/cat/cut.jpg": (jpeg(1)[:-300], "cannot be decoded"),
    "train/cat/text.JPEG": (b"no image\n" * 9, "not an image"),
    "train/dog/zero.jpg": (b"", "zero bytes"),
    "val/dog/thin.jpg": (encoded(picture(1, 1, 90)), "1x90 pixels"),
    "val/dog/bomb.png": (encoded(picture(1, 2000, 1500), "PNG"), "more than max_pixels"),
}


def written(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow") if "index" not in path.name}


def test_every_bad_image_of_every_split_is_listed_and_the_earlier_store_stays(tmp_path: Path) -> None:
    good = write_class_folders(tmp_path / "good", TWO_CLASSES)
    prepare(data("class_folders", good), tmp_path / "out")
    before = tree_of(tmp_path / "out")
    bad = write_class_folders(tmp_path / "bad", TWO_CLASSES | {name: content for name, (content, _) in BAD.items()})
    with pytest.raises(BadImagesError) as caught:
        prepare(data("class_folders", bad), tmp_path / "out")
    found = {key: reason for split in caught.value.problems.values() for key, reason in split}
    assert set(found) == set(BAD)
    for key, (_, reason) in BAD.items():
        assert reason in found[key]
        assert f"{key}: {found[key]}" in str(caught.value)
    assert "3 bad images in train:" in str(caught.value)
    assert tree_of(tmp_path / "out") == before


def test_bad_images_are_skipped_and_counted_where_asked(tmp_path: Path) -> None:
    bad = write_class_folders(tmp_path / "bad", TWO_CLASSES | {name: content for name, (content, _) in BAD.items()})
    manifest = prepare(data("class_folders", bad, on_bad_image="skip"), tmp_path / "out")
    skipped = {image.key for split in manifest.splits.values() for image in split.skipped}
    assert skipped == set(BAD)
    assert manifest.splits["train"].n_images == 10
    assert manifest.splits["val"].n_images == 0
    good = prepare(data("class_folders", write_class_folders(tmp_path / "good", TWO_CLASSES)), tmp_path / "other")
    assert good.splits["train"].images_by_class == manifest.splits["train"].images_by_class


def test_after_the_repair_only_what_was_bad_is_written(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "bad", TWO_CLASSES)
    (folder / "train/dog/1.jpg").write_bytes(b"")
    with pytest.raises(BadImagesError):
        prepare(data("class_folders", folder), tmp_path / "out")
    before = written(tmp_path / ".out.preparing")
    (folder / "train/dog/1.jpg").write_bytes(jpeg(1))
    prepare(data("class_folders", folder), tmp_path / "out")
    after = written(tmp_path / "out")
    assert 0 < len(before) < len(after)
    assert {name: after[name] for name in before} == before


def test_odd_images_are_counted(tmp_path: Path) -> None:
    odd = {"train/cat/cmyk.jpg": encoded(picture(1).convert("CMYK")), "train/dog/png.JPEG": encoded(picture(1), "PNG")}
    manifest = prepare(data("class_folders", write_class_folders(tmp_path / "a", TWO_CLASSES | odd)), tmp_path / "out")
    assert manifest.splits["train"].oddities == {"cmyk": 1, "not_jpeg": 1}
    assert manifest.splits["train"].n_images == 12


def test_a_member_that_points_outside_is_bad_and_nothing_is_written_there(tmp_path: Path) -> None:
    images = train_images()
    images[WNIDS[0]]["../../escaped.JPEG"] = jpeg(5)
    write_ilsvrc2012(tmp_path / "source", images)
    with pytest.raises(BadImagesError, match=r"\.\./\.\./escaped\.JPEG: .*points outside"):
        prepare(data("ilsvrc2012", tmp_path / "source"), tmp_path / "a" / "b" / "out")
    manifest = prepare(data("ilsvrc2012", tmp_path / "source", on_bad_image="skip"), tmp_path / "a" / "b" / "out")
    assert manifest.splits["train"].n_images == 18
    assert [path.name for path in (tmp_path / "a").rglob("*escaped*")] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "source"]


def test_images_of_unequal_size_cannot_be_kept_decoded(tmp_path: Path) -> None:
    images = {"train/a/1.jpg": jpeg(1, 30, 30), "train/a/2.jpg": jpeg(2, 32, 32)}
    folder = write_class_folders(tmp_path / "a", images)
    mean = {"kind": "per_pixel", "shorter_side": None, "crop": 16, "divide_by_std": False}
    with pytest.raises(BadImagesError, match=r"2\.jpg: 32x32 pixels, not 30x30"):
        prepare(data("class_folders", folder, keep="decoded", mean=mean), tmp_path / "out")
    with pytest.raises(SourceError, match="different shapes"):
        prepare(data("class_folders", folder, keep="decoded", mean=mean, shard_images=1), tmp_path / "out")
    manifest = prepare(data("class_folders", folder, keep="decoded", size=24, mean=mean), tmp_path / "out")
    assert manifest.image_shape == (24, 24, 3)


def test_a_wrong_url_is_named_before_any_work(tmp_path: Path) -> None:
    for source, url in (
        ("ilsvrc2012", tmp_path / "none"),
        ("class_folders", tmp_path / "none"),
        ("cifar10", tmp_path / "none"),
    ):
        with pytest.raises((SourceError, StorageError), match="none"):
            prepare(data(source, url), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may do anything: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def let_in(folder: Path) -> None:
    """Let everybody read pytest's folder, and those of its own that it lies in."""
    for path in (folder, *folder.parents):
        if path == folder or path.name.startswith(("pytest-", "popen-")):
            path.chmod(0o755)


def test_permission_denied_names_the_folder(tmp_path: Path) -> None:
    let_in(tmp_path)
    prepare(digits(), tmp_path / "open")  # imports what nobody else may read
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with (
        unprivileged(),
        pytest.raises(StorageError, match=r"closed/\.out\.preparing.*cannot be written: Permission denied"),
    ):
        prepare(digits(), closed / "out")


def test_a_task_on_a_machine_that_does_not_see_the_folder_writes_nothing(tmp_path: Path) -> None:
    work = tmp_path / ".out.preparing"

    def elsewhere(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        (work / SEEN).unlink()  # as on a machine whose own folder of this name has never been prepared in
        return map(function, items)

    with pytest.raises(StorageError, match=rf"{work}: {platform.node()} does not see .* set data\.store to a"):
        prepare(digits(), tmp_path / "out", run_tasks=elsewhere)
    assert written(work) == {}
    prepare(digits(), tmp_path / "out")
    assert not (tmp_path / "out" / SEEN).exists()


def test_an_unreadable_image_is_bad(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "a", TWO_CLASSES)
    let_in(tmp_path)
    (tmp_path / "outs").mkdir()
    (tmp_path / "outs").chmod(0o777)
    (folder / "train/cat/3.jpg").chmod(0)
    with unprivileged(), pytest.raises(BadImagesError, match=r"train/cat/3\.jpg: permission denied"):
        prepare(data("class_folders", folder), tmp_path / "outs" / "out")


def test_a_full_disk_names_the_shard_and_loses_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk's end: the kernel refuses the write in the same place."""
    source = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"))
    prepare(digits(), tmp_path / "out")
    before = tree_of(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageError, match=r"train-00000\.arrow: cannot be written: .*File too large"):
            prepare(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree_of(tmp_path / "out") == before
    prepare(source, tmp_path / "out")
    assert Store.open(tmp_path / "out").manifest.source == "ilsvrc2012"
