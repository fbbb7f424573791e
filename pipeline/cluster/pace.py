"""How often a training is looked at: often while it is young, seldom once it has taken long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

LONGEST = 2.0
"""Seconds between two looks, at most: for so long a training's end, or a word to it, may go unnoticed."""
SHARE = 0.03
"""Of the time that training has taken, between two looks: each takes a moment from a core that trains."""


class Pace:
    """The pause before the next look, at first `shortest` seconds."""

    def __init__(self, shortest: float) -> None:
        self._shortest, self._begun = shortest, time.monotonic()

    def seconds(self) -> float:
        """For how long to wait now."""
        return min(max(self._shortest, SHARE * (time.monotonic() - self._begun)), LONGEST)


@contextlib.contextmanager
def looking(look: Callable[[], object], shortest: float) -> Iterator[None]:
    """Call `look` on a thread at this pace while the block lasts, and once more at its end; it raises nothing."""
    closing = threading.Event()
    thread = threading.Thread(target=_look, args=(look, Pace(shortest), closing), daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()


def _look(look: Callable[[], object], pace: Pace, closing: threading.Event) -> None:
    over = False
    while not over:
        over = closing.wait(pace.seconds())
        look()
