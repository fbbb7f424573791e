"""Ray Train's controller in the driver: what it asks of the workers, and what it sets up for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from ray.train.v2._internal.execution.worker_group import WorkerStatus
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

from pipeline import cluster
from pipeline.cluster import controller
from pipeline.cluster.controller import SECONDS_OF_A_LOOK, DriverTrainer, PatientRayTrainWorker, ProcessGroup
from tests.cluster.conftest import small_params


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, which only sleep moves."""
    now = [100.0]
    monkeypatch.setattr(controller.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(controller.time, "sleep", lambda wait: now.__setitem__(0, now[0] + wait))
    return now


def status(running: bool, error: Exception | None = None) -> WorkerStatus:
    return WorkerStatus(running=running, error=error)


def answers(monkeypatch: pytest.MonkeyPatch, found: Iterator[WorkerStatus]) -> WorkerStatus:
    monkeypatch.setattr(RayTrainWorker, "poll_status", lambda self: next(found))
    return PatientRayTrainWorker().poll_status()


@pytest.mark.parametrize("last", [status(False), status(False, ValueError("x")), status(True, ValueError("x"))])
def test_a_worker_tells_at_once_that_its_training_is_over(
    last: WorkerStatus, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers(monkeypatch, iter([status(True), status(True), last])) is last
    assert 0 < seconds[0] - 100.0 <= 0.5


def test_a_worker_that_trains_says_so_after_a_while(seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(monkeypatch, iter([status(True)] * 100)).running
    assert seconds[0] - 100.0 == pytest.approx(SECONDS_OF_A_LOOK, abs=0.3)


def test_a_worker_glances_seldom_at_a_training_that_has_taken_long(
    seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    glances: list[float] = []

    def training(worker: RayTrainWorker) -> WorkerStatus:
        glances.append(seconds[0])
        return status(True)

    monkeypatch.setattr(RayTrainWorker, "poll_status", training)
    worker = PatientRayTrainWorker()
    seconds[0] += 90.0
    assert worker.poll_status().running
    assert glances == [190.0, 192.0]


def note_group(config: dict[str, Any]) -> None:
    """Train nothing; tell how many workers there are by torch's process group, or that there is none."""
    Path(config["file"]).write_text(str(dist.get_world_size()) if dist.is_initialized() else "none", encoding="utf-8")


@pytest.mark.slow
def test_workers_meet_in_a_process_group_and_one_alone_has_none(tmp_path: Path) -> None:
    from ray.train import RunConfig
    from ray.train.v2.api.config import ScalingConfig

    found = []
    with cluster.session(small_params().cluster):
        for workers in (1, 2):
            trainer = DriverTrainer(
                note_group,
                train_loop_config={"file": str(tmp_path / "group")},
                torch_config=ProcessGroup(),
                scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
                run_config=RunConfig(name="group", storage_path=str(tmp_path / str(workers))),
            )
            trainer.fit()
            found.append((tmp_path / "group").read_text(encoding="utf-8"))
    assert found == ["none", "2"]
