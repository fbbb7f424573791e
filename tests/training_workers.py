"""The processes that train, found while some of them may end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psutil


def training_workers(chosen: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Of all that train on this machine, also for other tests, those that are `chosen`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if trains(process) and chosen(process):
                found.append(process)
    return found


def trains(process: psutil.Process) -> bool:
    """Whether it is a training's worker; no longer, where it has ended meanwhile."""
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False
