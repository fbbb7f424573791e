"""Tests of pipeline.data.prepare: the same bytes whoever writes them, and nothing lost whatever goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import tasks
from pipeline.data.prepare import prepare
from pipeline.data.sources.devkit import read_devkit
from pipeline.data.sources.ilsvrc2012 import DEVKIT, VAL
from pipeline.data.store import Store
from pipeline.data.workplace import Workplace
from pipeline.storage import sha256_file
from tests.data.material import (
    WNIDS,
    data,
    digits,
    encoded,
    map_in_processes,
    train_images,
    tree_of,
    write_class_folders,
    write_ilsvrc2012,
)


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
    write_ilsvrc2012(tmp_path / "source", train_images(200))
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


def test_a_relative_store_is_that_of_the_one_who_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = {"shared": f"{tmp_path}/shared", "s3://bucket/a": "s3://bucket/a", "file:///b": "file:///b"}
    for given, folder in expected.items():
        assert Workplace.of(Path("data/digits"), given, "0" * 64).store == f"{folder}/digits/{'0' * 12}"
