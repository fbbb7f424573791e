"""Letters between a training's driver and its workers, wherever they are: JSON values in Ray's own key-value store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pipeline.cluster.pace import looking

SHORTEST = 0.5
"""Seconds between two looks at a letter, at first."""
NAMESPACE = b"resnet-letters"
CURVE, KEPT = "curve", "kept"
STOP, HEARD = "stop", "heard"
RESIZE, READY = "resize", "ready"
ERROR, STOPPED = "error", "stopped"
"""What is written about: the curve up to the checkpoint kept last, and that one's iteration; that training is to stop,
and that a worker has heard of it; that it will go on with another number of workers, and the iteration of the
checkpoint that was kept for that; the error that ended training for good; the iteration at which it stopped."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Letters:
    """A training's letters, the newest of each name; used as a context, they are removed at its end."""

    box: str

    def leave(self, name: str, value: Any) -> None:
        """Put a letter in place of the one before."""
        from ray.experimental import internal_kv

        internal_kv._internal_kv_put(self._key(name), json.dumps(value).encode(), namespace=NAMESPACE)

    def look(self, name: str) -> Any:
        """The letter of this name; None where there is none."""
        from ray.experimental import internal_kv

        found = internal_kv._internal_kv_get(self._key(name), namespace=NAMESPACE)
        return None if found is None else json.loads(found)

    def look_at(self, *names: str) -> tuple[Any, ...]:
        """The letters of these names, None where there is none, by one question to Ray's head."""
        from ray.experimental import internal_kv

        keys = [self._key(name) for name in names]
        found = internal_kv.internal_kv_get_gcs_client().internal_kv_multi_get(keys, NAMESPACE)
        return tuple(json.loads(found.get(key, b"null")) for key in keys)

    def __enter__(self) -> Letters:
        return self

    def __exit__(self, *_: object) -> None:
        from ray.experimental import internal_kv

        with contextlib.suppress(Exception):  # the head may be away, and its letters with it
            internal_kv._internal_kv_del(self._key(""), del_by_prefix=True, namespace=NAMESPACE)

    def _key(self, name: str) -> bytes:
        return f"{self.box}/{name}".encode()


def curves_received(letters: Letters, receive: Callable[[Rows], None]) -> AbstractContextManager[None]:
    """Hand each new curve to `receive` while the block lasts, and the last one at its end."""
    last: int | None = None

    def look() -> None:
        nonlocal last
        with contextlib.suppress(Exception):  # the head may be away; the next look will tell
            kept = letters.look(KEPT)
            if kept != last:
                receive(letters.look(CURVE))
                last = kept

    return looking(look, SHORTEST)
