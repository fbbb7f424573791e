"""Ratios of pairs, limits, and the forms in which they are kept and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record import Limit, Measurement, Pairs, as_json, finish, markdown, read


@pytest.fixture
def measured() -> Measurement:
    return Pairs((30.0, 20.0, 40.0), (10.0, 10.0, 10.0)).measurement("loader", "images/s", Limit("decode", 60.0))


def test_ratio_is_the_median_of_the_pairs_own() -> None:
    pairs = Pairs((10.0, 30.0, 90.0), (10.0, 60.0, 30.0))
    measured = pairs.measurement("x", "images/s")
    assert (measured.ours, measured.peer) == (30.0, 30.0)
    assert (measured.ratio_min, measured.ratio, measured.ratio_max) == (0.5, 1.0, 3.0)
    assert measured.limit_fraction is None


def test_limit_is_kept_with_the_fraction_reached(measured: Measurement) -> None:
    assert (measured.limit, measured.limit_value, measured.limit_fraction) == ("decode", 60.0, 0.5)


def test_last_line_is_the_ratio_and_the_file_reads_back(measured: Measurement, tmp_path: Path, capsys) -> None:
    alone = Measurement("copy", 12.0, None, "GB/s")
    finish([alone, measured], tmp_path / "found.json")
    assert capsys.readouterr().out.splitlines()[-1] == "ratio: 3.00"
    assert read(tmp_path / "found.json") == [alone, measured]


def test_json_has_the_documented_keys(measured: Measurement) -> None:
    (entry,) = as_json([measured])
    assert {"name", "ours", "peer", "unit", "ratio", "limit_fraction"} <= set(entry)
    assert entry["ratio"] == 3.0


def test_markdown_has_a_row_a_benchmark(measured: Measurement) -> None:
    text = markdown(as_json([measured, Measurement("copy", 12.25, None, "GB/s")]))
    assert "| loader | images/s | 30 | 10 | 3.00 (2.00–4.00) | decode: 60 | 50% |" in text
    assert "| copy | GB/s | 12.2 |  |  |  |  |" in text
