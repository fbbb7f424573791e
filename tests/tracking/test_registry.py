"""Registered models: no version twice, aliases by their rule, loadable anywhere, tampering noticed."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.evaluation.predictor import Predictor
from pipeline.schema import CenterCrop, Protocols
from pipeline.tracking import aliases, registry, store
from pipeline.tracking.aliases import best_version, versions_of
from pipeline.tracking.description import About
from pipeline.tracking.registry import Registration, settle_models
from tests.tracking.factory import CLASSES, EVALUATION, METRICS, images, model_folder
from tests.tracking.forks import at_once

pytestmark = pytest.mark.slow

ABOUT = About("handwritten digits", data_digest="d" * 64, recipe={"batch_size": 64, "optimizer": {"momentum": 0.9}})


def new_run() -> str:
    return str(store.client().create_run(store.experiment_id("digits")).info.run_id)


def register_model(*arguments: Any, **options: Any) -> Registration:
    """Register one version, with all that follows."""
    (made,) = settle_models([registry.register_model(*arguments, **options)])
    return made


def register(
    folder: Path, run_id: str, holdout: float | None = 4.5, report: str | None = None, **options: Any
) -> Registration:
    metrics = {name: figures for name, figures in METRICS.items() if name != "holdout" or holdout is not None}
    if holdout is not None:
        metrics["holdout"] = {**metrics["holdout"], "top1_error": holdout}
    given = {"evaluation": EVALUATION, "about": ABOUT, "tags": {"report.sha256": report}, **options}
    return register_model("digits-resnet8", "digits", {"resnet8-s0": folder}, run_id, metrics, **given)


def state() -> str:
    """All that the registry says of the model, times included."""
    client = store.client()
    model = client.get_registered_model("digits-resnet8")
    return repr([dict(model), [dict(version) for version in versions_of(client, "digits-resnet8")]])


def test_names() -> None:
    assert registry.network_model_name("digits", "resnet56-s0") == "digits-resnet56"
    assert registry.ensemble_model_name("imagenet", "paper") == "imagenet-ensemble-paper"


def test_registering_equal_weights_again_changes_nothing(tracking: str, tmp_path: Path) -> None:
    folder, run_id = model_folder(tmp_path, "resnet8-s0", 0), new_run()
    first = register(folder, run_id)
    before = state()
    assert (
        register(folder, run_id)
        == first
        == Registration("digits-resnet8", "1", run_id, registry.weights_digest({"": folder}), ["best", "latest"])
    )
    assert state() == before
    register(folder, run_id, holdout=3.25)
    (version,) = versions_of(store.client(), "digits-resnet8")
    assert version.tags["top1_error.holdout"] == "3.25"
    assert version.tags["top1_error.center_crop"] == "5.5"
    assert version.tags["data.digest"] == "d" * 64
    assert version.tags["run"] == "resnet8-s0"


def test_of_two_seeds_one_stands_for_the_model_whatever_the_order(tracking: str, tmp_path: Path) -> None:
    folders = [model_folder(tmp_path, f"resnet8-s{seed}", seed) for seed in range(2)]
    run_ids = [new_run(), new_run()]

    def both(order: tuple[int, int], report: str | None) -> dict[int, Registration]:
        made = [
            registry.register_model(
                "digits-resnet8",
                "digits",
                {f"resnet8-s{seed}": folders[seed]},
                run_ids[seed],
                {**METRICS, "holdout": {**METRICS["holdout"], "top1_error": 3.0 + seed}},
                EVALUATION,
                ABOUT,
                tags={"report.sha256": report},
            )
            for seed in order
        ]
        return dict(zip(order, settle_models(made), strict=True))

    found = both((0, 1), "r")
    assert [found[seed].aliases for seed in range(2)] == [["best", "paper"], ["latest"]]
    assert f"/runs/{run_ids[0]})" in store.client().get_registered_model("digits-resnet8").description
    before = state()
    assert both((0, 1), "r") == both((1, 0), "r") == found
    assert state() == before
    without = both((0, 1), None)
    assert [without[seed].aliases for seed in range(2)] == [["best"], ["latest"]]
    model = store.client().get_registered_model("digits-resnet8")
    assert "report.sha256" not in model.tags
    assert f"/runs/{run_ids[1]})" in model.description, "without a report the newest"
    assert registry.records(list(without.values()))["digits-resnet8"]["version"] == "2"


def test_tags_that_hold_no_more_go(tracking: str, tmp_path: Path) -> None:
    folder, run_id, client = model_folder(tmp_path, "resnet8-s0", 0), new_run(), store.client()
    told = About("images", published={"center_crop": {"top1_error": 8.75}}, verdict="reproduced")
    register(folder, run_id, report="r", about=told)
    client.set_model_version_tag("digits-resnet8", "1", "asked.by", "ada")
    register(folder, run_id, holdout=None)
    (version,) = versions_of(client, "digits-resnet8")
    gone = {"top1_error.holdout", "n_images.holdout", "paper.top1_error.center_crop", "verdict", "report.sha256"}
    assert gone.isdisjoint(version.tags)
    assert {"top1_error.center_crop", "asked.by", "weights.sha256"} <= set(version.tags)
    assert set(client.get_registered_model("digits-resnet8").tags) == {"experiment", "kind", "network"}


EQUAL_WEIGHTS = """
import contextlib, os, pathlib, time
from pipeline.tracking import registry, store
from tests.tracking.test_registry import register

create = registry._create_version

def when_both_have_looked(*arguments):
    (ready / f'ready-{os.getpid()}').touch()
    deadline = time.monotonic() + 400
    while len(list(ready.glob('ready-*'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return create(*arguments)

def work(argument):
    global ready
    run_id, root = argument.split('|')
    ready = pathlib.Path(root)
    store.initialise()
    store.exclusive = contextlib.nullcontext  # which another machine does not see
    registry._create_version = when_both_have_looked
    print(register(ready / 'resnet8-s0', run_id).version)
"""


def test_equal_weights_from_two_machines_at_once_are_one_version(tracking: str, tmp_path: Path) -> None:
    model_folder(tmp_path, "resnet8-s0", 0)
    printed = at_once(EQUAL_WEIGHTS, [f"{new_run()}|{tmp_path}" for _ in range(2)], tracking)
    assert printed == ["1", "1"]
    (version,) = versions_of(store.client(), "digits-resnet8")
    assert str(version.version) == "1"
    (model,) = store.client().search_logged_models([store.experiment_id("digits")])
    assert version.source == f"models:/{model.model_id}"


def test_a_version_deleted_while_aliases_settle_is_passed_over(
    tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another machine takes back its second version of equal weights just after we saw it."""
    for seed in (0, 1):
        register(model_folder(tmp_path / str(seed), "resnet8-s0", seed), new_run(), holdout=5.0 - seed)
    client, look = store.client(), aliases.targets
    client.delete_registered_model_alias("digits-resnet8", "best")

    def looks_then_it_goes(*arguments: Any) -> dict[str, ModelVersion | None]:
        seen = look(*arguments)
        if str(getattr(seen["best"], "version", None)) == "2":
            client.delete_model_version("digits-resnet8", "2")
        return seen

    monkeypatch.setattr(aliases, "targets", looks_then_it_goes)
    aliases.settle(client, "digits-resnet8")
    assert {a: str(v) for a, v in client.get_registered_model("digits-resnet8").aliases.items()} == {"best": "1"}


def test_a_model_says_what_it_is(tracking: str, tmp_path: Path) -> None:
    run_id = new_run()
    register(model_folder(tmp_path, "resnet8-s0", 0), run_id)
    text = store.client().get_registered_model("digits-resnet8").description
    for part in (
        "**resnet8** on handwritten digits",
        "| center_crop | 5.50 | 0.25 | 360 |",
        "lowest top-1 error on held-out",
    ):
        assert part in text
    for part in ("momentum `0.9`", "d" * 64, 'load_model("models:/digits-resnet8@best")', f"/runs/{run_id}"):
        assert part in text
    outputs = store.client().get_run(run_id).outputs.model_outputs
    assert len(outputs) == 1, "the model is an output of the run"


def test_best_is_the_lowest_holdout_error(tracking: str, tmp_path: Path) -> None:
    folders = [model_folder(tmp_path / str(seed), "resnet8-s0", seed) for seed in range(3)]
    best = []
    for folder, holdout in zip(folders, (4.5, 3.0, 3.5), strict=True):
        register(folder, new_run(), holdout)
        best.append(store.client().get_model_version_by_alias("digits-resnet8", "best").version)
    assert [int(version) for version in best] == [1, 2, 2]
    assert int(store.client().get_model_version_by_alias("digits-resnet8", "latest").version) == 3
    register(folders[0], new_run(), holdout=1.0)
    assert int(store.client().get_model_version_by_alias("digits-resnet8", "best").version) == 1


def version(number: int, holdout: float | None = None, **tags: str) -> ModelVersion:
    all_tags = {"data.digest": "d", **tags} | ({} if holdout is None else {"top1_error.holdout": str(holdout)})
    made = ModelVersion("digits-resnet8", number, 0)
    made._tags = all_tags
    return made


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([version(1), version(2)], 2),
        ([version(1, 5.0), version(2, 5.0)], 2),
        ([version(1, 5.0), version(2, 10.0)], 1),
        ([version(1, 9.5), version(2, 10.0), version(3)], 1),
        ([version(1, 1.0, **{"data.digest": "e"}), version(2, 10.0)], 2),
        ([version(1, 1.0, **{"data.holdout": "{}"}), version(2, 10.0)], 2),
    ],
)
def test_the_rule_of_best(versions: list[ModelVersion], expected: int) -> None:
    chosen = best_version(versions)
    assert chosen is not None
    assert chosen.version == expected


def test_no_version_is_best_of_none() -> None:
    assert best_version([]) is None


def test_predictions_are_the_predictor_s_in_every_form(tracking: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "resnet8-s0", 0)
    register(folder, new_run())
    model = mlflow.pyfunc.load_model("models:/digits-resnet8@best")
    batch = images(6)
    predictor = Predictor.load(folder, batch_size=EVALUATION.batch_size)
    for name, protocol in EVALUATION.protocols.chosen().items():
        found = model.predict(batch, params={"protocol": name})
        assert found.dtype == np.float32
        assert np.array_equal(found, predictor.predict(list(batch), protocol))
    expected = model.predict(batch)
    assert np.array_equal(expected, predictor.predict(list(batch), EVALUATION.protocols.center_crop))
    encoded = [png(image) for image in batch]
    texts = [base64.b64encode(content).decode() for content in encoded]
    for table in (pd.DataFrame({"images": encoded}), pd.DataFrame({"images": texts}), np.array(encoded, dtype=object)):
        assert np.array_equal(model.predict(table), expected)
    assert model.predict(model.input_example).shape == (1, 10)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_signature_top_k_sizes_and_bad_requests(tracking: str, tmp_path: Path) -> None:
    register(model_folder(tmp_path, "resnet8-s0", 0), new_run())
    model = mlflow.pyfunc.load_model("models:/digits-resnet8@best")
    signature = model.metadata.signature
    assert [spec.name for spec in signature.params.params] == ["protocol", "top_k"]
    assert signature.outputs.inputs[0].shape == (-1, 10)
    assert signature.inputs.input_names() == ["images"]
    probabilities = model.predict(images(2, size=(31, 47)))
    top = model.predict(images(2, size=(31, 47)), params={"top_k": 3})
    assert [entry["class"] for entry in top[0]] == list(np.argsort(-probabilities[0])[:3])
    assert top[1][0] == {
        "class": int(probabilities[1].argmax()),
        "label": CLASSES[int(probabilities[1].argmax())],
        "probability": pytest.approx(float(probabilities[1].max())),
    }
    for bad, message in [
        ({"protocol": "single_view"}, "'single_view' is not one of this model's: center_crop, ten_crop, multi_scale"),
        ({"top_k": 11}, "top_k: 11 is not in 1 … 10"),
        ({"top_k": -1}, "top_k: -1 is not in"),
    ]:
        with pytest.raises(MlflowException, match=message) as caught:
            model.predict(images(1), params=bad)
        assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="image 0: float64 values"):
        model.predict(images(1) / 255)


def test_an_ensemble_averages_its_members(tracking: str, tmp_path: Path) -> None:
    members = {f"resnet8-s{seed}": model_folder(tmp_path, f"resnet8-s{seed}", seed) for seed in range(3)}
    made = register_model("digits-ensemble", "digits", members, new_run(), METRICS, EVALUATION, ABOUT)
    model = mlflow.pyfunc.load_model("models:/digits-ensemble@latest")
    batch = images(5)
    size = EVALUATION.batch_size
    predictors = [Predictor.load(folder, batch_size=size) for folder in members.values()]
    each = [predictor.predict(list(batch), EVALUATION.protocols.ten_crop) for predictor in predictors]
    expected = (sum(member.astype(np.float64) for member in each) / 3).astype(np.float32)
    assert np.array_equal(model.predict(batch, params={"protocol": "ten_crop"}), expected)
    again = register_model("digits-ensemble", "digits", members, new_run(), METRICS, EVALUATION, ABOUT)
    assert again.version == made.version == "1"
    assert store.client().get_model_version("digits-ensemble", "1").tags["members"] == ", ".join(members)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "input.safetensors"])
def test_a_tampered_file_is_an_error(tracking: str, tmp_path: Path, name: str) -> None:
    register(model_folder(tmp_path / "trained", "resnet8-s0", 0), new_run())
    (path,) = (tmp_path / "mlartifacts").rglob(name)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: SHA-256 .* registered with .* was altered"):
        mlflow.pyfunc.load_model("models:/digits-resnet8@best")


def test_changed_protocols_reach_the_version_of_the_same_weights(tracking: str, tmp_path: Path) -> None:
    folder, run_id = model_folder(tmp_path, "resnet8-s0", 0), new_run()
    register(folder, run_id)
    only = Protocols(center_crop=CenterCrop(shorter_side=16, crop=16))
    changed = EVALUATION.model_copy(update={"protocols": only})
    assert register(folder, run_id, evaluation=changed).version == "1"
    model = mlflow.pyfunc.load_model("models:/digits-resnet8@best")
    assert np.array_equal(model.predict(images(3)), Predictor.load(folder).predict(list(images(3)), only.center_crop))
    with pytest.raises(MlflowException, match="'ten_crop' is not one of this model's: center_crop"):
        model.predict(images(1), params={"protocol": "ten_crop"})


def test_folders_that_are_incomplete_or_of_other_classes_are_refused(tracking: str, tmp_path: Path) -> None:
    folder, other = model_folder(tmp_path, "resnet8-s0", 0), model_folder(tmp_path, "resnet8-s1", 1)
    card = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**card, "class_names": CLASSES[::-1]}))
    with pytest.raises(ValueError, match="resnet8-s1: other classes than resnet8-s0"):
        register_model(
            "x", "digits", {"resnet8-s0": folder, "resnet8-s1": other}, new_run(), METRICS, EVALUATION, ABOUT
        )
    (folder / "input.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no input\.safetensors; train resnet8-s0 first"):
        register(folder, new_run())


@pytest.mark.parametrize("hostile", [False, True])
def test_loading_in_another_process_from_another_folder(tracking: str, tmp_path: Path, hostile: bool) -> None:
    folder = model_folder(tmp_path, "resnet8-s0", 0)
    register(folder, new_run())
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "pipeline").mkdir(parents=True)
    (elsewhere / "pipeline" / "__init__.py").write_text("raise RuntimeError" if not hostile else "MINE = 1")
    np.save(elsewhere / "images.npy", images(6))
    code = (
        "import sys, numpy, mlflow.pyfunc\n"
        + ("import pipeline\n" if hostile else "")
        + "model = mlflow.pyfunc.load_model('models:/digits-resnet8@best')\n"
        "numpy.save('found.npy', model.predict(numpy.load('images.npy')))\n"
        + ("assert sys.modules['pipeline'] is pipeline and pipeline.MINE == 1\n" if hostile else "")
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, check=True, timeout=600)
    expected = Predictor.load(folder).predict(list(images(6)), EVALUATION.protocols.center_crop)
    assert np.allclose(np.load(elsewhere / "found.npy"), expected, atol=1e-6)


def test_a_search_answers_which_were_reproduced(tracking: str, tmp_path: Path) -> None:
    for name, verdict in (("a", "Table 6, top-1: reproduced"), ("b", "Table 6, top-1: 1.20 points higher")):
        published = {"center_crop": {"top1_error": 8.75}}
        about = About("images", published=published, verdict=verdict)
        folder = model_folder(tmp_path / name, "resnet8-s0", ord(name))
        register_model(name, "digits", {"resnet8-s0": folder}, new_run(), METRICS, EVALUATION, about)
    client, wanted = store.client(), "tags.verdict LIKE '%reproduced%'"
    assert [model.name for model in client.search_registered_models(wanted)] == ["a"]
    (found,) = client.search_model_versions(wanted)
    assert (found.name, found.tags["paper.top1_error.center_crop"]) == ("a", "8.75")
    assert "| center_crop | 5.50 | 0.25 | 360 | 8.75 |" in client.get_registered_model("a").description


def test_nothing_is_unpickled_without_weights_only() -> None:
    root = Path(registry.__file__).parents[2]
    for path in [*root.glob("pipeline/**/*.py"), *root.glob("stages/*.py"), *root.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
