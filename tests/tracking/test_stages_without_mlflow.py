"""The ensemble stage writes its results where MLflow is away, and says that they are not logged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import stage
from stages import ensemble


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
