"""The store: made whole by one process at a time, never migrated silently."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import alembic.command
import mlflow
import pytest
from alembic.config import Config
from botocore.exceptions import EndpointConnectionError
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import create_engine

from pipeline.storage import sha256_file
from pipeline.tracking import store
from tests.tracking.forks import at_once


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
    store.initialise(None, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert store.initialise(None, tmp_path) == "http://127.0.0.1:9", "though chosen here before"


def test_a_relative_address_from_the_environment_is_the_user_s_word_every_time(
    tmp_path: Path, fresh_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own.db", store.DATABASE):
        (tmp_path / name).write_bytes(fresh_database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    assert [store.initialise() for _ in range(3)] == [f"sqlite:///{tmp_path}/own.db"] * 3
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/own.db"


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "locked" / f"{store.DATABASE}.lock").mkdir(parents=True)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / store.DATABASE).write_text("no database, though it has a few words of content " * 20)
    for name, reason in (("file", "File exists"), ("locked", "directory"), ("text", "file is not a database")):
        with pytest.raises(ValueError, match=rf"^MLflow at sqlite:///{tmp_path}/{name}/mlflow.db: .*{reason}.*$"):
            store.initialise(None, tmp_path / name)
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/{name}/mlflow.db", "for whoever tries again"


def test_s3_that_is_away_is_one_line(tracking: str) -> None:
    message = rf'^MLflow at {tracking}: Could not connect to the endpoint URL: "http://127.0.0.1:9"$'
    with pytest.raises(ValueError, match=message), store.answered():
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


def test_locks_for_servers_are_this_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / ".mlflow-digits.lock").mkdir()  # as unusable as another user's file
    for uri in ("http://127.0.0.1:8", "http://127.0.0.1:9"):
        store.initialise(uri, tmp_path)
        with store.exclusive("digits"):
            pass
    (folder,) = tmp_path.glob(f"mlflow-locks-{os.getuid()}")
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "locked"))
    (tmp_path / "locked" / folder.name).write_text("in the way")
    with pytest.raises(ValueError, match=r"^MLflow at http://127.0.0.1:9: .*File exists"), store.exclusive("digits"):
        pass


@pytest.mark.slow
def test_a_database_of_an_older_mlflow_is_left_alone_until_the_advised_command_upgrades_it(tmp_path: Path) -> None:
    database, older = tmp_path / store.DATABASE, "acf3f17fdcc7"  # of MLflow 2, in 2023
    made_by_migrations(database, older)
    with sqlite3.connect(database) as connection:
        names = "experiment_id, name, artifact_location, lifecycle_stage"
        connection.execute(f"INSERT INTO experiments ({names}) VALUES (7, 'grown', 'file:///nowhere', 'active')")
    before = sha256_file(database)
    with pytest.raises(ValueError, match=rf"older MLflow \(schema {older}, expected \w+\); not touched") as caught:
        store.initialise(None, tmp_path)
    assert sha256_file(database) == before
    (advised,) = re.findall(
        r"Back it up, stop whatever uses it, then run: (mlflow db upgrade '.*')$", str(caught.value)
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", advised], env=environment, check=True, capture_output=True, timeout=600)
    store.initialise(None, tmp_path)
    assert store.experiment_id("grown") == "7"


def made_by_migrations(database: Path, revision: str) -> None:
    """A database of an earlier schema, by MLflow's own migrations."""
    engine = create_engine(f"sqlite:///{database}")
    InitialBase.metadata.create_all(engine)
    config = Config()
    config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
    engine.dispose()


def test_a_database_of_a_newer_schema_is_refused(tracking: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    store._prepared.clear()
    with pytest.raises(ValueError, match=r"newer MLflow.*ffffffffffff.*Install the MLflow that wrote it"):
        store.initialise(None, tmp_path)


FIRST_USE = """
import pathlib
from pipeline.tracking import store

def work(folder):
    store.initialise(None, pathlib.Path(folder))
    print(store.experiment_id('digits'))
"""


@pytest.mark.slow
def test_first_use_by_four_processes_at_once(tmp_path: Path) -> None:
    assert at_once(FIRST_USE, [str(tmp_path)] * 4) == ["1"] * 4


@pytest.mark.slow
def test_a_database_half_made_when_its_process_was_killed_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".mlflow.db.partial").write_bytes(b"")
    with sqlite3.connect(tmp_path / ".mlflow.db.partial") as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    store.initialise(None, tmp_path)
    assert store.experiment_id("digits") == "1"
    assert not (tmp_path / ".mlflow.db.partial").exists()
