"""A registered model behind `mlflow models serve`: predictions as saved, bad requests answered as such."""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor
from pipeline.schema import Data
from pipeline.tracking import scoring, store
from tests.tracking.factory import EVALUATION, images, model_folder
from tests.tracking.malformed import request
from tests.tracking.serving import JSON, post, send, serving
from tests.tracking.test_images import bomb, encoded
from tests.tracking.test_registry import new_run, register

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
MODEL = "models:/digits-resnet8@best"
DIGITS = {
    "source": "digits",
    "url": None,
    "store": None,
    "keep": "decoded",
    "size": 20,
    "limit_shorter_side": None,
    "shard_images": 1024,
    "on_bad_image": "error",
    "max_pixels": 10_000,
    "holdout": {"images": 0, "seed": 0, "balanced": True, "train_on": False},
    "mean": {"kind": "per_pixel", "shorter_side": 20, "crop": 16, "divide_by_std": False},
}


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, fresh_database: Path) -> tuple[str, Path]:
    """The store in which a model is registered, and the folder of all: database and model folder resnet8-s0."""
    root = tmp_path_factory.mktemp("served")
    (root / store.DATABASE).write_bytes(fresh_database.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(store, "_chosen_here", None)
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        uri = store.initialise(None, root)
        register(model_folder(root, "resnet8-s0", 0), new_run())
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
    return uri, root


@pytest.fixture(scope="module")
def port(registered: tuple[str, Path]) -> Iterator[int]:
    """The port of `mlflow models serve`."""
    words = ["mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local"]
    with serving(words, *registered) as found:
        yield found


def test_a_hundred_images_in_three_forms_give_the_saved_predictions(
    port: int, registered: tuple[str, Path], tmp_path: Path
) -> None:
    predictor = Predictor.load(registered[1] / "resnet8-s0", batch_size=EVALUATION.batch_size)
    prepare(Data.model_validate(DIGITS), tmp_path / "data")
    split = Store.open(tmp_path / "data").split("test")
    chosen = np.arange(100)
    pixels = np.stack([split.image(int(i)) for i in chosen])
    texts = [base64.b64encode(encoded(image)).decode() for image in pixels]
    for name, protocol in EVALUATION.protocols.chosen().items():
        rows = predictor.predict([split.image(int(i)) for i in chosen], protocol)
        Predictions(np.array(split.keys)[chosen], split.labels[chosen], rows).save(tmp_path / f"{name}.npz")
        saved = Predictions.load(tmp_path / f"{name}.npz").probabilities
        assert saved.shape == (100, 10)
        for form in (
            {"inputs": pixels.tolist()},
            {"inputs": texts},
            {"dataframe_split": {"columns": ["images"], "data": [[text] for text in texts]}},
        ):
            status, found = post(port, {**form, "params": {"protocol": name}})
            assert status == 200, found
            assert np.abs(np.array(found) - saved).max() < 1e-5


def test_the_readmes_curl_gets_a_jpegs_top_five(port: int, tmp_path: Path) -> None:
    (tmp_path / "digit.jpg").write_bytes(encoded(images(1, size=(30, 40))[0], "JPEG"))
    (command,) = re.findall(r"^curl -s (?:.*\\\n)*.*digit\.jpg$", README.read_text(), re.MULTILINE)
    command = command.replace(":8080/", f":{port}/").replace("/tmp/digit.jpg", "digit.jpg")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True, timeout=600)
    (top,) = json.loads(done.stdout)["predictions"]
    assert [set(row) for row in top] == [{"class", "label", "probability"}] * 5
    assert [row["probability"] for row in top] == sorted((row["probability"] for row in top), reverse=True)


def test_an_image_can_be_posted_as_it_is(port: int) -> None:
    jpeg = encoded(images(1, size=(30, 40))[0], "JPEG")
    status, answer = send(port, jpeg, {"Content-Type": "image/jpeg"})
    text = base64.b64encode(jpeg).decode()
    assert (status, json.loads(answer)["predictions"]) == post(port, {"inputs": [text], "params": {"top_k": 5}})
    status, answer = send(port, b"no image", {"Content-Type": "image/png"})
    assert (status, b"image 0: 8 bytes that are no image of JPEG, PNG" in answer) == (400, True)


def test_bad_requests_are_400_with_the_reason(port: int, registered: tuple[str, Path]) -> None:
    good = base64.b64encode(encoded(images(1)[0])).decode()
    huge = base64.b64encode(bomb(10_000, 10_000)).decode()
    strip = base64.b64encode(encoded(np.zeros((1, 60_000, 3), np.uint8))).decode()
    broken = base64.b64encode(encoded(images(1, size=(64, 64))[0], "JPEG")[:900]).decode()
    for body, message in [
        ({"inputs": [good, broken]}, "image 1: broken image"),
        ({"inputs": [huge]}, "10000x10000 pixels"),
        ({"inputs": [strip]}, "image 0: 60000x1 is 24000000 pixels once scaled"),
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
        status, answer = post(port, body)
        assert status == 400, (body, answer)
        assert message in answer
        assert len(answer) < 1500, "a reason, not the request again"
    example = json.loads(next((registered[1] / "mlartifacts").rglob("serving_input_example.json")).read_text())
    assert post(port, example)[0] == 200, "still alive, and the stored example can be posted"


def test_requests_that_mlflow_itself_fails_on_are_refused(port: int) -> None:
    body = json.dumps({"inputs": images(1).tolist()}).encode()
    assert send(port, body, {})[0] == 415
    for malformed in (b"[" * 100_000, b'{"inputs":[' + b"9" * 5000 + b"]}"):
        status, answer = send(port, malformed, JSON)
        assert (status, b"the request cannot be read" in answer) == (400, True)
    assert send(port, b" " * (scoring.MOST_BYTES + 1), JSON)[0] == 413
    assert send(port, b"", {}, "/version", "GET")[0] == 200


def test_of_500_malformed_requests_none_is_a_5xx_and_the_server_lives(port: int) -> None:
    draw = random.Random(1512)
    statuses: Counter[int] = Counter()
    for _ in range(500):
        body, headers, path = request(draw)
        status, answer = send(port, body, headers, path)
        assert status < 500, (body[:300], headers, path, answer[:300])
        statuses[status] += 1
    assert statuses[400] > 250, statuses
    assert statuses[415] > 50, statuses
    assert post(port, {"inputs": images(2).tolist()})[0] == 200


def test_the_loaded_model_is_the_served_one(port: int, registered: tuple[str, Path]) -> None:
    mlflow.set_tracking_uri(registered[0])
    status, found = post(port, {"inputs": images(2).tolist()})
    assert status == 200
    assert np.abs(np.array(found) - mlflow.pyfunc.load_model(MODEL).predict(images(2))).max() < 1e-5
