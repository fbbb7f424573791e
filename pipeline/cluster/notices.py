"""Notices that training is to pause or end, as all its workers come to know them between two iterations."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import torch

from pipeline.cluster.letters import HEARD, RESIZE, SHORTEST, STOP, Letters
from pipeline.cluster.pace import Pace
from pipeline.training.distributed import Agreement, world


class Notice(IntEnum):
    """What to do at the end of an iteration; of several the largest counts."""

    GO_ON = 0
    SAVE = 1
    """A node is being drained: keep a checkpoint and go on; Ray starts the workers elsewhere when it goes."""
    RESIZE = 2
    """There is room for another number of workers: keep a checkpoint and go on, until Ray starts them."""
    LEAVE = 3
    """A worker was sent SIGTERM: keep a checkpoint, then end, to be replaced."""
    STOP = 4
    """The driver was: keep a checkpoint, then end the training."""


class Notices:
    """A worker's ear for notices; `agreed` costs no wait."""

    def __init__(self, letters: Letters, device: torch.device) -> None:
        self._agreement = Agreement(device)
        self._stop, self._resize = threading.Event(), threading.Event()
        self._saved = False
        if world()[0] == 0:
            threading.Thread(target=self._listen, args=(letters,), name="notices", daemon=True).start()

    def agreed(self) -> Notice:
        """The notice that all workers heed after this iteration; all call it after each one."""
        notice = Notice(self._agreement.share(self._mine()))
        if notice is not Notice.SAVE or not self._saved:
            self._saved = self._saved or notice is Notice.SAVE
            return notice
        return Notice.GO_ON

    def _mine(self) -> Notice:
        if self._stop.is_set():
            return Notice.STOP
        if _terminated.is_set():
            return Notice.LEAVE
        if self._resize.is_set():
            self._resize.clear()  # told once: what is told again is another checkpoint
            return Notice.RESIZE
        return Notice.SAVE if _node_is_drained() else Notice.GO_ON

    def _listen(self, letters: Letters) -> None:
        """Wait, on the first worker, for the driver's letters: the one to stop is answered, the other taken away."""
        pace = Pace(SHORTEST)
        while not self._stop.is_set():
            with contextlib.suppress(Exception):  # the head may be away; the next look will tell
                stop, resize = letters.look_at(STOP, RESIZE)
                if stop:
                    self._stop.set()
                    letters.leave(HEARD, True)
                if resize:
                    self._resize.set()
                    letters.leave(RESIZE, None)
            time.sleep(pace.seconds())


_terminated, _at_work = threading.Event(), threading.Event()


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """While the block lasts, a worker that is sent SIGTERM does not end at once."""
    _at_work.set()
    try:
        yield
    finally:
        _at_work.clear()


def termination_callback() -> Any:
    """Ray's hook into its workers' main threads, where alone Python takes signals: SIGTERM becomes a notice.

    A second one ends the worker at once, as Ray has it.
    """
    from ray.train.v2._internal.execution.callback import WorkerCallback

    class HeedTermination(WorkerCallback):
        def after_init_train_context(self) -> None:
            heed_termination()

    return HeedTermination()


def heed_termination() -> None:
    """Note the first SIGTERM while a training is at work; hand any other to whoever took it before."""
    before = signal.getsignal(signal.SIGTERM)

    def heed(number: int, frame: Any) -> None:
        if _terminated.is_set() or not _at_work.is_set():
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)
        _terminated.set()

    signal.signal(signal.SIGTERM, heed)


def _node_is_drained() -> bool:
    """Whether Ray knows that one of the workers' nodes will be taken away."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
