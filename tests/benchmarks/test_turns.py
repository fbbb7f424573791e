"""Two programs by turns: neither works while the other does, and each has its own rate."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from benchmarks.turns import _turns, in_turns

pytestmark = pytest.mark.slow


def steps(file: Path, pause: float, count: int, begun: Event) -> list[dict[str, Any]]:
    """A curve of as many iterations that take `pause` seconds each; `file` has a letter of each, by the pause."""
    start, rows = time.monotonic(), []
    with file.open("a", encoding="utf-8") as text:
        for number in range(1, count + 1):
            time.sleep(pause)
            print("o" if pause < 0.03 else "p", end="", file=text, flush=True)
            rows.append({"iteration": number, "seconds": time.monotonic() - start})
            if number == 5:
                begun.set()
    return rows


def variable(begun: Event) -> list[dict[str, Any]]:
    raise ValueError(f"found {os.environ.get('TURNS_TEST')}")


def test_one_stands_still_while_the_other_works(tmp_path: Path) -> None:
    file = tmp_path / "steps"
    pairs = in_turns(partial(steps, file, 0.02, 150), partial(steps, file, 0.06, 70), 0.5, 0.0, {})
    assert len(pairs.ours) == len(pairs.peer) >= 3
    assert statistics.median(pairs.ratios()) > 1.4
    groups = [len(list(group)) for _, group in itertools.groupby(file.read_text(encoding="utf-8"))]
    assert len(groups) >= 6, "they took turns"
    assert statistics.median(groups[2:-1]) >= 5, "of many steps each"


def test_the_peer_is_started_with_its_variables_and_its_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found here"):
        in_turns(partial(steps, tmp_path / "steps", 0.02, 100), variable, 0.5, 0.0, {"TURNS_TEST": "here"})
    assert "TURNS_TEST" not in os.environ


def test_a_program_too_short_is_refused(tmp_path: Path) -> None:
    short = partial(steps, tmp_path / "steps", 0.01, 3)
    with pytest.raises(ValueError, match="ended before it was at work; give more iterations"):
        in_turns(short, short, 0.5, 0.0, {})


def test_turns_are_the_stretches_between_pauses_but_the_first() -> None:
    seconds = [1, 2, 3, 10, 11, 12, 13, 20, 22, 24, 26, 33, 34]
    rows = [{"iteration": 10 * number, "seconds": float(at)} for number, at in enumerate(seconds)]
    assert _turns(rows, 4.0, 0.0) == [10.0, 5.0]


def test_a_turn_counts_from_when_it_has_settled() -> None:
    seconds = [0.0, 1.0, 2.0, 12.0, 15.0, 16.0, 17.0, 27.0, 28.0, 29.0, 39.0]
    rows = [{"iteration": 10 * number, "seconds": at} for number, at in enumerate(seconds)]
    assert _turns(rows, 4.0, 0.0) == [30 / 5, 10.0]
    assert _turns(rows, 4.0, 2.0) == [10.0, None], "one that never settles keeps its place"
    assert _turns(rows, 4.0, 3.0) == [10.0, None], "from just then"
    assert _turns(rows, 4.0, 6.0) == [None, None]
