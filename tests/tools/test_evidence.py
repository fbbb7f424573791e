"""What figures were made from, kept without weights: the report made from it is the report there was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.report import write_report
from pipeline.schema import Report
from pipeline.storage import read_json, write_json
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES
from tools.evidence import evidence_dir, keep, main, restore

RESULTS = ("metrics.json", "curves.csv", "report.md")


def results(root: Path) -> list[bytes]:
    return [(root / paths.results_dir("digits") / name).read_bytes() for name in RESULTS]


def leave_weights(root: Path) -> None:
    for run in DIGITS:
        (root / paths.model_dir("digits", run) / "weights.safetensors").write_bytes(b"weights")


def lose_outputs(root: Path) -> None:
    for folder in ("models", "predictions"):
        shutil.rmtree(root / folder)


def test_the_report_made_from_evidence_is_the_report_there_was(digits: Path, digits_report: Report) -> None:
    leave_weights(digits)
    assert write_report("digits", digits_report, DIGITS, DIGITS_ENSEMBLES, digits) == []
    before = results(digits)
    assert keep("digits", digits) == sorted(DIGITS)
    lose_outputs(digits)
    assert restore("digits", digits) == sorted(DIGITS)
    assert write_report("digits", digits_report, DIGITS, DIGITS_ENSEMBLES, digits) == []
    assert results(digits) == before
    assert list(digits.rglob("*.safetensors")) == []
    assert not [path for path in digits.rglob("*") if path.name.endswith(".partial")]


def test_runs_of_several_machines_come_together(digits: Path) -> None:
    """One run was trained here, the other's evidence was kept elsewhere: neither takes the other's place."""
    first, second = sorted(DIGITS)[:2]
    keep("digits", digits)
    for run in DIGITS:
        if run != second:
            shutil.rmtree(digits / paths.model_dir("digits", run))
            shutil.rmtree(digits / paths.predictions_dir("digits", run))
    own = digits / paths.model_dir("digits", second) / "history.csv"
    own.write_text(own.read_text() + "\n")
    assert restore("digits", digits) == sorted(set(DIGITS) - {second})
    assert own.read_text().endswith("\n\n"), "what lies there is left as it is"
    assert keep("digits", digits) == sorted(DIGITS)
    assert (digits / evidence_dir("digits", second) / "training/history.csv").read_text() == own.read_text()
    assert (digits / evidence_dir("digits", first) / "predictions/center_crop.npz").is_file()


def test_figures_that_the_report_would_not_show_are_no_evidence(digits: Path) -> None:
    record = digits / paths.predictions_dir("digits", "resnet20-s0") / "evaluate.json"
    write_json(record, {**read_json(record), "weights_sha256": "ee" * 32})
    (digits / paths.predictions_dir("digits", "plain20-s0") / "evaluate.json").unlink()
    with pytest.raises(ValueError, match=r"plain20-s0, resnet20-s0: no evidence to keep: .* of other weights than"):
        keep("digits", digits)
    assert not (digits / evidence_dir("digits", "-")).parent.exists()


def test_restoring_says_what_comes_next(digits: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(digits)
    main(["keep", "digits"])
    assert f"plain20-s0: kept in {evidence_dir('digits', 'plain20-s0')}" in capsys.readouterr().out
    lose_outputs(digits)
    main(["restore", "digits"])
    told = capsys.readouterr().out
    assert "plain20-s0: put back, but for the weights" in told
    assert "dvc repro --single-item ensemble@digits report@digits" in told
    main(["restore", "elsewhere"])
    assert "put back" not in capsys.readouterr().out
