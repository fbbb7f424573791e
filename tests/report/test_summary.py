"""The table on the terminal."""

import io

import pytest
from rich.console import Console

from pipeline.report import print_summary
from pipeline.storage import read_json, write_json
from tests.report.factory import DIGITS

pytestmark = pytest.mark.slow


def printed(root, width=100, **options):
    text = io.StringIO()
    print_summary("digits", root, console=Console(file=text, width=width), **options)
    return text.getvalue()


def test_the_table_has_every_run_and_where_to_look(written):
    text = printed(written, where={"MLflow": "make ui"})
    metrics = read_json(written / "results" / "digits" / "metrics.json")
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert list(lines) == [*DIGITS, "resnets"]
    for name, row in {**metrics["runs"], **metrics["ensembles"]}.items():
        figures = [f"{row[protocol]['top1_error']:.2f}" for protocol in ("center_crop", "ten_crop", "multi_scale")]
        assert [cell.split()[0] for cell in lines[name].strip("│ ").split("│")[1:]] == figures
    assert str(written / "results" / "digits" / "report.html") in text
    assert "make ui" in text


def test_a_protocol_that_was_not_run_says_so(written, tmp_path):
    metrics = read_json(written / "results" / "digits" / "metrics.json")
    del metrics["runs"]["plain20-s0"]["ten_crop"]
    write_json(tmp_path / "results" / "digits" / "metrics.json", metrics)
    assert "not run" in next(line for line in printed(tmp_path).splitlines() if "plain20-s0" in line)


def test_without_metrics_it_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="dvc repro"):
        print_summary("digits", tmp_path)
