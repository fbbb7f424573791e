"""The ensemble stage: its two files, and members that are never chosen on the images that they are reported on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.config import parse_params
from pipeline.evaluation.ensembles import average, halves, only
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.stage import Stage
from pipeline.storage import read_json, write_json
from stages import ensemble
from tests.cluster.conftest import small_params

pytestmark = pytest.mark.slow

RUNS = [f"resnet8-s{seed}" for seed in range(4)]
N, CLASSES, PROTOCOLS = 300, 10, ("center_crop", "ten_crop")


def made_up(seed: int) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = np.arange(N) % CLASSES
    scores = generator.normal(size=(N, CLASSES)) + (1.0 + 0.3 * (seed % 4)) * np.eye(CLASSES)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return Predictions(np.array([str(i) for i in range(N)]), labels, probabilities.astype(np.float32))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four runs' predictions, of which MLflow knows nothing."""
    for number, run in enumerate(RUNS):
        folder = tmp_path / paths.predictions_dir("digits", run)
        for place, name in enumerate((*PROTOCOLS, "holdout")):
            made_up(number + 10 * place).save(folder / f"{name}.npz")
        write_json(folder / paths.SUMMARY, {"mlflow_run_id": None})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(select_on: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Errors, and what is said of members, by ensemble."""
    tree = small_params().model_dump(mode="json")
    tree["runs"] = {name: {"training": {}} for name in RUNS}
    tree["ensembles"] = {"both": RUNS[:2], "three": RUNS[:3]}
    search = {"search": "greedy", "candidates": None, "select_on": select_on, "most": 4, "seed": 3}
    tree["ensemble_searches"] = {"found": search}
    tree["evaluation"]["protocols"]["multi_scale"] = None
    ensemble.run(Stage(parse_params(tree), "digits", "", False))
    folders = (paths.ensembles_dir("digits"), paths.members_dir("digits"))
    first, second = ({path.stem: read_json(path) for path in folder.glob("*.json")} for folder in folders)
    return first, second


def load(member: str, name: str) -> Predictions:
    return Predictions.load(paths.predictions_dir("digits", member) / f"{name}.npz")


def test_metrics_have_errors_alone_and_members_stand_beside(root: Path) -> None:
    metrics, details = run("holdout")
    assert set(metrics) == set(details) == {"both", "three", "found"}
    for name, found in metrics.items():
        assert set(found) == {"members", *PROTOCOLS}
        assert details[name]["members"] == found["members"]
        for protocol in PROTOCOLS:
            members = {member: load(member, protocol) for member in found["members"]}
            mean = average(members)
            assert found[protocol] == errors(mean.probabilities, mean.labels)
            without = details[name]["leave_one_out"][protocol]
            assert set(without) == set(members)
    alone = load(RUNS[1], "ten_crop")
    assert details["both"]["leave_one_out"]["ten_crop"][RUNS[0]] == errors(alone.probabilities, alone.labels)
    assert details["both"]["search"] is None
    assert details["found"]["search"]["n_selecting"] == N


def test_ensembles_of_runs_that_are_not_there_yet_are_left_out_and_named(root: Path, capsys) -> None:
    shutil.rmtree(paths.predictions_dir("digits", RUNS[2]))
    metrics, details = run("holdout")
    assert set(metrics) == set(details) == {"both"}
    told = capsys.readouterr().err
    for name in ("three", "found"):
        assert f"ensemble {name}: left out, as not evaluated here: {RUNS[2]}" in told
    (paths.predictions_dir("digits", RUNS[1]) / "ten_crop.npz").unlink()
    with pytest.raises(ValueError, match="not a file of predictions"):
        run("holdout")


def spoil(name: str, indices: np.ndarray) -> None:
    """Make the predictions of some images nonsense for the runs that are best."""
    for member in RUNS:
        found = load(member, name)
        probabilities = found.probabilities.copy()
        probabilities[indices] = np.roll(probabilities[indices], RUNS.index(member) + 1, axis=1)
        replace(found, probabilities=probabilities).save(paths.predictions_dir("digits", member) / f"{name}.npz")


def test_members_are_chosen_on_held_out_images_whatever_the_test_images_say(root: Path) -> None:
    before = run("holdout")
    for name in PROTOCOLS:
        spoil(name, np.arange(N))
    after = run("holdout")
    assert after[1]["found"]["search"] == before[1]["found"]["search"]
    assert after[0]["found"]["members"] == before[0]["found"]["members"]
    assert after[0]["found"]["ten_crop"] != before[0]["found"]["ten_crop"]


def test_the_half_that_reports_chooses_nothing(root: Path) -> None:
    selecting, reporting = halves(N, 3)
    before = run("half")
    members = {member: only(load(member, "ten_crop"), reporting) for member in before[0]["found"]["members"]}
    mean = average(members)
    assert before[0]["found"]["ten_crop"] == errors(mean.probabilities, mean.labels)
    assert before[0]["both"]["ten_crop"]["n_images"] == N
    spoil("center_crop", reporting)
    assert run("half")[1]["found"]["search"] == before[1]["found"]["search"]
    spoil("center_crop", selecting)
    assert run("half")[1]["found"]["search"] != before[1]["found"]["search"]
