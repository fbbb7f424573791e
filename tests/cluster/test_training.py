"""Training with Ray Train: the numbers of the plain loop, on one worker or two, and through a worker's death."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline import cluster
from pipeline.cluster import training, waiting
from pipeline.cluster.checkpoints import store_of
from pipeline.cluster.letters import CURVE, KEPT, STOP, Letters, curves_received
from pipeline.cluster_section import Cluster
from pipeline.models.saved import WEIGHTS, load_network
from pipeline.storage import Retry
from pipeline.training.session import RunSpec, Session
from tests.e2e.clone import wait_for
from tests.training_workers import training_workers

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
        "joining_seconds": 1.0,
        "resize_seconds": 60.0,
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


def workers_here() -> list[psutil.Process]:
    """The processes of the workers that train for this one."""
    return training_workers(lambda process: os.getpid() in {parent.pid for parent in process.parents()})


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
def test_weights_that_are_none_any_more_take_no_checkpoints_place(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    optimizer = {**make_spec().training.optimizer.model_dump(), "learning_rate": 1e30}
    spec, where = make_spec(optimizer=optimizer, curve_every=12, test_every=12), settings(tmp_path / "checkpoints")
    with (
        pytest.raises(ValueError, match=r"the weights are not finite by iteration \d+: lower training\.optimizer"),
        cluster.train(spec, where, lambda rows: None),
    ):
        pass
    assert not cluster.has_checkpoint(spec, where)


def test_workers_wait_for_each_other_for_longer_than_checkpoints_are_waited_for(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    patient = settings(tmp_path / "checkpoints", checkpoint_patience_seconds=1800.0)
    trainer = training._trainer(make_spec(), patient, [1], Letters("of nobody"), str(tmp_path))
    assert trainer.backend_config.timeout_s == 1800 + 600


@pytest.mark.parametrize(("bound", "ended"), [(0.0, False), (100.0, True), (None, None)])
def test_the_record_tells_whether_the_warm_up_ended(
    make_spec: Callable[..., RunSpec], tmp_path: Path, bound: float | None, ended: bool | None
) -> None:
    warmup = None if bound is None else {"learning_rate": 0.001, "until_training_error": bound}
    plain(make_spec(warmup=warmup), tmp_path)
    assert json.loads((tmp_path / "train.json").read_text())["warmup_ended"] is ended


def test_a_finished_training_whose_last_checkpoint_is_gone_says_so(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = make_spec()
    store = store_of(spec, settings(tmp_path / "checkpoints"))
    with pytest.raises(RuntimeError, match=f"resnet8-s0: .* iteration 12 is no longer in {re.escape(store.url)}: .*"):
        training._last(spec, store, Retry(attempts=1))
    (tmp_path / "made").mkdir()
    store.put(tmp_path / "made", 12)
    assert training._last(spec, store, Retry(attempts=1)) == 12


@pytest.mark.usefixtures("ray_here")
def test_a_fixed_number_of_workers_needs_no_coordinator_of_requests_and_each_has_one_arena(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = make_spec(iterations=100, schedule={"kind": "steps", "milestones": [50], "factor": 0.1}, test_every=100)
    arenas: list[str | None] = []
    meeting: list[str] = []

    def look(rows: object) -> None:
        arenas.extend(process.environ().get("MALLOC_ARENA_MAX") for process in workers_here())
        names = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
        meeting.extend(name for name in names if "SynchronizationActor" in name)

    with cluster.train(spec, settings(tmp_path / "checkpoints"), look):
        pass
    assert meeting == []
    assert arenas, "no curve came while the worker was there"
    assert set(arenas) == {"1"}
    import ray

    with pytest.raises(ValueError, match="AutoscalingCoordinator"):
        ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_what_is_done_meanwhile_ends_the_training(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = make_spec(iterations=100_000, schedule={"kind": "steps", "milestones": [50], "factor": 0.1}, test_every=100)
    curves: list[list[dict[str, float]]] = []

    def fail_later() -> None:
        if curves:
            raise OSError("no space left")

    where = settings(tmp_path / "checkpoints")
    with pytest.raises(OSError, match="no space left"), cluster.train(spec, where, curves.append, fail_later):
        pass
    wait_for(lambda: not workers_here(), 200)


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
def test_a_worker_that_is_told_to_end_keeps_a_checkpoint_and_is_replaced(
    make_spec: Callable[..., RunSpec], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec(iterations=200, schedule={"kind": "steps", "milestones": [150], "factor": 0.1})
    curves: list[list[dict[str, float]]] = []
    told: list[int] = []

    def tell_once() -> None:
        while not curves:
            time.sleep(0.05)
        mine = workers_here()
        told.extend(p.pid for p in mine)
        for process in mine:
            os.kill(process.pid, signal.SIGTERM)

    threading.Thread(target=tell_once, daemon=True).start()
    where = settings(tmp_path / "checkpoints", checkpoint_every=20, checkpoints_kept=100)
    with cluster.train(spec, where, curves.append) as folder:
        trained = load_file(folder / WEIGHTS)
        curve = [point["iteration"] for point in curves[-1]]
    assert told
    assert curve == list(range(2, 201, 2))
    assert_same_bits(trained, plain(spec, tmp_path))
    words = wait_for_words(capfd, "was sent SIGTERM")
    found = re.search(r"a worker was sent SIGTERM: the checkpoint of iteration (\d+) is kept", words)
    assert found, words
    assert int(found[1]) in store_of(spec, where).iterations()


@pytest.mark.usefixtures("ray_here")
def test_letters_of_a_training_are_its_own_and_go_with_it() -> None:
    with Letters("one") as mine, Letters("other") as other:
        assert mine.look(CURVE) is None
        received: list[list[dict[str, object]]] = []
        with curves_received(mine, received.append):
            mine.leave(CURVE, [{"iteration": 1}])
            mine.leave(KEPT, 1)
            deadline = time.monotonic() + 400
            while not received and time.monotonic() < deadline:
                time.sleep(0.05)
            assert received == [[{"iteration": 1}]]
            mine.leave(CURVE, [{"iteration": 1}, {"iteration": 2}])
            mine.leave(KEPT, 2)
        assert received[1:] == [[{"iteration": 1}, {"iteration": 2}]]
        assert other.look(CURVE) is None
        assert mine.look_at(KEPT, CURVE, STOP) == (2, [{"iteration": 1}, {"iteration": 2}], None)
        mine.leave(KEPT, None)
        assert mine.look_at(KEPT, STOP) == (None, None)
    assert mine.look(CURVE) is None


@pytest.mark.usefixtures("ray_here")
def test_a_worker_whose_data_differ_refuses_and_is_not_tried_again(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    spec = replace(make_spec(), data_digest="0" * 64)
    with (
        pytest.raises(ValueError, match=r"on \S+ the image store's digest is [0-9a-f]{64}, not 0{64}"),
        cluster.train(spec, settings(tmp_path, max_failures=1000), lambda rows: None),
    ):
        pytest.fail("these are other images")


def test_workers_that_cannot_share_the_batch_are_refused_before_ray_starts(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    with (
        pytest.raises(ValueError, match=r"cluster\.workers: 3 cannot share .* 32 in parts of .* 16; what can: 1, 2$"),
        cluster.train(make_spec(), settings(tmp_path, workers=3), lambda rows: None),
    ):
        pytest.fail("two parts cannot be shared by three workers")


@pytest.mark.usefixtures("ray_here")
def test_damaged_checkpoints_are_passed_over(
    make_spec: Callable[..., RunSpec], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec, where = make_spec(), settings(tmp_path / "checkpoints")
    with cluster.train(spec, where, lambda rows: None) as folder:
        undisturbed = load_file(folder / WEIGHTS)
    newest = sorted((tmp_path / "checkpoints").glob("*/iteration-*/state.safetensors"))[-1]
    os.truncate(newest, 1000)
    capfd.readouterr()
    with cluster.train(spec, where, lambda rows: None) as folder:
        assert_same_bits(load_file(folder / WEIGHTS), undisturbed)
    assert wait_for_words(capfd, "passed over").count("passed over, as it is damaged") == 1
    for values in (tmp_path / "checkpoints").glob("*/iteration-*/state.json"):
        values.unlink()
    with cluster.train(spec, where, lambda rows: None) as folder:
        assert_same_bits(load_file(folder / WEIGHTS), undisturbed)
    assert "no sound checkpoint is left; training begins anew" in wait_for_words(capfd, "begins anew")


def wait_for_words(capfd: pytest.CaptureFixture[str], words: str, seconds: float = 200.0) -> str:
    """What workers print comes by way of Ray, a little later."""
    text, deadline = "", time.monotonic() + seconds
    while words not in text and time.monotonic() < deadline:
        time.sleep(0.1)
        text += "".join(capfd.readouterr())
    return text


@pytest.mark.usefixtures("ray_here")
def test_more_workers_than_the_cluster_could_hold_are_refused(
    make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    wanted = settings(tmp_path, workers=2, cpus_per_worker=4096)
    with (
        pytest.raises(ValueError, match=r"cluster\.workers: 2 of 4096 CPU each do not fit .* 1 node \(\d+ CPU\)"),
        cluster.train(make_spec(), wanted, lambda rows: None),
    ):
        pytest.fail("no machine has so many cores")


@pytest.mark.usefixtures("ray_here")
def test_a_worker_gets_no_more_cores_than_a_node_of_the_cluster_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_node = cluster.cores()
    monkeypatch.setenv("RESNET_CORES", str(4 * on_a_node))
    assert cluster.threads_of(settings(tmp_path, cpus_per_worker=None)) == on_a_node
    assert cluster.threads_of(settings(tmp_path, cpus_per_worker=None, workers=4 * on_a_node)) == 1
    assert cluster.threads_of(settings(tmp_path, cpus_per_worker=3 * on_a_node)) == 3 * on_a_node


def wait_for_free_cores() -> dict[str, float]:
    """Until a former training's places are given back; all cores, as Ray counts them."""
    all_cores = {"CPU": float(cluster.cores())}
    deadline = time.monotonic() + 400
    while waiting.obstacle(1, all_cores) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert waiting.obstacle(1, all_cores) is None
    return all_cores


@pytest.mark.usefixtures("ray_here")
def test_workers_that_start_slowly_are_not_said_to_wait_for_others(
    make_spec: Callable[..., RunSpec],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, obstacle = [], waiting.obstacle

    def recorded(workers: int, each: Mapping[str, float]) -> str | None:
        looks.append(obstacle(workers, each))
        return looks[-1]

    wait_for_free_cores()
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "obstacle", recorded)
    all_cores = settings(tmp_path / "checkpoints", cpus_per_worker=cluster.cores())
    with cluster.train(make_spec(), all_cores, lambda rows: None):
        pass
    assert "waiting for a worker of" in str(looks), "its own workers occupy what they need"
    assert "waiting for" not in capfd.readouterr().out


@pytest.mark.usefixtures("ray_here")
def test_workers_say_that_others_occupy_what_they_need_and_begin_when_it_is_free(
    make_spec: Callable[..., RunSpec],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.5)
    all_cores = wait_for_free_cores()
    others = placement_group([all_cores])
    assert others.wait(60)
    told: list[str] = []

    def give_way() -> None:
        told.append(wait_for_words(capfd, "waiting for"))
        remove_placement_group(others)

    thread = threading.Thread(target=give_way)
    thread.start()
    with cluster.train(make_spec(), settings(tmp_path / "checkpoints"), lambda rows: None) as folder:
        assert json.loads((folder / "train.json").read_text())["iterations"] == 12
    thread.join()
    assert "resnet8-s0  waiting for a worker of 1 CPU; others occupy it\n" in told[0]
    assert waiting.obstacle(2, {"CPU": 4096}) == "waiting for 2 workers of 4096 CPU each; the cluster has room for 0"
