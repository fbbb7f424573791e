"""A run begun beside a training: when it is begun, what is waited for, and what becomes of an error."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest

from pipeline.tracking import beside
from pipeline.tracking.beside import RunBeside
from pipeline.tracking.runs import TrainingRun
from tests.e2e.clone import wait_for


class Told:
    """Notes what a `TrainingRun` would be told."""

    def __init__(self) -> None:
        self.words: list[Any] = []

    def log_curves(self, rows: Any) -> None:
        self.words.append(rows)

    def wait_for_run_id(self, limit: float) -> str:
        return "abc"

    def finish(self, status: str, limit: float) -> bool:
        self.words.append(status)
        return True


def test_it_is_begun_with_the_first_look_and_once() -> None:
    told, begun = Told(), []

    def begin() -> TrainingRun:
        begun.append(threading.current_thread().name)
        return cast(TrainingRun, told)

    run = RunBeside(begin)
    time.sleep(0.05)
    assert begun == []
    run.look()
    wait_for(lambda: run.wait_for_run_id(0.01), 100)
    run.look()
    run.log_curves([{"iteration": 1}])
    assert run.finish("FINISHED", 1.0)
    assert begun == ["mlflow"]
    assert told.words == [[{"iteration": 1}], "FINISHED"]


def test_a_training_that_never_came_to_start_has_none() -> None:
    run = RunBeside(lambda: pytest.fail("begun"))
    assert run.finish("FAILED", 1.0)


def test_nothing_waits_for_ever_for_one_that_is_still_being_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SECONDS_TO_BEGIN", 0.1)
    never = threading.Event()

    def begin() -> TrainingRun:
        never.wait(60)
        raise AssertionError

    run = RunBeside(begin)
    run.look()
    run.look()
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        run.log_curves([])
    assert run.wait_for_run_id(0.1) is None
    assert not run.finish("KILLED", 0.1)
    assert time.monotonic() - before < 30, "what never begins is not waited for"
    never.set()


def test_an_error_of_beginning_is_raised_by_a_look_and_does_not_hide_what_ends_the_training() -> None:
    def begin() -> TrainingRun:
        raise ImportError("no module named mlflow")

    run = RunBeside(begin)
    run.look()
    with pytest.raises(ImportError, match="no module named mlflow"):
        wait_for(lambda: run.wait_for_run_id(0.01), 100)
    with pytest.raises(ImportError, match="no module named mlflow"):
        run.look()
    assert not run.finish("KILLED", 1.0)
