"""Training with Ray Train: the numbers of the plain loop, on one worker or two, and through a worker's death."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline import cluster
from pipeline.cluster import capacity
from pipeline.models.saved import WEIGHTS, load_network
from pipeline.schema import Cluster
from pipeline.training.session import RunSpec, Session

pytestmark = pytest.mark.slow


def settings(storage: Path, **changes: object) -> Cluster:
    values = {
        "address": None,
        "workers": 1,
        "cpus_per_worker": 1,
        "gpus_per_worker": 0.0,
        "storage": str(storage),
        "loader_processes": 0,
        "checkpoint_every": 4,
        "checkpoints_kept": 2,
        "max_failures": 3,
        "progress_seconds": 10.0,
    }
    return Cluster.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with cluster.session(settings(tmp_path_factory.mktemp("ray"))):
        yield


def plain(spec: RunSpec, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the same training without Ray."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        session = Session(spec, device=torch.device("cpu"))
        for _ in session.trainer.advance(spec.training.iterations):
            pass
        session.trainer.finish()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    session.save_model(folder)
    return load_file(folder / WEIGHTS)


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.usefixtures("ray_here")
def test_one_worker_ends_in_the_plain_loops_bits(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec, curves = make_spec(), []
    with cluster.train(spec, settings(tmp_path / "checkpoints"), curves.append) as folder:
        trained = load_file(folder / WEIGHTS)
        network, card = load_network(folder)
        record = json.loads((folder / "train.json").read_text())
    assert_same_bits(trained, plain(spec, tmp_path))
    assert (card.network, len(card.class_names), network.training) == ("resnet8", 10, False)
    assert [point["iteration"] for point in curves[-1]] == [2, 4, 6, 8, 10, 12]
    assert record["iterations"] == 12
    assert record["test_error"] == curves[-1][-1]["test_error"]
    assert cluster.has_checkpoint(spec, settings(tmp_path / "checkpoints"))
    cluster.forget_checkpoints(spec, settings(tmp_path / "checkpoints"))
    assert not cluster.has_checkpoint(spec, settings(tmp_path / "checkpoints"))


@pytest.mark.usefixtures("ray_here")
def test_this_process_keeps_its_logging(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("pipeline.tracking").warning("shown")
    assert caplog.messages == ["shown"]


@pytest.mark.usefixtures("ray_here")
def test_two_workers_share_the_batch(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec, curves = make_spec(), []
    with cluster.train(spec, settings(tmp_path / "checkpoints", workers=2), curves.append) as folder:
        trained = load_file(folder / WEIGHTS)
        assert json.loads((folder / "train.json").read_text())["workers"] == 2
    alone = plain(spec, tmp_path)
    for name, tensor in alone.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.usefixtures("ray_here")
def test_a_killed_worker_is_replaced_and_the_bits_are_the_same(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = make_spec(iterations=400, schedule={"kind": "steps", "milestones": [300], "factor": 0.1})
    curves: list[list[dict[str, float]]] = []
    killed: list[int] = []

    def kill_once() -> None:
        while not curves:
            time.sleep(0.05)
        workers = [p for p in psutil.process_iter(["name", "cmdline"]) if "RayTrainWorker" in str(p.info["cmdline"])]
        mine = [p for p in workers if psutil.Process().pid in {parent.pid for parent in p.parents()}]
        killed.extend(p.pid for p in mine)
        for process in mine:
            os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_once, daemon=True)
    killer.start()
    with cluster.train(spec, settings(tmp_path / "checkpoints", checkpoint_every=50), curves.append) as folder:
        trained = load_file(folder / WEIGHTS)
        curve = [point["iteration"] for point in curves[-1]]
    assert killed
    assert curve == list(range(2, 401, 2))
    assert_same_bits(trained, plain(spec, tmp_path))


@pytest.mark.usefixtures("ray_here")
def test_an_error_in_training_is_told(make_spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    spec = make_spec(bn_images=32)
    with (
        pytest.raises(RuntimeError, match=r"cluster\.workers: 2 cannot share training\.batch_size 32"),
        cluster.train(spec, settings(tmp_path, workers=2, max_failures=0), lambda rows: None),
    ):
        pytest.fail("one part cannot be shared by two workers")


@pytest.mark.usefixtures("ray_here")
def test_damaged_checkpoints_are_passed_over(
    make_spec: Callable[..., RunSpec], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec, where = make_spec(), settings(tmp_path / "checkpoints")
    with cluster.train(spec, where, lambda rows: None) as folder:
        undisturbed = load_file(folder / WEIGHTS)
    newest = sorted((tmp_path / "checkpoints").glob("*/checkpoint_*/state.safetensors"))[-1]
    os.truncate(newest, 1000)
    capfd.readouterr()
    with cluster.train(spec, where, lambda rows: None) as folder:
        assert_same_bits(load_file(folder / WEIGHTS), undisturbed)
    assert wait_for_words(capfd, "passed over").count("checkpoint passed over, as it is damaged") == 1
    for values in (tmp_path / "checkpoints").glob("*/checkpoint_*/state.json"):
        values.unlink()
    with cluster.train(spec, where, lambda rows: None) as folder:
        assert_same_bits(load_file(folder / WEIGHTS), undisturbed)
    assert "no sound checkpoint is left; training begins anew" in wait_for_words(capfd, "begins anew")


def wait_for_words(capfd: pytest.CaptureFixture[str], words: str, seconds: float = 20.0) -> str:
    """What workers print comes by way of Ray, a little later."""
    text, deadline = "", time.monotonic() + seconds
    while words not in text and time.monotonic() < deadline:
        time.sleep(0.1)
        text += "".join(capfd.readouterr())
    return text


@pytest.mark.usefixtures("ray_here")
def test_more_workers_than_the_cluster_could_hold_are_refused(
    make_spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity.require_room, "__defaults__", (1.0,))
    wanted = settings(tmp_path, workers=2, cpus_per_worker=4096)
    with (
        pytest.raises(ValueError, match=r"cluster\.workers: 2 of 4096 CPU each do not fit .* 1 node \(\d+ CPU\)"),
        cluster.train(make_spec(), wanted, lambda rows: None),
    ):
        pytest.fail("no machine has so many cores")
