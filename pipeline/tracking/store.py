"""Where runs and models are kept: SQLite beside the code by default, any MLflow server or database on request."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import requests
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline.tracking.secrets import hide

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_SQLITE = "sqlite:///"
_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_VARIABLE = "MLFLOW_TRACKING_URI"
_prepared: set[str] = set()
_chosen_here: set[str] = set()
_guard = threading.Lock()


def initialise(uri: str | None = None, root: Path | None = None) -> str:
    """Set MLflow's tracking and registry URI for this process and return it.

    MLFLOW_TRACKING_URI comes first, then `uri`, then SQLite in `root`/mlflow.db (the working directory's by default).
    A new SQLite database is created whole or not at all, by one process at a time. Servers and other databases are
    first spoken to when used. ValueError if a SQLite database is not of this MLflow's schema: nothing is migrated here.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    root = (root or Path.cwd()).resolve()
    chosen = _from_environment() or uri or f"{_SQLITE}{root / DATABASE}"
    if chosen.startswith(_SQLITE):
        chosen = _absolute(chosen, root)
        _prepare(chosen)
    if chosen != _from_environment():
        _chosen_here.add(chosen)
    mlflow.set_tracking_uri(chosen)
    return chosen


def client() -> MlflowClient:
    """A client of the store that `initialise` chose (or chooses now); a database is checked on first use."""
    uri = mlflow.get_tracking_uri()
    if _is_database(uri):
        _prepare(uri)
    return MlflowClient(uri)


def experiment_id(experiment: str) -> str:
    """The identifier of an experiment, which is made where there is none; two makers at once end up with one."""
    mlflow_client = client()
    found = mlflow_client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(mlflow_client.create_experiment(experiment, artifact_location=artifact_location(experiment)))
    except MlflowException as error:
        found = mlflow_client.get_experiment_by_name(experiment)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)


def artifact_location(experiment: str) -> str | None:
    """Where an experiment's artifacts go; None leaves it to the server."""
    root = artifact_root()
    return f"{root.rstrip('/')}/{experiment}" if root else None


def artifact_root() -> str | None:
    """Where a database's artifacts go; None for a server, which decides that itself.

    MLFLOW_DEFAULT_ARTIFACT_ROOT (as for `mlflow server`) comes first, then mlartifacts/ beside a SQLite database.
    """
    uri = mlflow.get_tracking_uri()
    if not _is_database(uri):
        return None
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or _default_artifacts(uri)


@contextmanager
def answered() -> Iterator[None]:
    """Within it, a store that is away, or refuses, is a ValueError of one line that says which store and why."""
    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, ModuleNotFoundError) as error:
        text = hide(" ".join(str(error).split()))
        raise ValueError(f"MLflow at {shown_uri()}: {text[:300]}{'…' * (len(text) > 300)}") from error


def shown_uri() -> str:
    """The store's address without passwords."""
    return str(hide(mlflow.get_tracking_uri()))


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock of this machine that belongs to the store at hand and `name`."""
    uri = mlflow.get_tracking_uri()
    database = Path(uri.removeprefix(_SQLITE))
    folder = database.parent if uri.startswith(_SQLITE) else Path(tempfile.gettempdir())
    with FileLock(folder / f".mlflow-{name}.lock"):
        yield


def _from_environment() -> str | None:
    # mlflow.set_tracking_uri writes the variable itself, for child processes: that is not the user's word.
    value = os.environ.get(_VARIABLE)
    return value if value and value not in _chosen_here else None


def _absolute(uri: str, root: Path) -> str:
    path = Path(uri.removeprefix(_SQLITE))
    return f"{_SQLITE}{path if path.is_absolute() else root / path}"


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def _default_artifacts(uri: str) -> str | None:
    return str(Path(uri.removeprefix(_SQLITE)).parent / ARTIFACTS) if uri.startswith(_SQLITE) else None


def _prepare(uri: str) -> None:
    with _guard:
        if uri in _prepared and _is_there(uri):
            return
        for noisy in ("mlflow.store.db.utils", "mlflow.pyfunc", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        if uri.startswith(_SQLITE):
            _prepare_sqlite(uri)
        else:
            _prepare_server(uri)
        _prepared.add(uri)


def _is_there(uri: str) -> bool:
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).exists()


def _prepare_sqlite(uri: str) -> None:
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists() and database.stat().st_size > 0:
            _check_schema(uri)
        else:
            _create_sqlite(database)


def _create_sqlite(database: Path) -> None:
    # MLflow's first migrations commit table by table: killed between two, they would leave half a database.
    partial = database.with_name(f".{database.name}.partial")
    for leftover in (partial, Path(f"{partial}-journal")):
        leftover.unlink(missing_ok=True)
    store = SqlAlchemyStore(f"{_SQLITE}{partial}", str(database.parent / ARTIFACTS))
    store.engine.dispose()
    partial.replace(database)


def _prepare_server(uri: str) -> None:
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f".mlflow-{name}.lock"):
        if _schema(uri) is None:
            SqlAlchemyStore(uri, os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or ARTIFACTS).engine.dispose()
        _check_schema(uri)


def _check_schema(uri: str) -> None:
    found, expected = _schema(uri), _expected_schema()
    if found == expected:
        return
    older = found in _known_schemas()
    shown = make_url(uri).render_as_string(hide_password=True)
    advice = (
        f"Back it up, stop whatever uses it, then run: mlflow db upgrade '{shown}'"
        if older
        else f"Install the MLflow that wrote it (this is {mlflow.__version__}), or set MLFLOW_TRACKING_URI to another"
    )
    kind = "an older MLflow" if older else "a newer MLflow, or something else,"
    raise ValueError(f"{shown}: was written by {kind} (schema {found}, expected {expected}); not touched. {advice}")


def _schema(uri: str) -> str | None:
    """The schema's revision; None for an empty database; 'unknown' for tables without a revision."""
    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            return revision or ("unknown" if inspect(connection).get_table_names() else None)
    finally:
        engine.dispose()


def _expected_schema() -> str | None:
    return _scripts().get_current_head()


def _known_schemas() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


@functools.cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
