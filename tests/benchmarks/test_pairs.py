"""Rounds in turn, and bursts of an endless iterator."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.pairs import apart, interleaved, stepping, warm


def test_rounds_alternate_and_pairs_stay_together() -> None:
    order = []

    def burst(name: str, rates: list[float]):
        def run() -> float:
            order.append(name)
            return rates.pop(0)

        return run

    pairs = interleaved(burst("ours", [2.0, 4.0, 6.0]), burst("peer", [1.0, 2.0, 3.0]), 3)
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert pairs.ours == (2.0, 4.0, 6.0)
    assert pairs.ratios() == [2.0, 2.0, 2.0]


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds: 0 measures nothing"):
        interleaved(lambda: 1.0, lambda: 1.0, 0)


def test_burst_takes_its_steps_and_counts_their_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("benchmarks.pairs.time.perf_counter", lambda: next(clock))
    steps = itertools.count()
    assert stepping(steps, 5, amount=8.0)() == 10.0
    assert next(steps) == 5


def test_warming_runs_each() -> None:
    first, second = itertools.count(), itertools.count()
    warm(first, second, steps=3)
    assert (next(first), next(second)) == (3, 3)


def start_methods() -> Iterator[None]:
    while True:
        print(multiprocessing.get_start_method(), flush=True)
        yield


def test_what_runs_apart_starts_processes_as_this_system_does(capfd: pytest.CaptureFixture[str]) -> None:
    with apart(start_methods) as steps:
        warm(steps, steps=1)
    assert capfd.readouterr().out.strip() == multiprocessing.get_context().get_start_method()


def numbered_pids(count: int) -> Iterator[int]:
    for number in range(count):
        print(f"step {number} in {os.getpid()}", flush=True)
        yield number
    raise ArithmeticError("no more")


def test_steps_run_apart_when_asked_for_and_the_process_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with apart(numbered_pids, 9) as steps:
        warm(steps, steps=2)
        said = capfd.readouterr().out.splitlines()
        assert [line.split(" in ")[0] for line in said] == ["step 0", "step 1"]
        process = int(said[0].split(" in ")[1])
        assert process != os.getpid()
        assert psutil.pid_exists(process)
    assert not psutil.pid_exists(process)
    assert capfd.readouterr().out == ""


def test_steps_that_fail_apart_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    with apart(numbered_pids, 1) as steps, pytest.raises(RuntimeError, match="numbered_pids: its process has ended"):
        warm(steps, steps=2)
    assert "ArithmeticError: no more" in capfd.readouterr().err
