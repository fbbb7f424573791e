"""A tracking store for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking import store
from tests.tracking.server import Server


@pytest.fixture(autouse=True)
def _own_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(store, "_chosen_here", None)
    yield
    mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow puts a loaded model's code ahead on the path, where later tests' child processes would find it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised database, to be copied rather than migrated again for each test."""
    root = tmp_path_factory.mktemp("fresh")
    uri = f"sqlite:///{root / store.DATABASE}"
    store._prepare(uri)
    return root / store.DATABASE


@pytest.fixture
def tracking(tmp_path: Path, fresh_database: Path) -> str:
    """The URI of a new SQLite store, which this process uses."""
    (tmp_path / store.DATABASE).write_bytes(fresh_database.read_bytes())
    return store.initialise(None, tmp_path)


@pytest.fixture
def server(tmp_path: Path, fresh_database: Path) -> Iterator[Server]:
    """A server, not yet started."""
    (tmp_path / store.DATABASE).write_bytes(fresh_database.read_bytes())
    found = Server(tmp_path)
    yield found
    found.kill()
