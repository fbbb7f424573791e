"""A registered model behind `mlflow models serve`: predictions as saved, bad requests answered with 400."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from pipeline.evaluation.predictor import Predictor
from tests.tracking.factory import EVALUATION, images, model_folder
from tests.tracking.test_images import bomb, encoded
from tests.tracking.test_registry import new_run, register

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tracking: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a serving process, and the model folder behind it."""
    folder = model_folder(tmp_path, "resnet8-s0", 0)
    register(folder, new_run())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/digits-resnet8@best"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with open(tmp_path / "serve.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/ping", process, tmp_path / "serve.log")
            yield f"http://127.0.0.1:{port}/invocations", folder
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(log.read_text())


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_three_forms_top_k_and_bad_requests(served: tuple[str, Path]) -> None:
    url, folder = served
    batch = images(4)
    predictor = Predictor.load(folder, batch_size=EVALUATION.batch_size)
    texts = [base64.b64encode(encoded(image)).decode() for image in batch]
    for name, protocol in EVALUATION.protocols.chosen().items():
        expected = predictor.predict(list(batch), protocol)
        for form in (
            {"inputs": batch.tolist()},
            {"inputs": texts},
            {"instances": texts},
            {"dataframe_split": {"columns": ["images"], "data": [[text] for text in texts]}},
        ):
            status, found = post(url, {**form, "params": {"protocol": name}})
            assert status == 200, found
            assert np.abs(np.array(found) - expected).max() < 1e-5
    status, top = post(url, {"inputs": texts, "params": {"top_k": 5}})
    assert status == 200
    assert [len(row) for row in top] == [5] * 4
    assert {"class", "label", "probability"} == set(top[0][0])
    _refusals(url, texts[0])
    example = json.loads(next((folder.parent / "mlartifacts").rglob("serving_input_example.json")).read_text())
    assert post(url, example)[0] == 200, "still alive, and the stored example can be posted"


def _refusals(url: str, good: str) -> None:
    huge = base64.b64encode(bomb(10_000, 10_000)).decode()
    broken = base64.b64encode(encoded(images(1, size=(64, 64))[0], "JPEG")[:900]).decode()
    for body, message in [
        ({"inputs": [good, broken]}, "image 1: broken image"),
        ({"inputs": [huge]}, "10000x10000 pixels"),
        ({"inputs": ["***"]}, "not base64"),
        ({"inputs": [[[[300, 0, 0]]]]}, "give whole numbers"),
        ({"inputs": [good], "params": {"protocol": "nine_crop"}}, "nine_crop"),
        ({"inputs": [good], "params": {"top_k": 99}}, "top_k: 99"),
        ({"inputs": [good], "params": {"top_k": "many"}}, "top_k"),
        ({"inputs": []}, ""),
        ({"inputs": {"pictures": [good]}}, "images"),
        ({"other": 1}, ""),
        ([], ""),
        (b"{", ""),
        (b"\xff", ""),
    ]:
        status, answer = post(url, body)
        assert status == 400, (body, answer)
        assert message in answer


def test_the_loaded_model_is_the_served_one(served: tuple[str, Path]) -> None:
    url, _ = served
    model = mlflow.pyfunc.load_model("models:/digits-resnet8@best")
    status, found = post(url, {"inputs": images(2).tolist()})
    assert status == 200
    assert np.abs(np.array(found) - model.predict(images(2))).max() < 1e-5
