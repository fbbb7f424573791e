"""The table of networks as people call it."""

import subprocess
import sys

import pytest

from pipeline.models import names
from pipeline.models.__main__ import main


def rows(output: str) -> list[list[str]]:
    """Cells of the table's rows."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]


def test_rows_and_defaults(capsys):
    assert main(["resnet50", "resnet20"]) == 0
    assert rows(capsys.readouterr().out) == [
        ["resnet50", "224x224", "50", "25,557,032", "3,857,973,248", "1000"],
        ["resnet20", "32x32", "20", "269,722", "40,551,040", "10"],
    ]


def test_size_and_classes(capsys):
    assert main(["resnet20", "--size", "16", "--num-classes", "7"]) == 0
    expected = str((40551040 - 640) // 4 + 64 * 7)
    [row] = rows(capsys.readouterr().out)
    assert [cell.replace(",", "") for cell in row] == ["resnet20", "16x16", "20", str(269722 - 3 * 65), expected, "7"]


def test_layers(capsys):
    assert main(["resnet8", "--layers"]) == 0
    table = rows(capsys.readouterr().out)[1:]
    assert table[0] == ["conv1", "conv 3x3", "16x32x32", "432", "442,368"]
    assert table[-1] == ["fc", "fc", "10", "650", "640"]
    assert len(table) == 8


@pytest.mark.slow
def test_all_is_every_name(capsys):
    assert main(["all"]) == 0
    assert [row[0] for row in rows(capsys.readouterr().out)] == names()


def test_nothing_is_cut_in_a_narrow_pipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["bn_inception", "--layers"]) == 0
    output = capsys.readouterr().out
    assert "modules_by_name.inception5b.branch3.2.0" in output
    assert "…" not in output


@pytest.mark.parametrize("arguments", [["resnet18"], ["resnet20", "resnet18"], ["vgg16", "--size", "8"]])
def test_errors(capsys, arguments):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


@pytest.mark.slow
def test_as_a_command():
    command = [sys.executable, "-m", "pipeline.models"]
    good = subprocess.run([*command, "highway19"], capture_output=True, text=True, check=False)
    assert good.returncode == 0
    assert "2,256,838" in good.stdout
    bad = subprocess.run([*command, "highway20"], capture_output=True, text=True, check=False)
    assert bad.returncode != 0
    assert all(name in bad.stderr for name in names())
    assert "Traceback" not in bad.stderr
