"""Checkpoints are whole or not there, bounded in number, and of this recipe alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from s3fs import S3FileSystem

from infra.processes import free_ports
from pipeline.cluster import checkpoints
from pipeline.cluster.checkpoints import (
    SEAL,
    CheckpointStore,
    forget_checkpoints,
    has_checkpoint,
    refuse_another_recipe,
    storage_path,
    store_of,
)
from pipeline.cluster_section import Cluster
from pipeline.storage import Retry
from pipeline.training.checkpoints import DamagedCheckpointError, write_checkpoint
from pipeline.training.session import RunSpec
from tests.cluster.conftest import small_params


def test_a_relative_folder_is_that_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = small_params().cluster
    paths = {given: settings.model_copy(update={"storage": given}) for given in (None, "kept", "s3://bucket/kept")}
    assert {given: storage_path(chosen) for given, chosen in paths.items()} == {
        None: str(tmp_path / "checkpoints"),
        "kept": str(tmp_path / "kept"),
        "s3://bucket/kept": "s3://bucket/kept",
    }


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CheckpointStore]:
    """A store of two checkpoints in a folder, and at a URL that is none of this machine's files."""
    if request.param == "folder":
        yield CheckpointStore(str(tmp_path / "store"), kept=2)
        return
    yield CheckpointStore(f"memory://{tmp_path.name}", kept=2)
    fsspec.filesystem("memory").rm("/", recursive=True)


def made(folder: Path, content: str) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "state.json").write_text(content)
    (folder / "model" / "weights").write_text(content * 2)
    return folder


def test_a_checkpoint_comes_back_and_the_oldest_go(store: CheckpointStore, tmp_path: Path) -> None:
    assert store.iterations() == []
    for iteration in (5, 10, 1000):
        store.put(made(tmp_path / str(iteration), f"of {iteration}"), iteration)
    assert store.iterations() == [1000, 10]
    with store.fetched(10) as folder:
        assert (folder / "state.json").read_text() == "of 10"
        assert (folder / "model" / "weights").read_text() == "of 10of 10"
    store.forget()
    assert store.iterations() == []
    store.forget()


def test_one_without_its_seal_is_none_and_goes_with_the_next(store: CheckpointStore, tmp_path: Path) -> None:
    for iteration in (1, 2):
        store.put(made(tmp_path / str(iteration), "whole"), iteration)
    system, path = fsspec.core.url_to_fs(store.url)
    system.rm(f"{path}/iteration-000000001/{SEAL}")
    assert store.iterations() == [2]
    store.put(made(tmp_path / "3", "whole"), 3)
    assert store.iterations() == [3, 2]
    assert not system.exists(f"{path}/iteration-000000001")


def test_a_folder_on_a_workers_own_disk_is_refused(tmp_path: Path) -> None:
    drivers, workers = CheckpointStore(str(tmp_path / "here"), 2), CheckpointStore(str(tmp_path / "there"), 2)
    with drivers.shared("one"):
        drivers.require_shared("one")
        with pytest.raises(ValueError, match=r"there is not the driver's folder .*; set cluster\.storage to a URL"):
            workers.require_shared("one")
        with pytest.raises(ValueError, match="is not the driver's folder"):
            drivers.require_shared("another")
    assert list(tmp_path.iterdir()) == [], "nothing is left of it"
    with CheckpointStore("s3://bucket/x", 2).shared("one"):
        CheckpointStore("s3://bucket/x", 2).require_shared("one")


@pytest.mark.parametrize("damage", ["cut short", "missing", "no seal"])
def test_damage_is_seen(store: CheckpointStore, tmp_path: Path, damage: str) -> None:
    store.put(made(tmp_path / "made", "something"), 7)
    system, path = fsspec.core.url_to_fs(store.url)
    name = f"{path}/iteration-000000007/" + (SEAL if damage == "no seal" else "state.json")
    if damage == "cut short":
        system.pipe_file(name, b"some")
    else:
        system.rm(name)
    with pytest.raises(DamagedCheckpointError), store.fetched(7):
        pytest.fail("it is not what was written")


def local(storage: str | None = None) -> Cluster:
    tree = small_params().cluster.model_dump()
    return Cluster.model_validate({**tree, "storage": storage})


def leave_checkpoint(spec: RunSpec, cluster: Cluster, folder: Path) -> None:
    folder.mkdir()
    write_checkpoint(folder, {"a": torch.zeros(1)}, {"identity": spec.identity()})
    store_of(spec, cluster).put(folder, 4)


def test_another_recipes_checkpoints_are_refused_with_what_differs(
    make_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, now = make_spec(batch_size=64), make_spec()
    leave_checkpoint(before, local(), tmp_path / "made")
    refuse_another_recipe(before, local())
    expected = r"training\.batch_size: 64 in the checkpoint, 32 now\. Set that back to go on with it, or remove"
    with pytest.raises(ValueError, match=expected):
        refuse_another_recipe(now, local())
    assert (has_checkpoint(before, local()), has_checkpoint(now, local())) == (True, False)
    os.truncate(next(tmp_path.glob("checkpoints/*/*/state.json")), 3)
    refuse_another_recipe(now, local())


def test_other_runs_and_trainings_in_a_shared_storage_are_left_alone_and_told_of(
    make_spec: Callable[..., RunSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    leave_checkpoint(make_spec("plain8-s0"), local(), tmp_path / "one")
    shared = local(str(tmp_path / "shared"))
    leave_checkpoint(make_spec(batch_size=64), shared, tmp_path / "two")
    refuse_another_recipe(make_spec(), local())
    assert not caplog.messages
    refuse_another_recipe(make_spec(), shared)
    (told,) = caplog.messages
    assert told.startswith(f"resnet8-s0: begins anew; beside it, {tmp_path}/shared/digits-resnet8-s0-")
    assert told.endswith("training.batch_size: 64 in the checkpoint, 32 now")
    caplog.clear()
    leave_checkpoint(make_spec(), shared, tmp_path / "three")
    refuse_another_recipe(make_spec(), shared)
    assert not caplog.messages, "it goes on from its own"


def test_checkpoints_that_cannot_be_removed_do_not_fail_a_finished_training(
    make_spec: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}", "AWS_ACCESS_KEY_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setattr(checkpoints, "DEFAULT_RETRY", Retry(attempts=1))
    S3FileSystem.clear_instance_cache()
    forget_checkpoints(make_spec(), local("s3://bucket/checkpoints"))
    S3FileSystem.clear_instance_cache()
    (told,) = [record.getMessage() for record in caplog.records if record.name == checkpoints.__name__]
    assert told.startswith("resnet8-s0: trained, but its checkpoints stay, as they cannot be removed (s3://bucket/")
    assert "remove s3://bucket/checkpoints/digits-resnet8-s0-" in told
