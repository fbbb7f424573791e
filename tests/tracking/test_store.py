"""The store: made whole by one process at a time, never migrated silently."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking import store

REPOSITORY = Path(__file__).parents[2]


def test_the_default_is_sqlite_beside_the_code(tracking: str, tmp_path: Path) -> None:
    assert tracking == f"sqlite:///{tmp_path}/mlflow.db" == mlflow.get_tracking_uri()
    location = store.client().get_experiment(store.experiment_id("digits")).artifact_location
    assert location == f"{tmp_path}/mlartifacts/digits"
    assert store.experiment_id("digits") == store.experiment_id("digits")


def test_the_environment_comes_first(tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.initialise("http://127.0.0.1:9", tmp_path) == "http://127.0.0.1:9"
    assert store.initialise(None, tmp_path) == tracking, "what initialise itself exported is not the user's word"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:8")
    assert store.initialise("http://127.0.0.1:9", tmp_path) == "http://127.0.0.1:8"


def test_a_database_of_an_older_schema_is_refused_and_left_alone(tracking: str, tmp_path: Path) -> None:
    database = tmp_path / "older" / "mlflow.db"
    database.parent.mkdir()
    older = next(script for script in store._scripts().walk_revisions() if not script.is_head).revision
    with sqlite3.connect(tmp_path / "mlflow.db") as source, sqlite3.connect(database) as target:
        source.backup(target)
        target.execute("UPDATE alembic_version SET version_num = ?", [older])
        target.execute("DROP TABLE metrics")
    with pytest.raises(ValueError, match=rf"older MLflow \(schema {older}.*mlflow db upgrade 'sqlite:///{database}'"):
        store.initialise(None, database.parent)
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]


def test_a_database_of_a_newer_schema_is_refused(tracking: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    store._prepared.clear()
    with pytest.raises(ValueError, match=r"newer MLflow.*ffffffffffff.*Install the MLflow that wrote it"):
        store.initialise(None, tmp_path)


@pytest.mark.slow
def test_first_use_by_four_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from pipeline.tracking import store;"
        "store.initialise(None, pathlib.Path(sys.argv[1])); print(store.experiment_id('digits'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    assert len({output for output, _ in outputs}) == 1


@pytest.mark.slow
def test_a_database_half_made_when_its_process_was_killed_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".mlflow.db.partial").write_bytes(b"")
    with sqlite3.connect(tmp_path / ".mlflow.db.partial") as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    store.initialise(None, tmp_path)
    assert store.experiment_id("digits") == "1"
    assert not (tmp_path / ".mlflow.db.partial").exists()
