"""`python -m benchmarks`: processes, table, file, and what happens when a script fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import overhead
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


@pytest.mark.parametrize(("words", "failed"), [(["--quick"], []), (["--only", "limits"], []), ([], ["loader"])])
def test_a_part_takes_no_published_figures_place(
    words: list[str], failed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.__main__.run_all", lambda _: ([Measurement("one", 1.0, None, "s")], failed))
    assert main(words) == len(failed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--turn", "2"], ["--turn", "1", "--settle", "1"], ["--rounds", "0"]])
def test_a_turn_is_longer_than_it_takes_to_settle(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        overhead._options(words)
    assert "--settle has to be less than --turn" in capsys.readouterr().err
    quick = overhead._options(SCRIPTS["overhead"])
    assert (quick.turn, quick.settle) == (2.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("prepare", ["--images", "16", "--rounds", "1"]),
        ("ensembles", ["--runs", "3", "--images", "200"]),
    ],
)
def test_scripts_on_files_end_with_their_ratio(script: str, words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{script}", *words, "--json", str(tmp_path / "found.json")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    first = json.loads((tmp_path / "found.json").read_text())[0]
    assert f"ratio: {first['ratio']:.2f}" == ended.stdout.splitlines()[-1]
    assert first["ours"] > 0 < first["peer"]


@pytest.mark.slow
def test_too_few_images_are_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.loader", "--images", "16", "--rounds", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 1
    assert "16 images, of which a mini-batch takes 32: give more" in ended.stderr


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
