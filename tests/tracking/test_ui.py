"""The pages of the store at hand, on loopback, with a view of the errors."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.tracking import evaluations, store, ui
from tests.tracking.factory import METRICS
from tests.tracking.test_evaluations import trained

REPOSITORY = Path(__file__).parents[2]


def test_a_server_needs_none(tracking: str) -> None:
    with pytest.raises(ValueError, match="is a server; open it in a browser"):
        ui.command("http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        (None, "http://127.0.0.1:5000/#/runs/0a1b"),
        ("sqlite:////somewhere/mlflow.db", "http://127.0.0.1:5000/#/runs/0a1b"),
        ("postgresql://me:secret@db/mlflow", "http://127.0.0.1:5000/#/runs/0a1b"),
        ("http://127.0.0.1:5013", "http://127.0.0.1:5013/#/runs/0a1b"),
        ("https://me:secret@mlflow.example:8443/prefix/?token=x", "https://mlflow.example:8443/prefix/#/runs/0a1b"),
    ],
)
def test_a_runs_page_is_on_the_server_or_where_it_would_be_shown(
    uri: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ui.run_page("0a1b") == address


def test_an_experiment_gets_a_view_of_its_errors_lowest_first(tracking: str) -> None:
    store.experiment_id("empty")
    run_id = trained("resnet20-s0")
    metrics = {**METRICS, "multi_scale_scores": METRICS["center_crop"]}
    evaluations.log_evaluation("digits", "resnet20-s0", run_id, metrics, iterations=600)
    twice = [ui.prepare_views("http://127.0.0.1:5000") for _ in range(2)]
    address = twice[0]["digits"]
    assert twice[0] == twice[1] == {"digits": address}
    number = store.experiment_id("digits")
    assert address == f"http://127.0.0.1:5000/#/experiments/{number}/runs?viewStateShareKey=errors"
    experiment = store.client().get_experiment(number)
    view = json.loads(experiment.tags["mlflow.sharedViewState.errors"])
    assert view["orderByKey"] == "metrics.`test/center_crop/top1_error`"
    assert view["orderByAsc"] is True
    assert view["selectedColumns"][:2] == ["metrics.`test/center_crop/top1_error`", "metrics.`holdout/top1_error`"]
    assert not any("multi_scale_scores" in column for column in view["selectedColumns"]), "but one column a protocol"
    found = store.client().search_runs([number], view["searchFilter"], order_by=[f"{view['orderByKey']} ASC"])
    assert [run.info.run_id for run in found] == [run_id], "the pages' filter and order are ones that MLflow takes"


def test_a_database_of_another_schema_is_one_message(
    tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    monkeypatch.chdir(tmp_path)
    store._prepared.clear()
    assert ui.main([]) == 2
    assert "was written by a newer MLflow" in capsys.readouterr().err


@pytest.mark.slow
def test_the_pages_show_the_store_at_hand(tracking: str, tmp_path: Path) -> None:
    trained("resnet20-s0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking}
    command = [sys.executable, "-m", "pipeline.tracking.ui", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True)
    try:
        assert "digits" in [each["name"] for each in _experiments(port, process)]
        family = psutil.Process(process.pid).children(recursive=True)
        words = [word for child in family for word in child.cmdline()]
        process.terminate()
        assert process.wait(30) == 143
        assert family
        assert not [word for word in words if tracking in word], "a database's address may hold a password"
        assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _experiments(port: int, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=10"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                found: list[dict[str, Any]] = json.load(response)["experiments"]
                return found
        except OSError:
            time.sleep(0.3)
    raise RuntimeError("the pages did not come up")
