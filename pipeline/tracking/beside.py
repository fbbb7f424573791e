"""A training's MLflow run, begun beside it: to import MLflow takes seconds, in which the workers start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.tracking.runs import TrainingRun

SECONDS_TO_BEGIN = 10.0
"""For which a curve waits; it is handed on again if that was too short."""


class RunBeside:
    """The run that `begin` gives, which is called on a thread; nothing here waits for it without limit."""

    def __init__(self, begin: Callable[[], TrainingRun]) -> None:
        self._begin = begin
        self._begun: Future[TrainingRun] = Future()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._started = False

    def look(self) -> None:
        """Begin with the first call; a later one raises the error of beginning, if it failed."""
        if not self._started:
            self._started = True
            self._thread.start()
        elif self._begun.done():
            self._begun.result()

    def log_curves(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """As `TrainingRun.log_curves`; TimeoutError where the run is still being begun after some seconds."""
        self._begun.result(SECONDS_TO_BEGIN).log_curves(rows)

    def wait_for_run_id(self, limit: float) -> str | None:
        """As `TrainingRun.wait_for_run_id`; None, too, where the run is still being begun."""
        until = time.monotonic() + limit
        try:
            return self._begun.result(limit).wait_for_run_id(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return None

    def finish(self, status: str, limit: float) -> bool:
        """As `TrainingRun.finish`; True where no run was to be begun, False where none could be."""
        if not self._started:
            return True
        until = time.monotonic() + limit
        try:
            return self._begun.result(limit).finish(status, max(0.0, until - time.monotonic()))
        except Exception:  # `look` raises what it is; here it must not take the place of what ends the training
            return False

    def _work(self) -> None:
        try:
            self._begun.set_result(self._begin())
        except BaseException as error:
            self._begun.set_exception(error)
