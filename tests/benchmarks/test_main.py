"""`python -m benchmarks`: processes, table, file, and what happens when a script fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SCRIPTS, main
from benchmarks.record import Measurement

ROOT = Path(__file__).parents[2]


def test_every_script_is_run() -> None:
    shared = {
        "__init__",
        "__main__",
        "record",
        "pairs",
        "images",
        "ours",
        "page",
        "gpu_steps",
        "clone",
        "seeds",
        "turns",
    }
    apart = {"scale", "precision"}
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - shared - apart
    assert modules == set(SCRIPTS)


@pytest.mark.slow
def test_figures_of_a_script_are_written(tmp_path: Path, capfd) -> None:
    out = tmp_path / "benchmarks.json"
    assert main(["--quick", "--only", "limits", "--shared-machine", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert {"benchmarks", "hardware", "versions", "git_commit"} <= set(written)
    assert written["shared_machine"]
    assert written["benchmarks"][0]["unit"] == "GFLOP/s"
    assert "ratio: " in capfd.readouterr().out


@pytest.mark.slow
def test_a_failed_script_is_named_and_the_others_figures_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    out = tmp_path / "benchmarks.json"
    monkeypatch.setitem(SCRIPTS, "loader", ["--no-such-option"])
    assert main(["--quick", "--only", "limits", "loader", "--out", str(out)]) == 1
    assert "failed: loader" in capfd.readouterr().out
    assert len(json.loads(out.read_text())["benchmarks"]) == 3


@pytest.mark.parametrize("words", [["--quick"], ["--only", "limits"]])
def test_a_part_takes_no_published_figures_place(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.__main__.run_all", lambda _: ([Measurement("one", 1.0, None, "s")], []))
    assert main(words) == 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_no_script_gives_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    out = tmp_path / "benchmarks.json"
    monkeypatch.setattr("benchmarks.__main__.command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    assert main(["--quick", "--only", "limits", "--out", str(out)]) == 1
    assert "no benchmark gave a figure" in capfd.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_script_alone_ends_with_its_ratio() -> None:
    command = [sys.executable, "-m", "benchmarks.loader", "--images", "32", "--rounds", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.splitlines()[-1].removeprefix("ratio: ")) > 0
