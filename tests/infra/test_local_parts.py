"""The one-machine cluster between its commands: its ports, nodes and database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import processes
from infra.local_parts import BACKEND, LocalCluster
from infra.processes import StartError

BEFORE = {"s3": 8001, "mlflow": 8002, "ray": 8003, "dashboard": 8004}
NONE = dict.fromkeys(BEFORE, 0)


def cluster(folder: Path, *running: str, parts: Sequence[str] = ("s3", "mlflow", "ray-head")) -> LocalCluster:
    alive = {"pid": os.getpid(), "created": processes.created(os.getpid())}
    dead = {"pid": os.getpid(), "created": ""}
    records: dict[str, Any] = {name: alive if name in running else dead for name in parts}
    return LocalCluster(folder, {"ports": BEFORE, "cpus": 1, "processes": records})


def test_a_port_asked_for_wins_over_the_one_before_unless_it_is_known_to_a_running_part(tmp_path: Path) -> None:
    assert cluster(tmp_path)._choose_ports(NONE) == BEFORE
    assert cluster(tmp_path)._choose_ports({**NONE, "s3": 9000}) == {**BEFORE, "s3": 9000}
    assert cluster(tmp_path, "s3")._choose_ports({**NONE, "mlflow": 9000}) == {**BEFORE, "mlflow": 9000}
    assert cluster(tmp_path, "s3")._choose_ports({**NONE, "s3": 8001}) == BEFORE
    with pytest.raises(StartError, match=r"--s3-port 9000: mlflow run with 8001; `make cluster-down` first"):
        cluster(tmp_path, "mlflow")._choose_ports({**NONE, "s3": 9000})


def with_nodes(folder: Path, running: int, dead: int) -> LocalCluster:
    names = [f"ray-node-{number}" for number in range(1, running + dead + 1)]
    return cluster(folder, *names[:running], parts=("s3", "mlflow", "ray-head", *names))


def test_nodes_are_as_before_unless_others_are_asked_for(tmp_path: Path) -> None:
    assert LocalCluster(tmp_path, {})._choose_nodes(None, None) == (2, 1)
    assert LocalCluster(tmp_path, {})._choose_nodes(4, 3) == (4, 3)
    assert with_nodes(tmp_path, 3, 0)._choose_nodes(None, None) == (3, 1)
    assert with_nodes(tmp_path, 1, 1)._choose_nodes(4, 1) == (4, 1)
    assert with_nodes(tmp_path, 1, 1)._choose_nodes(1, None) == (1, 1), "the dead one is forgotten"
    with pytest.raises(StartError, match=r"ray-node-1, ray-node-2 of 1 CPU run, where 1 of 1 is asked for; `make"):
        with_nodes(tmp_path, 2, 0)._choose_nodes(1, None)
    with pytest.raises(StartError, match="ray-node-1 of 1 CPU runs, where 2 of 4 are asked for"):
        with_nodes(tmp_path, 1, 1)._choose_nodes(None, 4)
    names = ["ray-node-1", "ray-node-2", "ray-node-3"]
    with pytest.raises(StartError, match="ray-node-2, ray-node-3 of 1 CPU run, where 2 of 1 are asked for"):
        cluster(tmp_path, *names[1:], parts=("s3", "mlflow", "ray-head", *names))._choose_nodes(2, None)


def test_mlflow_keeps_its_database_until_the_cluster_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BACKEND, raising=False)
    assert LocalCluster(tmp_path, {})._choose_backend() == f"sqlite:///{tmp_path}/mlflow.db"
    started = LocalCluster(tmp_path, {"backend": "postgresql://here"})
    assert started._choose_backend() == "postgresql://here", "in a shell that does not name it"
    monkeypatch.setenv(BACKEND, "postgresql://there")
    assert LocalCluster(tmp_path, {})._choose_backend() == "postgresql://there"
    with pytest.raises(StartError, match="names another database than MLflow has"):
        started._choose_backend()


def test_a_part_that_lives_and_does_not_answer_is_not_said_to(tmp_path: Path) -> None:
    (tmp_path / "ray-token").write_text("token", encoding="utf-8")
    there = cluster(tmp_path, "s3", "mlflow")
    assert there.running() == {"s3": True, "mlflow": True, "ray-head": False}
    assert there.answering() == {"s3": False, "mlflow": False, "ray-head": False}
