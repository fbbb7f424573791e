"""Messages to the tracking server, sent in order by a thread that outlasts the server's absences."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from pipeline.tracking.secrets import hide

_log = logging.getLogger(__name__)

PERMANENT = frozenset(
    {
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "PERMISSION_DENIED",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)


class Outbox:
    """Runs messages one by one on a thread of its own; the caller never waits and never sees an error.

    A message that fails is tried again after `first_wait` seconds, then twice as long each time up to `longest_wait`;
    once somebody waits for all to be sent, every `first_wait` seconds.
    An error that no waiting cures (a deleted run, a database of another schema, a driver that is missing) drops what is
    left. Each of the two is warned of once.
    """

    def __init__(self, name: str, first_wait: float = 0.5, longest_wait: float = 30.0) -> None:
        self._name, self._first_wait, self._longest_wait = name, first_wait, longest_wait
        self._messages: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing, self._awaited = threading.Event(), threading.Event()
        self._warned: set[str] = set()
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"outbox {name}", daemon=True)
        self._thread.start()

    def put(self, message: Callable[[], None]) -> None:
        """Queue a message; nothing happens once the outbox is broken."""
        with self._changed:
            if self.broken is None:
                self._messages.append(message)
                self._changed.notify_all()

    def flush(self, limit: float) -> bool:
        """Wait up to `limit` seconds until all is sent; whether it is."""
        self._awaited.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._messages, timeout=limit)
            return not self._messages and self.broken is None

    def close(self, limit: float) -> bool:
        """Flush, then end the thread; messages still unsent are given up. Whether all was sent."""
        sent = self.flush(limit)
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        return sent

    def _work(self) -> None:
        while (message := self._next()) is not None:
            if self._send(message):
                with self._changed:
                    self._messages.popleft()
                    self._changed.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closing.is_set())
            return self._messages[0] if self._messages and not self._closing.is_set() else None

    def _send(self, message: Callable[[], None]) -> bool:
        wait = self._first_wait
        while not self._closing.is_set():
            try:
                message()
                return True
            except Exception as error:
                if _is_permanent(error):
                    self._break(error)
                    return False
                self._warn("away", f"cannot be reached ({_short(error)}); what is to be logged is kept and sent later")
            if self._awaited.wait(wait):
                self._closing.wait(self._first_wait)
            wait = min(2 * wait, self._longest_wait)
        return False

    def _break(self, error: Exception) -> None:
        self._warn("refusal", f"refuses what is logged, so nothing more will be: {_short(error)}")
        with self._changed:
            self.broken = error
            self._messages.clear()
            self._changed.notify_all()

    def _warn(self, kind: str, what: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s: MLflow %s", self._name, what)


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in PERMANENT
    garbled = isinstance(error, json.JSONDecodeError)
    return isinstance(error, ValueError | TypeError | KeyError | ImportError) and not garbled


def _short(error: Exception) -> str:
    text = str(hide(" ".join(str(error).split())))
    return text if len(text) <= 600 else f"{text[:600]}…"
