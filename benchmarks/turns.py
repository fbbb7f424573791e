"""Two programs at work by turns, each stopped while the other has the machine: so both meet it in the same state."""

from __future__ import annotations

import contextlib
import itertools
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.synchronize import Event
from typing import Any

import psutil

from benchmarks.pairs import started_with
from benchmarks.record import Pairs

Rows = Sequence[Mapping[str, Any]]
"""Points of a curve: "iteration" done and "seconds" since the training began."""
Program = Callable[[Event], Rows]
"""Sets the event once it is at work in steady state, and returns its curve at its end."""


def in_turns(ours: Program, peer: Program, seconds: float, settle: float, variables: Mapping[str, str]) -> Pairs:
    """Iterations a second of each in its turns of `seconds`, as long as both are at work.

    Each runs in a process of its own, the peer's started with the environment's `variables`. ValueError where there was
    no turn of each. A turn counts from the first point of the curve that is `settle` seconds or more after its first
    one: what a stopped program missed it makes up for when it is let go, as one that is never stopped need not.
    """
    with _process() as (ours_process, ours_begun), _process() as (peer_process, peer_begun):
        mine = _begin(ours_process, ours, ours_begun)
        with _stopped(ours_process), started_with(variables):
            theirs = _begin(peer_process, peer, peer_begun)
        while not mine.done() and not theirs.done():
            for process, work in ((ours_process, theirs), (peer_process, mine)):
                with _stopped(process):
                    _until(work.done, seconds)
        turns = [_turns(found.result(), seconds / 2, settle) for found in (mine, theirs)]
    whole = [pair for pair in zip(*turns, strict=False) if None not in pair]
    if not whole:
        raise ValueError(
            "no turn of each was taken; give more iterations, longer turns, or points of the curve closer together"
        )
    return Pairs(*zip(*whole, strict=True))


@contextlib.contextmanager
def _process() -> Iterator[tuple[ProcessPoolExecutor, Event]]:
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    with ProcessPoolExecutor(1, mp_context=context, initializer=_remember, initargs=(begun,)) as process:
        yield process, begun


_begun: Event


def _remember(begun: Event) -> None:
    global _begun
    _begun = begun


def _run(program: Program) -> Rows:
    return program(_begun)


def _begin(process: ProcessPoolExecutor, program: Program, begun: Event) -> Future[Rows]:
    """The program's curve to come, once it is at work."""
    work = process.submit(_run, program)
    while not begun.wait(0.1):
        if work.done():
            work.result()
            raise ValueError("a program ended before it was at work; give more iterations")
    return work


@contextlib.contextmanager
def _stopped(process: ProcessPoolExecutor) -> Iterator[None]:
    """The process and all that it started stand still while the block lasts."""
    tree = [one for number in process._processes for one in _with_children(number)]
    try:
        _signal(tree, signal.SIGSTOP)
        yield
    finally:
        _signal(tree, signal.SIGCONT)


def _with_children(number: int) -> list[psutil.Process]:
    process = psutil.Process(number)
    return [process, *process.children(recursive=True)]


def _signal(tree: list[psutil.Process], number: signal.Signals) -> None:
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _until(done: Callable[[], bool], seconds: float) -> None:
    latest = time.monotonic() + seconds
    while not done() and time.monotonic() < latest:
        time.sleep(0.1)


def _turns(rows: Rows, pause: float, settle: float) -> list[float | None]:
    """Iterations a second of each stretch between two pauses, which are intervals longer than `pause`.

    A stretch begins with the first point that is `settle` seconds or more after the first one since the pause; None
    for one of less than two points.
    """
    rates: list[float | None] = []
    stretch: list[Mapping[str, Any]] = []
    resumed = -math.inf
    for before, after in itertools.pairwise(rows):
        if after["seconds"] - before["seconds"] > pause:
            rates.append(rate_between(stretch[0], stretch[-1]) if len(stretch) > 1 else None)
            stretch, resumed = [], after["seconds"]
        if after["seconds"] - resumed >= settle:
            stretch.append(after)
    return rates[1:]


def rate_between(first: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """Iterations a second from one point of a curve to another."""
    return float((last["iteration"] - first["iteration"]) / (last["seconds"] - first["seconds"]))
