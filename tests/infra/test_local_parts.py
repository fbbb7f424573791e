"""The ports of the one-machine cluster, between its commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local_parts import LocalCluster
from infra.processes import StartError

BEFORE = {"s3": 8001, "mlflow": 8002, "ray": 8003, "dashboard": 8004}
NONE = dict.fromkeys(BEFORE, 0)


def cluster(folder: Path, *running: str) -> LocalCluster:
    alive = {"pid": os.getpid(), "created": psutil.Process().create_time()}
    dead = {"pid": os.getpid(), "created": 0.0}
    records: dict[str, Any] = {name: alive if name in running else dead for name in ("s3", "mlflow", "ray-head")}
    return LocalCluster(folder, {"ports": BEFORE, "cpus": 1, "processes": records})


def test_a_port_asked_for_wins_over_the_one_before_unless_it_is_known_to_a_running_part(tmp_path: Path) -> None:
    assert cluster(tmp_path)._choose_ports(NONE) == BEFORE
    assert cluster(tmp_path)._choose_ports({**NONE, "s3": 9000}) == {**BEFORE, "s3": 9000}
    assert cluster(tmp_path, "s3")._choose_ports({**NONE, "mlflow": 9000}) == {**BEFORE, "mlflow": 9000}
    assert cluster(tmp_path, "s3")._choose_ports({**NONE, "s3": 8001}) == BEFORE
    with pytest.raises(StartError, match=r"--s3-port 9000: mlflow run with 8001; `make cluster-down` first"):
        cluster(tmp_path, "mlflow")._choose_ports({**NONE, "s3": 9000})


def test_a_part_that_lives_and_does_not_answer_is_not_said_to(tmp_path: Path) -> None:
    (tmp_path / "ray-token").write_text("token", encoding="utf-8")
    there = cluster(tmp_path, "s3", "mlflow")
    assert there.running() == {"s3": True, "mlflow": True, "ray-head": False}
    assert there.answering() == {"s3": False, "mlflow": False, "ray-head": False}
