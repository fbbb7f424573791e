"""Checkpoints are kept beside the training, through a storage's absence, and not for ever without one."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.cluster import worker
from pipeline.cluster.checkpoints import CheckpointStore
from pipeline.cluster.keeper import CheckpointsLostError, Keeper


def staged(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "state").write_text(name)
    return folder / name


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A file where the store's folder would be: nothing can be written until it is removed."""
    path = tmp_path / "storage"
    path.touch()
    return path


def test_an_absence_is_outlasted_and_warned_of_once(
    away: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, kept = CheckpointStore(f"{away}/run", kept=2), []
    keeper = Keeper("resnet8-s0", store, patience=60, first_pause=0.01)
    first = staged(tmp_path, "first")
    keeper.keep(first, 100, lambda: kept.append(100))
    deadline = time.monotonic() + 400
    while not caplog.messages:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    keeper.check()
    second = staged(tmp_path, "second")
    keeper.keep(second, 200, lambda: kept.append(200))
    time.sleep(0.1)
    away.unlink()
    keeper.flush()
    assert (store.iterations(), kept) == ([200], [200])
    assert not first.exists()
    assert not second.exists()
    assert len(caplog.messages) == 1
    assert "resnet8-s0: checkpoint of iteration 100 cannot be written; training goes on" in caplog.text


def test_patience_ends(away: Path, tmp_path: Path) -> None:
    keeper = Keeper("resnet8-s0", CheckpointStore(f"{away}/run", kept=2), patience=0.05, first_pause=0.02)
    first = staged(tmp_path, "first")
    keeper.keep(first, 100, lambda: pytest.fail("it was not kept"))
    with pytest.raises(
        CheckpointsLostError, match=r"no checkpoint could be written .*checkpoint_patience_seconds: 0.05"
    ):
        keeper.flush()
    with pytest.raises(CheckpointsLostError):
        keeper.check()
    deadline = time.monotonic() + 400
    while first.exists():
        assert time.monotonic() < deadline, "what was staged stays"
        time.sleep(0.01)


def test_what_a_killed_worker_staged_is_removed_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f"{worker.STAGED}{ended.pid}-abc", f"{worker.STAGED}{os.getpid()}-abc", "checkpoint-abc"]
    for name in names:
        staged(tmp_path, name)
    worker._clear_staged()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
