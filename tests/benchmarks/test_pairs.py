"""Rounds in turn, and bursts of an endless iterator."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.pairs import interleaved, stepping, warm


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
