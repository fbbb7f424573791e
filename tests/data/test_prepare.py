"""Tests of pipeline.data.prepare: the same bytes whoever writes them, and nothing lost whatever goes wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import tasks
from pipeline.data.errors import BadImagesError, SourceError
from pipeline.data.prepare import prepare
from pipeline.data.sources.devkit import read_devkit
from pipeline.data.sources.ilsvrc2012 import DEVKIT, VAL
from pipeline.data.store import Store
from pipeline.storage import StorageError, sha256_file
from tests.data.material import (
    WNIDS,
    data,
    digits,
    encoded,
    jpeg,
    map_in_processes,
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


class Killed(BaseException):
    """Stands for the process's end."""


def killed_after(number: int) -> Callable[[Any, Any], Iterator[Any]]:
    def run(function: Any, items: Any) -> Iterator[Any]:
        for position, item in enumerate(items):
            if position == number:
                raise Killed
            yield function(item)

    return run


def written(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow") if "index" not in path.name}


def test_a_store_holds_what_the_source_has(tmp_path: Path) -> None:
    manifest = prepare(data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source")), tmp_path / "out")
    assert manifest.class_keys == WNIDS
    assert manifest.splits["train"].images_by_class == dict.fromkeys(WNIDS, 6)
    assert [shard.rows for shard in manifest.splits["train"].shards] == [4, 4, 4, 4, 2]
    store = Store.open(tmp_path / "out")
    train = store.split("train")
    expected = [(label, content) for label, wnid in enumerate(WNIDS) for content in train_images()[wnid].values()]
    assert [(label, bytes(train.encoded(i))) for i, label in enumerate(train.labels)] == expected
    for split in manifest.splits.values():
        for shard in split.shards:
            path = tmp_path / "out" / shard.name
            assert (sha256_file(path), path.stat().st_size) == (shard.sha256, shard.bytes)


def test_the_manifest_knows_no_times_and_no_paths_but_the_given_url(tmp_path: Path) -> None:
    prepare(digits(), tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)) >= {"schema_version", "source", "url", "splits", "statistics", "color_pca"}
    for path in (tmp_path / "out").rglob("*"):
        assert str(tmp_path).encode() not in (path.read_bytes() if path.is_file() else b"")


@pytest.mark.slow
def test_one_worker_or_two_give_the_same_bytes(tmp_path: Path) -> None:
    source = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"))
    prepare(source, tmp_path / "here")
    for workers in (1, 2):
        prepare(source, tmp_path / f"by{workers}", run_tasks=map_in_processes(workers))
        assert tree_of(tmp_path / f"by{workers}") == tree_of(tmp_path / "here")


@pytest.mark.parametrize("number", [0, 1, 3, 6])
def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    source = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"))
    prepare(source, tmp_path / "whole")
    with pytest.raises(Killed):
        prepare(
            source,
            tmp_path / "out",
            run_tasks=lambda f, xs: killed_after(number)(f, xs) if f is tasks.write_shard else map(f, xs),
        )
    assert not (tmp_path / "out").exists()
    before = written(tmp_path / ".out.preparing")
    assert len(before) == number
    prepare(source, tmp_path / "out")
    after = written(tmp_path / "out")
    assert {name: after[name] for name in before} == before  # not written again
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "whole")
    assert not (tmp_path / ".out.preparing").exists()


@pytest.mark.slow
def test_kill_9_half_way(tmp_path: Path) -> None:
    """A real process, killed while it writes; then the same again, undisturbed."""
    write_ilsvrc2012(tmp_path / "source", train_images(60))
    program = (
        "import sys; from pathlib import Path; from tests.data.material import data;"
        "from pipeline.data.prepare import prepare;"
        "prepare(data('ilsvrc2012', sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    work = tmp_path / ".out.preparing"
    while len(list(work.glob("train-*.arrow"))) < 5:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    prepare(data("ilsvrc2012", tmp_path / "source"), tmp_path / "whole")
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "whole")


def test_a_half_written_or_changed_shard_is_written_again(tmp_path: Path) -> None:
    source = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"))
    with pytest.raises(Killed):
        prepare(
            source,
            tmp_path / "out",
            run_tasks=lambda f, xs: killed_after(4)(f, xs) if f is tasks.write_shard else map(f, xs),
        )
    work = tmp_path / ".out.preparing"
    whole = (work / "train-00001.arrow").read_bytes()
    (work / "train-00000.arrow").write_bytes(whole[:100])
    (work / "train-00001.arrow").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (work / "train-00002.arrow").unlink()
    (work / ".train-00007.arrow.x.partial").write_bytes(b"half")
    prepare(source, tmp_path / "out")
    prepare(source, tmp_path / "whole")
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "whole")


def test_preparing_again_takes_over_whole_shards_and_gives_the_same(tmp_path: Path) -> None:
    source = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"))
    prepare(source, tmp_path / "out")
    before = tree_of(tmp_path / "out")
    prepare(source, tmp_path / "out")
    assert tree_of(tmp_path / "out") == before
    other = data("ilsvrc2012", tmp_path / "source", shard_images=5)
    prepare(other, tmp_path / "out")
    prepare(other, tmp_path / "fresh")
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "fresh")


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


def test_permission_denied_names_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with (
        unprivileged(),
        pytest.raises(StorageError, match=r"closed/\.out\.preparing.*cannot be written: Permission denied"),
    ):
        prepare(digits(), closed / "out")


def test_an_unreadable_image_is_bad(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "a", TWO_CLASSES)
    for path in [tmp_path, *list(tmp_path.parents)[:2]]:
        path.chmod(0o755)
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


@pytest.mark.slow
def test_a_tasks_memory_is_bounded(tmp_path: Path) -> None:
    """A shard of 48 MB of images, written 1 MiB at a time."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    content = encoded(Image.fromarray(noise), quality=95)
    images = {f"train/a/{n:03d}.jpg": content for n in range(-(-48_000_000 // len(content)))}
    write_class_folders(tmp_path / "source", images)
    program = (
        "import sys, resource; from pathlib import Path; from tests.data.material import data;"
        "from pipeline.data.prepare import prepare; import pipeline.data.loader;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "prepare(data('class_folders', sys.argv[1], shard_images=1000), Path(sys.argv[2]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
    # statistics map the shard into memory, which counts as resident though it can go at any time
    assert int(result.stdout.split()[-1]) < (48_000 + 40_000)


@pytest.mark.slow
def test_the_ten_classes_of_imagenet(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "imagenette"
    manifest = prepare(data("ilsvrc2012", source, shard_images=1024), tmp_path / "out", run_tasks=map_in_processes(2))
    kit = read_devkit(str(source / DEVKIT))
    assert manifest.splits["train"].n_images == 9469
    assert manifest.splits["val"].n_images == 3925
    assert manifest.splits["train"].images_by_class == {s.wnid: s.train_images for s in kit.synsets}
    counts = Counter(kit.ground_truth)
    assert manifest.splits["val"].images_by_class == {s.wnid: counts[n] for n, s in enumerate(kit.synsets)}
    store = Store.open(tmp_path / "out")
    train, val = store.split("train"), store.split("val")
    assert all(
        key.startswith(f"{manifest.class_keys[label]}/") for key, label in zip(train.keys, train.labels, strict=True)
    )
    for row in (0, 1000, 3924):
        assert val.keys[row] == f"ILSVRC2012_val_{row + 1:08d}.JPEG"
        assert val.labels[row] == kit.ground_truth[row]
    with tarfile.open(source / VAL) as archive:
        file = archive.extractfile(val.keys[1000])
        assert file is not None
        assert file.read() == bytes(val.encoded(1000))


@pytest.mark.slow
def test_cifar10(test_data: Path, tmp_path: Path) -> None:
    mean = {"kind": "per_pixel", "shorter_side": None, "crop": 32, "divide_by_std": False}
    parameters = data("cifar10", test_data / "cifar10", keep="decoded", mean=mean, shard_images=50_000)
    manifest = prepare(parameters, tmp_path / "out")
    assert {name: split.n_images for name, split in manifest.splits.items()} == {"train": 50_000, "test": 10_000}
    for name, number in (("train", 5000), ("test", 1000)):
        assert set(manifest.splits[name].images_by_class.values()) == {number}
    store = Store.open(tmp_path / "out")
    array = store.split("train").array()
    assert array.shape == (50_000, 32, 32, 3)
    assert not array.flags.owndata
    # the means that others publish for CIFAR-10: 125.3, 123.0, 113.9
    assert np.allclose(array.mean(axis=(0, 1, 2)), [125.3, 123.0, 113.9], atol=0.5)
