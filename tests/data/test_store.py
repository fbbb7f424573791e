"""Tests of pipeline.data.store on local stores and on one in a real S3."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from s3fs import S3FileSystem

from pipeline.data.cache import NodeCache
from pipeline.data.errors import StoreError
from pipeline.data.images import decode_rgb
from pipeline.data.loader import TrainingLoader
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.schema import Augmentation
from pipeline.storage import Retry, StorageError, list_files
from tests.data.material import data, digits, train_images, tree_of, write_ilsvrc2012
from tests.s3_server import S3Server

AUGMENTATION = Augmentation(scale=(24, 40), pad=0, crop=16, mirror=True, color_noise=0.1)


@pytest.fixture(scope="module")
def encoded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded")
    prepare(data("ilsvrc2012", write_ilsvrc2012(folder / "source")), folder / "out")
    return folder / "out"


def test_images_labels_and_keys_by_position(encoded_store: Path) -> None:
    store = Store.open(encoded_store)
    split = store.split("train")
    contents = [content for members in train_images().values() for content in members.values()]
    assert (split.n_images, split.shape) == (18, None)
    assert split.labels.dtype == np.int64
    assert split.keys[7] == "n02102040/n02102040_1.JPEG"
    for i in (17, 0, 9):
        assert np.array_equal(split.image(i), decode_rgb(contents[i]))
    for threads in (1, 3):
        several = split.images([17, 0, 9, 0], threads)
        assert all(np.array_equal(image, split.image(i)) for image, i in zip(several, (17, 0, 9, 0), strict=True))
    assert split.images([], 2) == []
    assert split.describe(9) == "train-00002.arrow, row 1 (n02102040/n02102040_3.JPEG)"
    with pytest.raises(IndexError):
        split.image(18)
    with pytest.raises(IndexError):
        split.encoded(-1)


def test_a_decoded_split_is_an_array(tmp_path: Path) -> None:
    prepare(digits(shard_images=2000), tmp_path / "one")
    prepare(digits(shard_images=100), tmp_path / "many")
    one, many = (Store.open(tmp_path / name).split("train") for name in ("one", "many"))
    assert one.array().shape == (1297, 20, 20, 3)
    assert not one.array().flags.owndata
    assert np.array_equal(one.array(), many.array())
    assert np.array_equal(one.image(1200), many.array()[1200])
    assert all(np.array_equal(image, many.array()[i]) for i, image in enumerate(one.images(range(5), 2)))
    assert np.array_equal(one.labels, many.labels)


def test_the_digest_is_the_manifests(encoded_store: Path) -> None:
    content = (encoded_store / "manifest.json").read_bytes()
    assert Store.open(str(encoded_store)).digest == hashlib.sha256(content).hexdigest()


def test_splits_travel_to_other_processes(encoded_store: Path) -> None:
    split = Store.open(encoded_store).split("train")
    split.image(3)
    again = pickle.loads(pickle.dumps(split))
    assert len(pickle.dumps(split)) < 20_000
    assert np.array_equal(again.image(3), split.image(3))
    assert again.keys == split.keys


def test_what_is_not_whole_is_named(encoded_store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none/manifest\.json: cannot be read: no such file.*prepare stage"):
        Store.open(tmp_path / "none")
    folder = tmp_path / "store"
    shutil.copytree(encoded_store, folder)
    with pytest.raises(StoreError, match="no split 'dev' in this store; there are: train, val"):
        Store.open(folder).split("dev")
    shard = folder / "train-00000.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(StoreError, match=r"train-00000\.arrow: \d+ bytes, not \d+ as in the manifest"):
        Store.open(folder).split("train").image(0)
    shard.write_bytes(b"x" * len(whole))
    with pytest.raises(StoreError, match=r"train-00000\.arrow: not a readable shard"):
        Store.open(folder).split("train").image(0)
    shard.unlink()
    with pytest.raises(StoreError, match=r"train-00000\.arrow: cannot be read"):
        Store.open(folder).split("train").image(0)
    (folder / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(StoreError, match="not a manifest this version reads"):
        Store.open(folder)


def batches(store: Store, n: int, start: int = 0, processes: int = 0) -> list[np.ndarray]:
    split = store.split("train")
    loader = TrainingLoader(
        split,
        np.arange(split.n_images),
        augmentation=AUGMENTATION,
        statistics=InputStatistics.of_store(store, data("digits", None).mean),
        batch_size=6,
        seed=0,
        processes=processes,
    )
    iterator = loader.batches(start)
    return [next(iterator)[0].numpy().copy() for _ in range(n)]


@pytest.mark.slow
def test_a_store_in_s3_leaves_the_manifest_alone_here(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "cache"))
    source = write_ilsvrc2012(tmp_path / "source")
    manifest = prepare(data("ilsvrc2012", source, store=s3), tmp_path / "out")
    assert list(tree_of(tmp_path / "out")) == ["manifest.json"]
    assert manifest.store is not None
    assert manifest.store.startswith(f"{s3}/out/")
    local = prepare(data("ilsvrc2012", source), tmp_path / "local")
    assert manifest.splits == local.splits
    assert manifest.statistics == local.statistics
    assert set(list_files(manifest.store)) == set(tree_of(tmp_path / "local"))
    for location in (str(tmp_path / "out"), manifest.store):
        store = Store.open(location, NodeCache(tmp_path / "node", 10**8))
        assert np.array_equal(np.stack(batches(store, 5)), np.stack(batches(Store.open(tmp_path / "local"), 5)))
    before = tree_of(tmp_path / "out")
    prepare(data("ilsvrc2012", source, store=s3), tmp_path / "out")
    assert tree_of(tmp_path / "out") == before


@pytest.mark.slow
def test_shards_in_s3_that_are_whole_are_not_written_again(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "cache"))
    parameters = data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"), store=s3)
    manifest = prepare(parameters, tmp_path / "out")
    system = S3FileSystem()
    system.pipe_file(f"{manifest.store}/train-00001.arrow", b"damaged")
    system.rm_file(f"{manifest.store}/train-00002.arrow")
    system.invalidate_cache()
    before = {
        name: system.info(f"{manifest.store}/{name}")["LastModified"]
        for name in ("train-00000.arrow", "val-00000.arrow")
    }
    assert prepare(parameters, tmp_path / "again" / "out") == manifest
    system.invalidate_cache()
    assert {name: system.info(f"{manifest.store}/{name}")["LastModified"] for name in before} == before


def test_a_cache_smaller_than_the_store_serves_all_of_it(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "cache"))
    prepare(data("ilsvrc2012", write_ilsvrc2012(tmp_path / "source"), store=s3), tmp_path / "out")
    manifest = Store.open(tmp_path / "out").manifest
    largest = max(shard.bytes for shard in manifest.splits["train"].shards)
    store = Store.open(tmp_path / "out", NodeCache(tmp_path / "node", 2 * largest))
    split = store.split("train")
    for i in np.random.default_rng(0).integers(0, 18, 60):
        assert split.image(int(i)).shape == (30, 40, 3)
        assert sum(path.stat().st_size for path in (tmp_path / "node").iterdir()) <= 2 * largest
        assert len(split._open) <= 2
    mapped = mock.Mock(side_effect=lambda content: len(_mapped(tmp_path / "node")))
    monkeypatch.setattr("pipeline.data.store.decode_rgb", mapped)
    counts = split.images(np.random.default_rng(1).integers(0, 18, 60), 2)
    assert set(counts) == {2}, "images that wait to be decoded keep no shard mapped"


def _mapped(folder: Path) -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if str(folder) in line}


@pytest.mark.parametrize(("cause", "error"), [(ConnectionError, StorageError), (FileNotFoundError, StoreError)])
def test_storage_that_is_away_is_no_missing_store(
    cause: type[OSError], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(where: str) -> bytes:
        raise StorageError(f"{where}: cannot be read") from cause()

    monkeypatch.setattr("pipeline.data.store.read_bytes", fail)
    with pytest.raises(error, match=r"s3://bucket/x/manifest\.json: cannot be read") as raised:
        Store.open("s3://bucket/x")
    assert ("run the prepare stage" in str(raised.value)) == (error is StoreError)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_the_server_killed_while_training_reads(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, processes: int
) -> None:
    """Retried with growing pauses, then one clear error; and read on once it is back."""
    server = S3Server(tmp_path / "server")
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("RESNET_CACHE", str(tmp_path / "cache"))
    S3FileSystem.clear_instance_cache()
    source = write_ilsvrc2012(tmp_path / "source")
    prepare(data("ilsvrc2012", source, store=f"s3://{server.bucket}/x"), tmp_path / "out")
    shutil.rmtree(tmp_path / "cache")
    cache = NodeCache(tmp_path / "node", 10**8, Retry(3, 0.1))
    store = Store.open(tmp_path / "out", cache)
    store.split("train").image(0)
    InputStatistics.of_store(store, data("digits", None).mean)
    store.split("train").labels.sum()
    server.kill()
    with pytest.raises(StorageError, match=r"s3://.*train-0000.*cannot be read.*connect.*3 attempts"):
        batches(store, 5, processes=processes)
    if not processes:
        assert "trying again in 0.2 s" in caplog.text
    server.start()
    assert len(batches(store, 5, processes=processes)) == 5
    server.kill()
