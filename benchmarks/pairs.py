"""Rounds of ours and the peer's in turn, so that both meet the machine in the same state."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.record import Pairs

Burst = Callable[[], float]
"""Does a fixed amount of work and returns the rate at which it was done."""


def interleaved(ours: Burst, peer: Burst, rounds: int) -> Pairs:
    """The rates of `rounds` bursts of each; who goes first alternates. ValueError for less than one round."""
    if rounds < 1:
        raise ValueError(f"rounds: {rounds} measures nothing; give at least 1")
    rates: dict[Burst, list[float]] = {ours: [], peer: []}
    for number in range(rounds):
        for burst in (ours, peer) if number % 2 == 0 else (peer, ours):
            rates[burst].append(burst())
    return Pairs(tuple(rates[ours]), tuple(rates[peer]))


def stepping(steps: Iterator[Any], count: int, amount: float = 1.0) -> Burst:
    """Bursts of `count` steps of an endless iterator, each of which does `amount` of the rate's unit."""

    def burst() -> float:
        started = time.perf_counter()
        for _ in range(count):
            next(steps)
        return count * amount / (time.perf_counter() - started)

    return burst


@contextlib.contextmanager
def apart(
    make: Callable[..., Iterator[Any]], *arguments: Any, variables: Mapping[str, str] | None = None
) -> Iterator[Iterator[None]]:
    """The steps of `make(*arguments)`, each run when it is asked for, in a process of its own.

    So each side has the memory's state and settings that it has with its users; `variables` are set in the process's
    environment before it starts. RuntimeError when the process ends.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments))
    with started_with(variables or {}):
        process.start()
    there.close()
    try:
        yield _asked(here, make.__name__)
    finally:
        here.close()
        process.join()


@contextlib.contextmanager
def started_with(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started within have these environment variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, make: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method(None, force=True)  # the system's own, which else is passed on from above
    steps = make(*arguments)
    with contextlib.suppress(EOFError):
        while connection.recv():
            next(steps)
            connection.send(True)


def _asked(connection: Connection, name: str) -> Iterator[None]:
    while True:
        try:
            connection.send(True)
            connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"{name}: its process has ended, with the message above") from error
        yield


def warm(*iterators: Iterator[Any], steps: int = 2) -> None:
    """Run the first steps, in which memory is allocated, kernels are chosen and networks compiled."""
    for iterator in iterators:
        for _ in range(steps):
            next(iterator)
