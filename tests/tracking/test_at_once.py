"""Eight trainings log at once, from as many processes, on SQLite and on PostgreSQL: no metric is lost."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from pipeline.tracking import store
from tests.postgres_server import PostgresServer, programs
from tests.tracking.forks import at_once
from tests.tracking.test_runs import all_runs, begin, history, rows

pytestmark = pytest.mark.slow

TRAIN = """
from pipeline.tracking import store
from pipeline.tracking.runs import TrainingRun

def work(seed):
    store.initialise()
    training = TrainingRun.start_or_continue('digits', f'resnet20-s{seed}', 'abc', {'a': 1}, {})
    for i in range(1, 61):
        training.log_curves([{'iteration': i, 'training_loss': i / 2, 'learning_rate': 0.1}])
    assert training.finish(limit=200)
"""


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server's first database, in which nothing is kept."""
    if programs() is None:
        pytest.skip("no PostgreSQL server: the Debian package postgresql is not installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL client: the package psycopg is not installed")
    server = PostgresServer()
    try:
        server.start()
        yield server.uri
    finally:
        server.stop()


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The address of an empty PostgreSQL database, the test's own."""
    name = f"test_{secrets.token_hex(4)}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{postgres_server.rpartition('/')[0]}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that nobody has used yet."""
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/mlflow.db"
    found: str = request.getfixturevalue("postgres")
    return found


def test_eight_trainings_at_once_lose_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(TRAIN, [str(seed) for seed in range(8)], address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store.initialise()
    found = all_runs()
    assert sorted(run.data.tags["seed"] for run in found) == [str(seed) for seed in range(8)]
    for run in found:
        assert history(run.info.run_id, "training/loss") == {i: i / 2 for i in range(1, 61)}
        assert run.info.status == "FINISHED"


def test_without_a_root_for_artifacts_a_postgresql_database_is_left_empty(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    store.initialise()
    with pytest.raises(ValueError, match=r"^postgresql://.*: set MLFLOW_DEFAULT_ARTIFACT_ROOT to where") as caught:
        store.client()
    assert postgres.split(":")[2].split("@")[0] not in str(caught.value), "no password in the message"
    assert store._schema(postgres) is None


def test_a_postgresql_database_of_an_older_mlflow_is_refused(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    store.initialise()
    training = begin("of PostgreSQL")
    training.log_curves(rows(50, 100))
    assert training.finish(limit=60)
    older = next(script for script in store._scripts().walk_revisions() if not script.is_head).revision
    engine = create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{older}'"))
    engine.dispose()
    store._prepared.clear()
    with pytest.raises(ValueError, match=rf"older MLflow \(schema {older}.*mlflow db upgrade 'postgresql:") as caught:
        store.client()
    assert postgres.split(":")[2].split("@")[0] not in str(caught.value), "no password in the message"
