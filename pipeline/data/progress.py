"""How far a long piece of work is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0


def shown(results: Iterable[T], weights: Sequence[int], what: str) -> Iterator[T]:
    """`results` as they come, each advancing the display on stderr by its weight, such as a shard's images."""
    console = Console(file=sys.stderr)
    return _bar(results, weights, what, console) if console.is_terminal else _lines(results, weights, what)


def _bar(results: Iterable[T], weights: Sequence[int], what: str, console: Console) -> Iterator[T]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=sum(weights))
        for result, weight in zip(results, weights, strict=True):
            progress.advance(task, weight)
            yield result


def _lines(results: Iterable[T], weights: Sequence[int], what: str) -> Iterator[T]:
    done, total, last = 0, sum(weights), time.monotonic()
    for result, weight in zip(results, weights, strict=True):
        done += weight
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)
        yield result
