"""The whole pipeline as a newcomer runs it: from nothing to the report and the registry."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.store import Store
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.report import names
from tests.e2e.clone import RUNS, Clone
from tests.e2e.conftest import Reproduced

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

PROTOCOLS = {"center_crop", "ten_crop", "multi_scale"}


@pytest.fixture
def clone(reproduced: Reproduced) -> Clone:
    """A clone in which the experiment was reproduced."""
    return reproduced.clone


def results(clone: Clone, name: str) -> Any:
    return json.loads((clone.folder / "results" / "digits" / name).read_text())


def would_run(clone: Clone) -> set[str]:
    """The stages that `dvc repro` would run."""
    output = clone.run("dvc", "repro", "--dry").stdout
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_metrics_are_those_of_the_saved_predictions(clone: Clone) -> None:
    metrics = results(clone, "metrics.json")
    assert set(metrics["runs"]) == set(RUNS)
    for run in RUNS:
        assert set(metrics["runs"][run]) == PROTOCOLS | {"holdout"} | set(names.WAYS) - {"multi_scale_softmax"}
        for protocol in PROTOCOLS:
            saved = Predictions.load(clone.folder / "predictions" / "digits" / run / f"{protocol}.npz")
            assert metrics["runs"][run][protocol] == errors(saved.probabilities, saved.labels)
            assert metrics["runs"][run][protocol]["n_images"] == 500
            np.testing.assert_allclose(saved.probabilities.sum(1), 1, atol=1e-5)
        assert metrics["runs"][run]["ten_crop"]["top1_error"] < 60, "a tenth would be right by chance"
    assert metrics["ensembles"]["both"]["members"] == list(RUNS)
    members = [Predictions.load(clone.folder / f"predictions/digits/{run}/ten_crop.npz") for run in RUNS]
    mean = np.mean([member.probabilities.astype(np.float64) for member in members], axis=0)
    assert metrics["ensembles"]["both"]["ten_crop"] == errors(mean.astype(np.float32), members[0].labels)


def test_every_result_has_its_provenance(clone: Clone) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone.folder, capture_output=True, text=True, check=True)
    for run in RUNS:
        record = json.loads((clone.folder / "models" / "digits" / run / "train.json").read_text())
        found = record["provenance"]
        assert found["git_commit"] == head.stdout.strip()
        assert found["git_dirty"] is False
        assert found["data_digest"] == Store.open(clone.folder / "data" / "digits").digest
        assert (found["seed"], found["precision"], found["workers"]) == (0, "fp32", 1)
        assert found["parameters"]["training"]["iterations"] == 120
        assert found["packages"]["torch"].split("+")[0].count(".") == 2
        assert found["hardware"]["cores"] >= 1
        assert record["iterations"] == 120


def test_the_launcher_ends_with_the_table_and_where_to_look(reproduced: Reproduced) -> None:
    clone, end = reproduced.clone, reproduced.output[-2500:]
    metrics = results(clone, "metrics.json")
    for run in RUNS:
        assert f"{metrics['runs'][run]['ten_crop']['top1_error']:.2f}" in end
    assert "results/digits/report.html" in end
    assert "make ui" in end
    assert (clone.folder / "results/digits/report.html").stat().st_size > 20_000


def test_a_second_run_does_nothing(clone: Clone) -> None:
    assert would_run(clone) == set()
    before = (clone.folder / "dvc.lock").read_bytes()
    assert "up to date" in clone.run("dvc", "repro").stdout
    assert (clone.folder / "dvc.lock").read_bytes() == before


def test_a_changed_run_or_plot_runs_its_own_stages_again_and_no_others(clone: Clone) -> None:
    params = (clone.folder / "params.yaml").read_text()
    try:
        clone.change(lambda tree: tree["runs"]["plain8-s0"].update(training={"label_smoothing": 0.1}))
        of_all = {f"{name}@digits" for name in ("ensemble", "report", "register")}
        assert would_run(clone) == {"train@digits-plain8-s0", *of_all}
    finally:
        (clone.folder / "params.yaml").write_text(params)
    plots = clone.folder / "pipeline" / "report" / "plots.py"
    original = plots.read_text()
    try:
        plots.write_text(original + "\n# another colour\n")
        assert would_run(clone) == {"report@digits"}
    finally:
        plots.write_text(original)


def test_ensembles_and_report_are_made_anew_from_evidence_alone(clone: Clone, tmp_path: Path) -> None:
    """All networks and predictions are gone, as on another machine; what was kept of them gives the same figures."""
    lock, outputs = (clone.folder / "dvc.lock").read_bytes(), ("models", "predictions")
    metrics, ensembles = results(clone, "metrics.json"), results(clone, "ensembles/both.json")
    shutil.copytree(clone.folder / "results", tmp_path / "results")
    clone.run("tools.evidence", "keep", "digits")
    for name in outputs:
        shutil.move(clone.folder / name, tmp_path / name)
    try:
        shutil.rmtree(clone.folder / "results/digits/ensembles")
        (clone.folder / "results/digits/metrics.json").unlink()
        assert "put back, without the weights" in clone.run("tools.evidence", "restore", "digits").stdout
        stages = [f"{name}@digits" for name in ("ensemble", "report")]
        assert "train@" not in clone.run("dvc", "repro", "--single-item", *stages).stdout
        assert results(clone, "ensembles/both.json") == ensembles
        assert results(clone, "metrics.json") == metrics
        for name in outputs:
            shutil.rmtree(clone.folder / name / "digits" / "plain8-s0")
        output = clone.run("dvc", "repro", "--single-item", *stages).stdout
        assert "ensemble both: left out, as not evaluated here: plain8-s0" in output
        assert list(results(clone, "metrics.json")["runs"]) == ["resnet8-s0"]
    finally:
        for name in ("results", *outputs):
            shutil.rmtree(clone.folder / name, ignore_errors=True)
            shutil.move(tmp_path / name, clone.folder / name)
        (clone.folder / "dvc.lock").write_bytes(lock)


def test_dvc_shows_metrics_and_plots(clone: Clone) -> None:
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    ensembles = {f"results/digits/ensembles/{name}.json" for name in ("both", "searched")}
    assert set(files) == {f"results/digits/runs/{run}.json" for run in RUNS} | ensembles
    clone.run("dvc", "plots", "show", "-o", "plots")
    page = (clone.folder / "plots" / "index.html").read_text()
    assert "Test error against iteration" in page
    assert '"run": "resnet8-s0"' in page


LOADED = """
import json, sys
import mlflow.pyfunc, numpy as np
images, labels = (np.load(path) for path in sys.argv[2:])
model = mlflow.pyfunc.load_model(sys.argv[1])
probabilities = np.asarray(model.predict(images))
print(json.dumps([probabilities.shape, 100 * float((probabilities.argmax(1) != labels).sum()) / len(labels)]))
"""


@pytest.mark.parametrize("name", ["digits-resnet8@best", "digits-ensemble-both@best"])
def test_a_registered_model_gives_the_reported_error_in_a_plain_process(
    clone: Clone, name: str, tmp_path: Path
) -> None:
    split = Store.open(clone.folder / "data" / "digits").split("test")
    np.save(tmp_path / "images.npy", split.array())
    np.save(tmp_path / "labels.npy", split.labels)
    words = [sys.executable, "-c", LOADED, f"models:/{name}", *map(str, sorted(tmp_path.glob("*.npy")))]
    environment = {**clone.environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{clone.folder}/mlflow.db"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    shape, error = json.loads(done.stdout.splitlines()[-1])
    metrics = results(clone, "metrics.json")
    reported = metrics["ensembles"]["both"] if "ensemble" in name else metrics["runs"]["resnet8-s0"]
    assert shape == [500, 10]
    assert error == reported["center_crop"]["top1_error"]


def test_registering_again_adds_no_version(clone: Clone) -> None:
    before = results(clone, "registry.json")
    assert set(before) == {"digits-plain8", "digits-resnet8", "digits-ensemble-both"}
    clone.run("stages.register", "digits")
    assert results(clone, "registry.json") == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("learning_rat", 0.1, "training.learning_rat: unknown key"),
        ("iterations", -5, "training.iterations: -5 is not allowed"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(clone: Clone, key: str, value: float, message: str) -> None:
    params = (clone.folder / "params.yaml").read_text()
    try:
        clone.change(lambda tree: tree["training"].update({key: value}))
        for words in (("infra.reproduce",), ("stages.train", "digits", "plain8-s0")):
            done = clone.run(*words, check=False)
            assert done.returncode == 2
            assert message in done.stdout
            assert "Running stage" not in done.stdout
    finally:
        (clone.folder / "params.yaml").write_text(params)


def test_an_unknown_network_is_refused_by_name(clone: Clone) -> None:
    params = (clone.folder / "params.yaml").read_text()
    try:
        clone.change(lambda tree: tree["runs"].update({"resnet21-s0": {"training": {}}}))
        done = clone.run("infra.reproduce", check=False)
        assert done.returncode == 2
        assert "runs.resnet21-s0" in done.stdout
    finally:
        (clone.folder / "params.yaml").write_text(params)
