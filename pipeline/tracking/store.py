"""Where runs and models are kept: SQLite beside the code by default, any MLflow server or database on request."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import mlflow
import requests
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from botocore.exceptions import BotoCoreError, ClientError
from filelock import BaseFileLock, FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline.tracking.secrets import hide

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
T = TypeVar("T")
_SQLITE = "sqlite:///"
_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_VARIABLE = "MLFLOW_TRACKING_URI"
_ROOT_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
_AWAY: tuple[type[Exception], ...] = (
    MlflowException,
    requests.RequestException,
    SQLAlchemyError,
    BotoCoreError,
    ClientError,
    ModuleNotFoundError,
)
MET_ANOTHER = "BAD_REQUEST"
"""MLflow's code for what its database refuses, such as a row that another process has made."""
_prepared: set[str] = set()
_chosen_here: str | None = None
"""What `initialise` chose last without the user's word."""
_guard = threading.Lock()


def initialise(uri: str | None = None, root: Path | None = None) -> str:
    """Set MLflow's tracking and registry URI for this process and return it.

    MLFLOW_TRACKING_URI comes first, then `uri`, then SQLite in `root`/mlflow.db (the working directory's by default).
    A new SQLite database is created whole or not at all, by one process at a time. Servers and other databases are
    first spoken to when used. ValueError if a SQLite database cannot be opened or made, or is not of this MLflow's
    schema: nothing is migrated here. What then asks for a `client` of it gets the error itself.
    """
    global _chosen_here
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    root = (root or Path.cwd()).resolve()
    given = _from_environment()
    chosen = given or uri or f"{_SQLITE}{root / DATABASE}"
    if chosen.startswith(_SQLITE):
        chosen = _absolute(chosen, root)
    _chosen_here = None if given else chosen
    mlflow.set_tracking_uri(chosen)
    if chosen.startswith(_SQLITE):
        with answered(OSError):
            _prepare(chosen)
    return chosen


def client(uri: str | None = None) -> MlflowClient:
    """A client of the store at `uri`, or the one that `initialise` chose; a database is checked on first use."""
    uri = uri or mlflow.get_tracking_uri()
    if _is_database(uri):
        _prepare(uri)
    return MlflowClient(uri)


def experiment_id(experiment: str, uri: str | None = None) -> str:
    """The identifier of an experiment, which is made where there is none; two makers at once end up with one."""
    uri = uri or mlflow.get_tracking_uri()
    mlflow_client = client(uri)
    found = mlflow_client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(mlflow_client.create_experiment(experiment, artifact_location=artifact_location(experiment, uri)))
    except MlflowException as error:
        found = mlflow_client.get_experiment_by_name(experiment)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)


def artifact_location(experiment: str, uri: str) -> str | None:
    """Where an experiment's artifacts go; None leaves it to the server. ValueError as of `_certain_root`."""
    return f"{_certain_root(uri).rstrip('/')}/{experiment}" if _is_database(uri) else None


def artifact_root(uri: str) -> str | None:
    """Where a database's artifacts go; None for a server, which decides that itself, and where nothing says it.

    MLFLOW_DEFAULT_ARTIFACT_ROOT (as for `mlflow server`) comes first, then mlartifacts/ beside a SQLite database.
    """
    if not _is_database(uri):
        return None
    return os.environ.get(_ROOT_VARIABLE) or _default_artifacts(uri)


def all_pages(search: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All that a search finds, which MLflow answers a page at a time; `search` is given the page's token."""
    found: list[T] = []
    token = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


@contextmanager
def answered(*more: type[Exception]) -> Iterator[None]:
    """Within it, a store that is away, or refuses, is a ValueError of one line that says which store and why.

    `more` are errors that mean the same there.
    """
    try:
        yield
    except _AWAY + more as error:
        text = hide(" ".join(str(error).split()))
        raise ValueError(f"MLflow at {shown_uri()}: {text[:300]}{'…' * (len(text) > 300)}") from error


def shown_uri() -> str:
    """The store's address without passwords."""
    return str(hide(mlflow.get_tracking_uri()))


def pages(uri: str) -> str | None:
    """The address of a server's pages, without user, password and query; None for what is no server."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock of this machine that belongs to the store at hand and `name`; ValueError where it can't be had."""
    with answered(OSError):
        lock = _lock(mlflow.get_tracking_uri(), name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write(call: Callable[[], None]) -> None:
    """Call what sets a value in the store; once more where another process set it first at that moment."""
    try:
        call()
    except MlflowException as error:
        if error.error_code != MET_ANOTHER:
            raise
        call()


def _lock(uri: str, name: str) -> BaseFileLock:
    """A lock for a store: beside a SQLite database, else in a folder of this user's, whom no other's files stop."""
    if uri.startswith(_SQLITE):
        return FileLock(Path(uri.removeprefix(_SQLITE)).parent / f".mlflow-{name}.lock")
    folder = Path(tempfile.gettempdir()) / f"mlflow-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}.lock")


def _from_environment() -> str | None:
    # mlflow.set_tracking_uri writes the variable itself, for child processes: that is not the user's word.
    value = os.environ.get(_VARIABLE)
    return value if value and value != _chosen_here else None


def _absolute(uri: str, root: Path) -> str:
    path = Path(uri.removeprefix(_SQLITE))
    return f"{_SQLITE}{path if path.is_absolute() else root / path}"


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def _default_artifacts(uri: str) -> str | None:
    return str(Path(uri.removeprefix(_SQLITE)).parent / ARTIFACTS) if uri.startswith(_SQLITE) else None


def _certain_root(uri: str) -> str:
    """A database's `artifact_root`; ValueError where nothing says it: MLflow would take ./mlruns, wherever that is."""
    root = artifact_root(uri)
    if root is None:
        shown = make_url(uri).render_as_string(hide_password=True)
        raise ValueError(f"{shown}: set {_ROOT_VARIABLE} to where its artifacts go, such as s3://bucket/mlflow")
    return root


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
    with _lock(uri, "schema"):
        if _schema(uri) is None:
            SqlAlchemyStore(uri, _certain_root(uri)).engine.dispose()
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
