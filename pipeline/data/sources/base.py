"""What every source of images offers: a checked listing cut into pieces, and the samples of a piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

UNLABELLED = -1

RunTasks = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Like `map`: applies a picklable function to picklable tasks and gives the results in the tasks' order."""


@dataclass(frozen=True)
class Sample:
    """One image of a source."""

    key: str
    label: int
    image: bytes | np.ndarray
    """An encoded image, or uint8 pixels (H, W) or (H, W, 3)."""
    problem: str | None = None
    """Why the image cannot be had; its bytes are then empty."""


@dataclass(frozen=True)
class Piece:
    """What becomes one shard: consecutive images of a split, described so that any process can read them."""

    split: str
    images: int
    content: tuple[Any, ...]
    """In the source's own terms; numbers, strings and tuples of them alone."""


@dataclass(frozen=True)
class Listing:
    """All that a source holds, checked as far as can be done without reading the images."""

    class_keys: tuple[str, ...]
    class_names: tuple[str, ...]
    pieces: tuple[Piece, ...]


class Source(Protocol):
    """A data set in one of the layouts it is distributed in; picklable, so that workers can read its pieces."""

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """The pieces of every split, of up to `shard_images` images; SourceError says what is missing or wrong."""
        ...

    def read(self, piece: Piece) -> Iterator[Sample]:
        """The samples of a piece, in order, one at a time."""
        ...


def ranges(n: int, size: int) -> list[tuple[int, int]]:
    """0..n cut into (start, stop) of `size` each, the last one perhaps shorter."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]
