"""What the workers of a Ray on this machine print, shown by their driver itself, instead of by a process of Ray's.

That process, of 80 MB, looks ten times a second for what is new, which no setting changes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.cluster.pace import looking

SHORTEST = 0.2
"""Seconds between two looks, at first."""


def shown(folder: Path, job: str) -> AbstractContextManager[None]:
    """Print what the workers of `job` write to Ray's folder of logs while the block lasts, all of it by its end."""
    from ray._private.log_monitor import LogMonitor, is_proc_alive, logger

    logger.setLevel(logging.WARNING)
    reader = LogMonitor("", str(folder), _Printer(job), is_proc_alive)

    def look() -> None:
        with contextlib.suppress(OSError):  # a file may go while it is looked at; the next look will tell
            reader.update_log_filenames()
            reader.open_closed_files()
            while reader.check_log_files_and_publish_updates():
                pass

    return looking(look, SHORTEST)


class _Printer:
    """Stands for Ray's head where a reader of logs publishes what it finds."""

    def __init__(self, job: str) -> None:
        self._job = job

    def publish_logs(self, lines: Mapping[str, Any]) -> None:
        """Print lines of the job, and of Ray's own processes, which are of none."""
        from ray._private.worker import print_to_stdstream

        if lines["job"] in (None, self._job):
            print_to_stdstream(lines, ignore_prefix=True)
