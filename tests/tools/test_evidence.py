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
from tools import evidence
from tools.evidence import evidence_dir, keep, main, restore, runs_here, runs_kept

RESULTS = ("metrics.json", "curves.csv", "report.md")
RUN = "resnet20-s0"


def results(root: Path) -> list[bytes]:
    return [(root / paths.results_dir("digits") / name).read_bytes() for name in RESULTS]


def model(root: Path, run: str = RUN) -> Path:
    return root / paths.model_dir("digits", run)


def predictions(root: Path, run: str = RUN) -> Path:
    return root / paths.predictions_dir("digits", run)


def kept(root: Path, run: str = RUN) -> Path:
    return root / evidence_dir("digits", run)


def lose(root: Path, *runs: str) -> None:
    for run in runs:
        shutil.rmtree(model(root, run))
        shutil.rmtree(predictions(root, run))


@pytest.fixture
def lost(digits: Path) -> Path:
    """A root where all outputs are gone and the evidence of all runs is kept."""
    for run in DIGITS:
        (model(digits, run) / "weights.safetensors").write_bytes(b"weights")
        keep("digits", run, digits)
    lose(digits, *DIGITS)
    return digits


def test_the_report_made_from_evidence_is_the_report_there_was(digits: Path, digits_report: Report) -> None:
    assert write_report("digits", digits_report, DIGITS, DIGITS_ENSEMBLES, digits) == []
    before = results(digits)
    (model(digits) / "weights.safetensors").write_bytes(b"weights")
    for run in runs_here("digits", digits):
        keep("digits", run, digits)
    lose(digits, *DIGITS)
    assert runs_kept("digits", digits) == sorted(DIGITS)
    for run in DIGITS:
        assert restore("digits", run, digits) == "training and predictions put back, without the weights"
    assert write_report("digits", digits_report, DIGITS, DIGITS_ENSEMBLES, digits) == []
    assert results(digits) == before
    assert list(digits.rglob("*.safetensors")) == []
    assert not [path for path in digits.rglob("*") if path.name.endswith(".partial")]


def test_what_is_there_is_left_and_half_of_a_run_is_completed(lost: Path) -> None:
    restore("digits", RUN, lost)
    assert restore("digits", RUN, lost) == "is there, left as it is"
    shutil.rmtree(predictions(lost))
    own = model(lost) / "history.csv"
    own.write_text(own.read_text() + "\n")
    assert restore("digits", RUN, lost) == "predictions put back, without the weights"
    assert own.read_text().endswith("\n\n")


def damage_record(root: Path) -> None:
    (kept(root) / "training/train.json").write_text("<<<<<<< ours")


def lose_summary(root: Path) -> None:
    (kept(root) / "predictions/evaluate.json").unlink()


def lose_a_folder(root: Path) -> None:
    shutil.rmtree(kept(root) / "predictions")


def of_older_figures(root: Path) -> None:
    shown = root / paths.run_metrics("digits", RUN)
    figures = read_json(shown)
    figures["ten_crop"]["top1_error"] += 1
    write_json(shown, figures)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_record, "train.json can't be read"),
        (lose_summary, "evaluate.json is missing"),
        (lose_a_folder, "predictions is missing"),
        (of_older_figures, "evaluate.json give different figures"),
    ],
)
def test_damaged_evidence_is_not_put_back(lost: Path, damage, told: str) -> None:
    damage(lost)
    with pytest.raises(ValueError, match=told):
        restore("digits", RUN, lost)
    assert not model(lost).exists()
    assert not predictions(lost).exists()


def other_weights(root: Path) -> None:
    record = predictions(root) / "evaluate.json"
    write_json(record, {**read_json(record), "weights_sha256": "ee" * 32})


def other_images(root: Path) -> None:
    shutil.copy(predictions(root, "plain56-s0") / "ten_crop.npz", predictions(root) / "ten_crop.npz")


def another_run(root: Path) -> None:
    record = model(root) / "train.json"
    write_json(record, {**read_json(record), "run": "resnet20-s1"})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (other_weights, "of other weights than the model's"),
        (other_images, r"ten_crop.npz does not give the top-1 error of .*% that is told of it"),
        (another_run, "train.json is of resnet20-s1"),
        (lambda root: (predictions(root) / "ten_crop.npz").write_bytes(b"PK"), "not a file of predictions"),
        (lambda root: (model(root) / "history.csv").unlink(), "history.csv is missing"),
        (lambda root: (model(root) / "model.json").unlink(), "model.json is missing"),
        (lambda root: shutil.rmtree(model(root)), "train.json is missing"),
        (lambda root: lose(root, RUN) or (root / paths.run_metrics("digits", RUN)).unlink(), "neither trained nor"),
    ],
)
def test_what_the_report_would_not_show_is_no_evidence(digits: Path, damage, told: str) -> None:
    keep("digits", RUN, digits)
    before = sorted(kept(digits).rglob("*"))
    damage(digits)
    with pytest.raises(ValueError, match=told):
        keep("digits", RUN, digits)
    assert sorted(kept(digits).rglob("*")) == before, "what was kept earlier stays"


def test_files_too_large_for_git_are_refused(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"bytes are too many for git: use `dvc push`"):
        keep("digits", RUN, digits)


def test_one_unfit_run_keeps_no_other_from_being_kept(digits: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(digits)
    (digits / "models/digits/notes").mkdir()
    shutil.rmtree(predictions(digits, "plain20-s0"))
    assert main(["keep", "digits"]) == 1
    told = capsys.readouterr()
    assert f"{RUN}: kept in {evidence_dir('digits', RUN)}" in told.out
    assert "git add results/digits dvc.lock" in told.out
    assert "plain20-s0: not kept: not shown, as predictions/digits/plain20-s0/evaluate.json is missing" in told.err
    assert runs_kept("digits") == sorted(set(DIGITS) - {"plain20-s0"})
    assert main(["keep", "digits", RUN]) == 0


def test_restoring_says_what_comes_next(lost: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(lost)
    assert main(["restore", "digits"]) == 0
    told = capsys.readouterr().out
    assert f"{RUN}: training and predictions put back, without the weights" in told
    steps = told.splitlines()[-3:]
    command = "dvc exp run -S experiment=digits prepare@digits"
    assert steps[0].strip().startswith(f"{command}    # docs/RESULTS.md")
    assert steps[1].strip() == "dvc repro --single-item ensemble@digits report@digits"


@pytest.mark.parametrize(("action", "where"), [("keep", "under models/digitz"), ("restore", "results/digitz/evidence")])
def test_an_experiment_that_is_not_there_is_refused(
    action: str, where: str, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(digits)
    assert main([action, "digitz"]) == 2
    told = capsys.readouterr().err
    assert where in told
    assert "experiments with results in this folder: digits" in told
