"""Keeping checkpoints beside the training: written by a thread that outlasts the storage's absences."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cluster.checkpoints import CheckpointStore

_log = logging.getLogger(__name__)


class CheckpointsLostError(OSError):
    """No checkpoint could be written for longer than `cluster.checkpoint_patience_seconds`."""


@dataclass(frozen=True)
class Waiting:
    """A checkpoint's files in a local folder, to be removed once they are kept."""

    folder: Path
    iteration: int
    on_kept: Callable[[], None]


class Keeper:
    """Puts checkpoints into their store on a thread; the training waits neither for it nor for the storage.

    A write that fails is tried again after `first_pause` seconds, then twice as long each time up to `longest_pause`,
    and warned of once; of several that wait, the newest is written. After `patience` seconds without success
    `check` and `flush` raise CheckpointsLostError.
    """

    def __init__(
        self,
        run: str,
        store: CheckpointStore,
        patience: float,
        first_pause: float = 0.5,
        longest_pause: float = 30.0,
    ) -> None:
        self._run, self._store, self._patience = run, store, patience
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._changed = threading.Condition()
        self._waiting: Waiting | None = None
        self._writing: Waiting | None = None
        self._lost: CheckpointsLostError | None = None
        threading.Thread(target=self._work, name=f"checkpoints {run}", daemon=True).start()

    def keep(self, folder: Path, iteration: int, on_kept: Callable[[], None]) -> None:
        """Take over `folder` as the checkpoint of `iteration`; `on_kept` is called, on the thread, when it is kept."""
        with self._changed:
            if self._waiting is not None:
                shutil.rmtree(self._waiting.folder, ignore_errors=True)
            self._waiting = Waiting(folder, iteration, on_kept)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise CheckpointsLostError if nothing could be written for too long."""
        if self._lost is not None:
            raise self._lost

    def flush(self) -> None:
        """Wait until all is kept; CheckpointsLostError if that takes too long."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost or not (self._waiting or self._writing))
        self.check()

    def _work(self) -> None:
        while self._lost is None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
            self._write()

    def _write(self) -> None:
        """Write what waits, or what comes to wait meanwhile, until it succeeds or patience ends."""
        pause, failing_since = self._first_pause, 0.0
        while self._lost is None and (one := self._take()):
            try:
                self._store.put(one.folder, one.iteration)
                self._done(one)
                return
            except Exception as error:  # each file system has errors of its own; none may end the thread unnoticed
                failing_since = failing_since or time.monotonic()
                self._failed(one, error, time.monotonic() - failing_since, first=pause == self._first_pause)
            time.sleep(pause)
            pause = min(2 * pause, self._longest_pause)

    def _take(self) -> Waiting | None:
        """The newest; what was being written is given up for it."""
        with self._changed:
            if self._waiting is not None:
                if self._writing is not None:
                    shutil.rmtree(self._writing.folder, ignore_errors=True)
                self._writing, self._waiting = self._waiting, None
            return self._writing

    def _done(self, one: Waiting) -> None:
        one.on_kept()
        shutil.rmtree(one.folder, ignore_errors=True)
        with self._changed:
            self._writing = None
            self._changed.notify_all()

    def _failed(self, one: Waiting, error: Exception, seconds: float, first: bool) -> None:
        if seconds > self._patience:
            with self._changed:
                self._lost = CheckpointsLostError(
                    f"{self._run}: no checkpoint could be written for {seconds:.0f} s"
                    f" (cluster.checkpoint_patience_seconds: {self._patience:g}): {error}"
                )
                left = {each.folder for each in (one, self._waiting) if each is not None}
                self._changed.notify_all()
            for folder in left:
                shutil.rmtree(folder, ignore_errors=True)
        elif first:
            _log.warning(
                "%s: checkpoint of iteration %d cannot be written; training goes on and tries again for %g s: %s",
                self._run,
                one.iteration,
                self._patience,
                error,
            )
