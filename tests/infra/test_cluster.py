"""`make cluster-down`: what is removed, and what stays unless one asks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import cluster


def stopped(folder: Path) -> Any:
    """A cluster in `folder` whose parts have ended."""
    (folder / "s3").mkdir()
    for name in ("s3/volume", "mlflow.db", "state.json", "secrets.json", "ray-token", "env"):
        (folder / name).write_text(name, encoding="utf-8")
    return SimpleNamespace(folder=folder, stop=lambda: ["s3", "mlflow"])


def test_data_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster._down(stopped(tmp_path), remove_data=False) == 0
    assert capsys.readouterr().out == "stopped: s3, mlflow\n"
    assert (tmp_path / "s3/volume").exists()
    assert (tmp_path / "mlflow.db").exists()


def test_data_go_where_that_is_asked_for(tmp_path: Path) -> None:
    assert cluster._parse(["down", "--remove-data"]).remove_data
    beside = tmp_path / "beside"
    (tmp_path / "folder").mkdir()
    beside.write_text("another's", encoding="utf-8")
    assert cluster._down(stopped(tmp_path / "folder"), remove_data=True) == 0
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"ray-token", "env"}
    assert beside.exists()
    assert cluster._down(SimpleNamespace(folder=tmp_path / "folder", stop=list), remove_data=True) == 0, "once more"
