"""Ensembles' tables: contributions as differences, searches in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.ensemble_tables import ensemble_tables
from pipeline.report.reading import read_inputs
from pipeline.report.tables import Table
from pipeline.storage import read_json
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, write_ensemble

SEARCH = {
    "search": "greedy",
    "candidates": list(DIGITS),
    "select_on": "half",
    "most": 4,
    "seed": 0,
    "protocol": "center_crop",
    "n_selecting": 1200,
    "selecting_top1_error": [5.5, 4.25],
}


def tables(root: Path, ensembles: dict[str, list[str]]) -> dict[str, Table]:
    found = ensemble_tables(read_inputs("digits", DIGITS, ensembles, root))
    return {table.name: table for table in found}


def measured(root: Path) -> dict[str, Any]:
    record = read_json(root / "results" / "digits" / "ensembles" / "resnets.json")
    return {"ten_crop": record["ten_crop"]}


def test_members_contributions_are_differences(digits: Path) -> None:
    members, found = DIGITS_ENSEMBLES["resnets"], measured(digits)
    without = {**found["ten_crop"], "top1_error": found["ten_crop"]["top1_error"] + 1.5}
    write_ensemble(digits, "digits", "resnets", members, found, None, {"ten_crop": {"resnet20-s0": without}})
    made = tables(digits, DIGITS_ENSEMBLES)
    assert list(made) == ["ensembles", "contributions"]
    first, second = made["contributions"].rows
    assert (first.cell("member").text, first.cell("ten_crop").text) == ("resnet20-s0", "+1.50")
    assert second.cell("ten_crop").text == ""


def test_a_search_is_told_in_words(digits: Path) -> None:
    write_ensemble(digits, "digits", "found", DIGITS_ENSEMBLES["resnets"], measured(digits), SEARCH, {})
    made = tables(digits, {**DIGITS_ENSEMBLES, "found": []})
    assert (
        made["ensembles"]
        .rows[1]
        .cell("members")
        .text.endswith("(chosen on 1,200 test images; errors of the other 400)")
    )
    (row,) = made["searches"].rows
    texts = {column.key: row.cell(column.key).text for column in made["searches"].columns}
    assert texts == {
        "ensemble": "found",
        "search": "greedy, at most 4",
        "candidates": ", ".join(DIGITS),
        "chosen on": "1,200 test images",
        "by": "1-crop",
        "top-1 error there": "5.50 → 4.25",
        "reported on": "400 images",
    }


def test_without_ensembles_there_are_no_tables(digits: Path) -> None:
    assert tables(digits, {}) == {}


def test_an_ensemble_that_was_not_run_says_so(tmp_path: Path) -> None:
    made = tables(tmp_path, DIGITS_ENSEMBLES)
    assert list(made) == ["ensembles"]
    assert made["ensembles"].rows[0].cell("ensemble").text == "resnets (not run)"
