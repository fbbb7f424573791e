"""Stages that do without MLflow where it is away, or its database can't be used, and say so."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import stage
from pipeline.tracking.surroundings import Surroundings
from stages import ensemble, train


def test_an_ensemble_is_measured_though_mlflow_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    measured = {"center_crop": {"top1_error": 2.5, "top5_error": 0.0, "n_images": 500}}
    protocols = SimpleNamespace(chosen=lambda: {"center_crop": None})
    evaluation = SimpleNamespace(protocols=protocols, split="test")
    at = cast(stage.Stage, SimpleNamespace(experiment="digits", params=SimpleNamespace(evaluation=evaluation)))
    ids: Any = {"resnet20-s0": "a" * 32, "resnet56-s0": "b" * 32}
    ensemble._track(at, "both", ids, cast(Any, measured))
    message = capsys.readouterr().err
    assert message.startswith(
        "ensemble both: not logged, which the register stage makes up for: MLflow at http://127.0.0.1:9"
    )
    assert json.dumps(message).count("\\n") == 1, "no traceback"
    ensemble._track(at, "both", {**ids, "resnet20-s0": None}, cast(Any, measured))
    assert capsys.readouterr().err == "", "its members are not there to link"


def test_a_training_goes_on_though_the_database_cannot_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "mlflow.db.lock").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "SECONDS_TO_TELL", {"FINISHED": 0.2})
    monkeypatch.setattr(train.cluster, "has_checkpoint", lambda *_: False)
    data = SimpleNamespace(url=None, source="digits")
    spec: Any = SimpleNamespace(identity=dict, parameters=dict, data_digest="d" * 64, data=data)
    at: Any = SimpleNamespace(experiment="digits", run="resnet20-s3", params=SimpleNamespace(cluster=None))
    with train._tracked(at, spec, {}, Surroundings({})) as tracked:
        tracked.look()
        tracked.log_curves([{"iteration": 1, "training_loss": 1.0}])
        while not [record for record in caplog.records if record.name.startswith("pipeline")]:
            time.sleep(0.01)
    message = "resnet20-s3: MLflow has not all of it; evaluate, or register, sends what is missing\n"
    assert capsys.readouterr().err == message
    (warning,) = [record.message for record in caplog.records if record.name.startswith("pipeline")]
    assert warning.startswith("digits/resnet20-s3: MLflow cannot be reached (")
    assert f"{tmp_path}/mlflow.db.lock" in warning
