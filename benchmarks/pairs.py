"""Rounds of ours and the peer's in turn, so that both meet the machine in the same state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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


def warm(*iterators: Iterator[Any], steps: int = 2) -> None:
    """Run the first steps, in which memory is allocated, kernels are chosen and networks compiled."""
    for iterator in iterators:
        for _ in range(steps):
            next(iterator)
