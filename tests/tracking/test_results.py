"""Runs brought up to what was saved, after whatever absence; the report's run and its links."""

from __future__ import annotations

import csv
import json
import socket
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking import store
from pipeline.tracking.results import read_history, send_report, send_results
from pipeline.tracking.surroundings import Surroundings
from tests.tracking.factory import METRICS
from tests.tracking.test_runs import PARAMETERS, all_runs, begin, history, rows

pytestmark = pytest.mark.slow

FIGURES = {
    "runs": {"resnet20-s3": {"ten_crop": {"top1_error": 3.0, "n_images": 500}}},
    "ensembles": {"both": {"members": ["a", "b"], "ten_crop": {"top1_error": 2.5}, "leave_one_out": {"ten_crop": {}}}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is read of a model folder: its record and curves."""
    trained = tmp_path / "trained"
    trained.mkdir()
    record = {"identity": "abc", "iterations": 300, "provenance": {"parameters": PARAMETERS, "git_commit": "f" * 40}}
    (trained / "train.json").write_text(json.dumps(record))
    with open(trained / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows(50, 50)[0]))
        writer.writeheader()
        writer.writerows(rows(50, 300))
    return trained


def send(folder: Path) -> str:
    return send_results("digits", "resnet20-s3", folder, METRICS, ("d" * 64, "digits"), split="test", limit=60)


def test_a_run_that_mlflow_never_heard_of_is_made_whole_once(tracking: str, folder: Path) -> None:
    assert read_history(folder)[0]["iteration"] == "50"
    assert send(folder) == send(folder)
    (run,) = all_runs()
    assert run.info.status == "FINISHED"
    assert sorted(history(run.info.run_id, "training/loss")) == list(range(50, 301, 50))
    assert history(run.info.run_id, "test/center_crop/top1_error") == {300: 5.5}
    assert run.data.tags["git.commit"] == "f" * 40
    assert len(run.inputs.dataset_inputs) == 1


def test_a_run_that_is_made_later_has_the_training_s_surroundings(
    tracking: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_STAGE", "evaluate@digits-resnet20-s3")
    assert "dvc.stage" not in store.client().get_run(send(folder)).data.tags, "nothing is said that is not known"
    store.client().delete_run(all_runs()[0].info.run_id)
    tags = {"dvc.stage": "train@digits-resnet20-s3", "ray.job_id": "01", "dvc.lock": "0a1b"}
    Surroundings(tags, {"code.patch": b"+A = 2\n", "packages.txt": b"mlflow==3\n"}).save(folder)
    run_id = send(folder)
    found = store.client().get_run(run_id).data.tags
    assert {key: found[key] for key in tags} == tags
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/code.patch") == "+A = 2\n"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/packages.txt") == "mlflow==3\n"
    attached = found["attached"]
    assert send(folder) == run_id
    assert store.client().get_run(run_id).data.tags["attached"] == attached


def test_errors_go_to_the_run_that_the_training_noted(tracking: str, folder: Path) -> None:
    trained = begin()
    assert trained.finish(limit=60)
    unfinished = begin(anew=True)
    assert unfinished.finish("KILLED", limit=60)
    record = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps({**record, "mlflow_run_id": trained.run_id}))
    assert send(folder) == trained.run_id
    assert store.client().get_run(str(unfinished.run_id)).info.status == "KILLED"


def test_a_run_that_lost_its_end_is_completed(tracking: str, folder: Path) -> None:
    training = begin()
    training.log_curves(rows(50, 150))
    assert training._outbox.close(60)
    assert send(folder) == training.run_id
    assert sorted(history(str(training.run_id), "training/loss")) == list(range(50, 301, 50))


def test_a_server_that_is_away_is_one_clear_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:hunter2@127.0.0.1:{port}")
    store.initialise()
    with pytest.raises(ValueError, match=rf"MLflow at http://\*\*\*@127.0.0.1:{port}: did not take all of resnet20-s3"):
        send_results("digits", "resnet20-s3", folder, METRICS, ("d", "digits"), split="test", limit=1)
    with pytest.raises(ValueError, match=rf"^MLflow at http://\*\*\*@127.0.0.1:{port}: .*") as caught, store.answered():
        store.experiment_id("digits")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caplog.text


def test_a_report_has_one_run_that_links_what_it_is_about(tracking: str) -> None:
    training = begin()
    assert training.finish(limit=60)
    members = {"resnet20-s3": str(training.run_id), "both": "e" * 32}
    sent = [
        send_report("digits", FIGURES, members, {"report.html": b"<p>", "tables/a.csv": b"1"}, split="test")
        for _ in range(2)
    ]
    assert sent[0] == sent[1]
    run = store.client().get_run(sent[0])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "report-digits")
    assert run.data.metrics == {"test/ten_crop/top1_error": 2.5, "n_runs": 1, "n_ensembles": 1}
    assert run.data.tags["kind"] == "report"
    assert run.data.tags["member.resnet20-s3"] == members["resnet20-s3"]
    assert f"/runs/{members['resnet20-s3']})" in run.data.tags["mlflow.note.content"]
    assert {file.path for file in store.client().list_artifacts(sent[0])} == {"report.html", "tables"}
    other = {**FIGURES, "ensembles": {}}
    assert send_report("digits", other, members, {}, split="test") != sent[0]
