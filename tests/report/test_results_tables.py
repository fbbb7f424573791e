"""Our own results as tables."""

import pytest

from pipeline.evaluation.statistics import error_interval
from pipeline.report.reading import read_inputs
from pipeline.report.results_tables import errors_table, interval_text, results_tables, runs_table
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, add_run


def test_a_run_has_its_errors_and_intervals(digits):
    inputs = read_inputs("digits", DIGITS, DIGITS_ENSEMBLES, digits)
    table = runs_table(inputs)
    assert [row.cell("run").text for row in table.rows] == list(DIGITS)
    assert table.groups == (("", 1), ("1-crop", 2), ("10-crop", 2), ("multi-scale", 2), ("", 2))
    for run, row in zip(inputs.shown, table.rows, strict=True):
        for protocol, errors in run.errors.items():
            assert row.cell(f"{protocol}.top1").text == f"{errors.top1_error:.2f}"
            expected = interval_text(error_interval(errors.top1_error, errors.n_images))
            assert row.cell(f"{protocol}.interval").text == expected
    assert "400 test images" in table.caption


def test_the_lowest_of_a_column_stands_out(digits):
    inputs = read_inputs("digits", DIGITS, {}, digits)
    found = {row.cell("run").text: row.cell("center_crop.top1") for row in runs_table(inputs).rows}
    lowest = min(float(cell.text) for cell in found.values())
    assert {float(cell.text) for cell in found.values() if cell.tone == "strong"} == {lowest}


def test_a_row_that_was_not_run_says_so(digits):
    (digits / "models" / "digits" / "plain20-s0" / "train.json").unlink()
    table = runs_table(read_inputs("digits", [*DIGITS, "resnet110-s0"], {}, digits))
    found = {row.cell("run").text: row for row in table.rows}
    assert found["resnet110-s0"].cell("ten_crop.top1").text == "not run"
    assert found["plain20-s0"].cell("ten_crop.top1").text == "not shown"
    assert found["plain20-s0"].cell("parameters").text == ""


def test_with_nothing_run_every_row_says_so(tmp_path):
    (table,) = results_tables(read_inputs("digits", DIGITS, {}, tmp_path))
    assert [row.cell("run").text for row in table.rows] == [f"{run} (not run)" for run in DIGITS]


def test_a_protocol_that_was_not_run_says_so(tmp_path):
    add_run(tmp_path, "x", "resnet20-s0", {"center_crop": 0.9, "ten_crop": 0.9})
    add_run(tmp_path, "x", "resnet56-s0", {"center_crop": 0.9})
    rows = runs_table(read_inputs("x", ["resnet20-s0", "resnet56-s0"], {}, tmp_path)).rows
    assert rows[1].cell("ten_crop.top1").text == "not run"


def test_seeds_are_best_mean_and_std(tmp_path):
    for seed, accuracy in enumerate((0.8, 0.85, 0.9)):
        add_run(tmp_path, "x", f"resnet20-s{seed}", {"single_view": accuracy})
    add_run(tmp_path, "x", "plain20-s0", {"single_view": 0.8})
    inputs = read_inputs("x", ["plain20-s0", *(f"resnet20-s{seed}" for seed in range(3))], {}, tmp_path)
    _, table = results_tables(inputs)
    errors = [run.errors["single_view"].top1_error for run in inputs.of_network("resnet20")]
    (row,) = table.rows
    mean = sum(errors) / 3
    std = (sum((error - mean) ** 2 for error in errors) / 2) ** 0.5
    texts = [row.cell(key).text for key in ("network", "seeds", "best", "mean", "std")]
    assert texts == ["ResNet-20", "3", f"{min(errors):.2f}", f"{mean:.2f}", f"{std:.2f}"]


def test_the_long_form_has_every_figure(digits):
    inputs = read_inputs("digits", DIGITS, DIGITS_ENSEMBLES, digits)
    rows = errors_table(inputs).rows
    assert len(rows) == 5 * 3
    row = next(row for row in rows if row.cell("name").text == "plain56-s0" and row.cell("protocol").text == "ten_crop")
    errors = inputs.runs["plain56-s0"].errors["ten_crop"]
    assert float(row.cell("top1_error").text) == pytest.approx(errors.top1_error, abs=1e-4)
    assert float(row.cell("top1_low").text) < errors.top1_error < float(row.cell("top1_high").text)


def test_top5_is_shown_where_it_says_something(tmp_path, digits):
    assert "top-5" not in {column.label for column in runs_table(read_inputs("digits", DIGITS, {}, digits)).columns}
    add_run(tmp_path, "x", "resnet50-s0", {"ten_crop": 0.7}, classes=100)
    (tmp_path / "models" / "x" / "resnet50-s0" / "model.json").unlink()
    table = runs_table(read_inputs("x", ["resnet50-s0"], {}, tmp_path))
    assert "top-5" in {column.label for column in table.columns}
