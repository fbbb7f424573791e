"""A real `mlflow server` that goes away at the start, in the middle and at the end: training unharmed, nothing lost."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.evaluation.predictor import Predictor
from pipeline.tracking import checking, runs, store
from pipeline.tracking.runs import TrainingRun
from tests.tracking.factory import EVALUATION, images, model_folder
from tests.tracking.server import Server
from tests.tracking.test_registry import new_run, register
from tests.tracking.test_runs import PARAMETERS, all_runs, history, rows

pytestmark = pytest.mark.slow


def begin() -> TrainingRun:
    """A training's run that asks after the server often."""
    return TrainingRun.start_or_continue("digits", "resnet20-s3", "abc", PARAMETERS, {}, longest_wait=1.0)


def timed_log(training: TrainingRun, first: int, last: int) -> float:
    started = time.perf_counter()
    training.log_curves(rows(first, last))
    return time.perf_counter() - started


def test_down_at_the_start_and_in_the_middle(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING, "pipeline")
    store.initialise(server.uri)
    waited = []
    training = begin()
    waited.append(timed_log(training, 50, 100))
    assert training.run_id is None
    assert not training._outbox.flush(3)
    server.start()
    assert training.wait_for_run_id(60)
    waited.append(timed_log(training, 150, 200))
    assert training._outbox.flush(60)
    server.kill()
    waited.append(timed_log(training, 250, 300))
    waited.append(timed_log(training, 350, 400))
    assert not training._outbox.flush(3)
    server.start()
    assert training.finish(limit=60)
    (run,) = all_runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["training.batch_size"] == "64"
    assert history(run.info.run_id, "training/loss") == {i: pytest.approx(1000 / i) for i in range(50, 401, 50)}
    assert max(waited) < 1, "the training does not wait, as the server was away for 3 s and more"
    assert len([record for record in caplog.records if record.name.startswith("pipeline")]) == 1, "one warning"


def test_down_at_the_end_is_made_up_for_later(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store.initialise(server.uri)
    server.start()
    training = begin()
    training.log_curves(rows(50, 200))
    assert training._outbox.flush(60)
    server.kill()
    training.log_curves(rows(250, 300))
    started = time.perf_counter()
    assert not training.finish(limit=2)
    assert time.perf_counter() - started < 20, "some seconds after its limit, on a busy machine"
    server.start()
    assert all_runs()[0].info.status == "RUNNING"
    sent = runs.send_history("digits", "resnet20-s3", "abc", PARAMETERS, {}, rows(50, 300))
    (run,) = all_runs()
    assert sent == training.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert sorted(history(run.info.run_id, "training/loss")) == list(range(50, 301, 50))


def test_models_are_registered_at_and_loaded_from_a_server(server: Server, tmp_path: Path) -> None:
    server.start()
    store.initialise(server.uri)
    folder = model_folder(tmp_path / "trained", "resnet8-s0", 0)
    run_id = new_run()
    made = register(folder, run_id)
    assert register(folder, run_id) == made
    assert made.aliases == ["best", "latest"]
    model = mlflow.pyfunc.load_model("models:/digits-resnet8@best")
    predictor = Predictor.load(folder, batch_size=EVALUATION.batch_size)
    expected = predictor.predict(list(images(3)), EVALUATION.protocols.center_crop)
    assert np.array_equal(model.predict(images(3)), expected)
    assert checking.check("digits-resnet8") == []
    description = store.client().get_registered_model("digits-resnet8").description
    assert f"({server.uri}/#/experiments/" in description
