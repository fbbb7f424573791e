"""Elastic training on a Ray of several nodes, of which one is lost and one is added."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline import cluster
from pipeline.cluster import ray_session
from pipeline.models.saved import WEIGHTS
from pipeline.training.session import RunSpec
from tests.cluster.test_training import plain, settings
from tests.e2e.clone import wait_for
from tests.training_workers import training_workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ITERATIONS = 700
MINE = "RESNET_TEST_OF"
"""In the environment of this test's processes."""


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray whose head computes nothing; nodes can be added and killed."""
    for name, value in {**ray_session.SETTINGS, MINE: str(os.getpid())}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "6")
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}  # a lost node is known in 5 s, not 15
    ray_session._require_token()
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
    )
    yield made
    made.shutdown()


def test_training_goes_on_with_the_nodes_that_are_left_and_takes_in_new_ones(
    nodes: Any, make_spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    kept, lost = nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)
    gentle = {**make_spec().training.optimizer.model_dump(), "learning_rate": 0.001}  # rounding does not grow
    schedule = {"kind": "steps", "milestones": [600], "factor": 0.1}
    spec, curves = make_spec(iterations=ITERATIONS, optimizer=gentle, schedule=schedule, test_every=ITERATIONS), []
    where = settings(
        tmp_path / "checkpoints", address=nodes.address, workers=[1, 2], checkpoint_every=50, resize_seconds=1.0
    )

    def train() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        with cluster.train(spec, where, curves.append) as folder:
            return load_file(folder / WEIGHTS), json.loads((folder / "train.json").read_text())

    with cluster.session(where), ThreadPoolExecutor() as pool:
        training, workers = pool.submit(train), []
        wait_for(lambda: curves)
        workers.append(busy(kept, lost))
        nodes.remove_node(lost, allow_graceful=False)
        seen = len(curves)
        wait_for(lambda: len(curves) > seen + 1)
        workers.append(busy(kept))
        with stopped_workers():  # training does not end meanwhile
            added = nodes.add_node(num_cpus=1)
        wait_for(lambda: busy(kept, added) == 2)
        workers.append(busy(kept, added))
        trained, record = training.result(200)
    assert workers == [2, 1, 2]
    assert (record["iterations"], record["workers"]) == (ITERATIONS, 2)
    kept_at = {points[-1]["iteration"] for points in curves}
    assert [iteration for iteration in kept_at if iteration % 50], "a checkpoint before the second worker was started"
    assert [point["iteration"] for point in curves[-1]] == list(range(2, ITERATIONS + 1, 2))
    alone = plain(spec, tmp_path)
    for name, tensor in alone.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-3, msg=name)


@contextlib.contextmanager
def stopped_workers() -> Iterator[None]:
    """Training stands still for the length of the block."""
    (mine,) = training_workers(lambda process: process.environ().get(MINE) == str(os.getpid()))
    mine.suspend()
    try:
        yield
    finally:
        mine.resume()


def busy(*nodes: Any) -> int:
    """How many of the nodes train."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return sum(free.get(node.node_id, {"CPU": 1.0}).get("CPU", 0.0) == 0.0 for node in nodes)
