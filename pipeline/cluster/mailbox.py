"""A mailbox in a folder: Ray's controller process leaves a training's curve in it, the driver takes it out."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.storage import read_json, write_json

LETTER = "curve.json"
SECONDS_BETWEEN_LOOKS = 0.5

Rows = list[dict[str, Any]]


def leave(folder: str, rows: Rows) -> None:
    """Put the curve so far into the mailbox, in place of what was there."""
    write_json(Path(folder) / LETTER, rows)


@contextlib.contextmanager
def mailbox(receive: Callable[[Rows], None]) -> Iterator[str]:
    """A folder whose letters are handed to `receive` as they come, the last one at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="curve-") as folder:
        closing = threading.Event()
        thread = threading.Thread(target=_watch, args=(Path(folder), receive, closing), daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            closing.set()
            thread.join()


def _watch(folder: Path, receive: Callable[[Rows], None], closing: threading.Event) -> None:
    last: Rows | None = None
    over = False
    while not over:
        over = closing.wait(SECONDS_BETWEEN_LOOKS)
        found = _look(folder)
        if found is not None and found != last:
            receive(found)
            last = found


def _look(folder: Path) -> Rows | None:
    path = folder / LETTER
    return read_json(path) if path.exists() else None
