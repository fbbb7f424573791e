"""Eight trainings log at once, from as many processes, on SQLite and on PostgreSQL: no metric is lost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.tracking import store
from tests.postgres_server import PostgresServer, programs
from tests.tracking.test_runs import all_runs, begin, history, rows

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
TRAIN = """
import sys
from pipeline.tracking import store
from pipeline.tracking.runs import TrainingRun
store.initialise()
training = TrainingRun.start_or_continue('digits', f'resnet20-s{sys.argv[1]}', 'abc', {'a': 1}, {})
for i in range(1, 61):
    training.log_curves([{'iteration': i, 'training_loss': i / 2, 'learning_rate': 0.1}])
sys.exit(0 if training.finish(limit=200) else 1)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
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


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that nobody has used yet."""
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/mlflow.db"
    found: str = request.getfixturevalue("postgres")
    return found


def test_eight_trainings_at_once_lose_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": address, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN]
    running = [subprocess.Popen([*command, str(seed)], cwd=REPOSITORY, env=environment) for seed in range(8)]
    assert [process.wait(timeout=280) for process in running] == [0] * 8
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store.initialise()
    found = all_runs()
    assert sorted(run.data.tags["seed"] for run in found) == [str(seed) for seed in range(8)]
    for run in found:
        assert history(run.info.run_id, "training/loss") == {i: i / 2 for i in range(1, 61)}
        assert run.info.status == "FINISHED"


def test_a_postgresql_database_of_an_older_mlflow_is_refused(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import create_engine, text

    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    store.initialise()
    training = begin("of PostgreSQL")
    training.log_curves(rows(50, 100))
    assert training.finish(limit=60)
    older = next(script for script in store._scripts().walk_revisions() if not script.is_head).revision
    engine = create_engine(postgres)
    with engine.begin() as connection:
        head = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{older}'"))
    store._prepared.clear()
    try:
        with pytest.raises(
            ValueError, match=rf"older MLflow \(schema {older}.*mlflow db upgrade 'postgresql:"
        ) as caught:
            store.client()
        assert postgres.split(":")[2].split("@")[0] not in str(caught.value), "no password in the message"
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{head}'"))
        engine.dispose()


KILLED = """
import sys, time
from pipeline.tracking import store
from pipeline.tracking.runs import TrainingRun
store.initialise()
training = TrainingRun.start_or_continue('digits', 'resnet20-s0', 'abc', {'a': 1}, {}, anew=sys.argv[1] == '1')
for i in range(int(sys.argv[1]), int(sys.argv[2])):
    training.log_curves([{'iteration': i, 'training_loss': i / 2, 'learning_rate': 0.1}])
    assert training._outbox.flush(100)
    print(i, flush=True)
sys.exit(0 if training.finish(limit=200) else 1)
"""


def test_a_training_killed_by_sigkill_goes_on_in_its_run_with_no_step_twice(
    tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        [*command, "1", "100000"], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        while int(first.stdout.readline()) < 20:
            pass
        first.kill()
    assert first.returncode == -9
    (killed,) = all_runs()
    last = max(history(killed.info.run_id, "training/loss"))
    assert killed.info.status == "RUNNING"
    again = [str(last - 8), str(last + 9)]  # from the checkpoint before, as a resumed training does
    subprocess.run([*command, *again], cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=280)
    (run,) = all_runs()
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    assert history(run.info.run_id, "training/loss") == {i: i / 2 for i in range(1, last + 9)}
