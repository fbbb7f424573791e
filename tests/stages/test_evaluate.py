"""The evaluate stage on archives in ILSVRC's layout: what it leaves of images without labels, and bf16's rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import paths
from pipeline.config import parse_params
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.parts import Job, Part, assemble, in_turn, predict_parts
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor
from pipeline.models import build
from pipeline.models.saved import INPUT, Card, save_network
from pipeline.report.records import EvaluationRecord
from pipeline.stage import Stage
from pipeline.storage import read_json, write_json
from stages import evaluate
from tests.cluster.conftest import small_params
from tests.data.material import data, jpeg, tar, write_ilsvrc2012

pytestmark = pytest.mark.slow

RUN, N_TEST = "resnet8-s0", 9
PROTOCOLS = {
    "center_crop": {"shorter_side": 24, "crop": 16},
    "ten_crop": {"shorter_side": 24, "crop": 16},
    "multi_scale": {"shorter_sides": [16, 24], "mirror": True, "average": "softmax", "report_others": True},
}
OTHER_WAYS = {"multi_scale_softmax_unmirrored", "multi_scale_scores", "multi_scale_scores_unmirrored"}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stage about to evaluate, in a folder with a store of three splits and a network that was never trained."""
    root = tmp_path_factory.mktemp("evaluate")
    write_ilsvrc2012(root / "source")
    images = {f"ILSVRC2012_test_{n:08d}.JPEG": jpeg(n, width=40 + 7 * (n % 3)) for n in range(1, N_TEST + 1)}
    tar(root / "source" / "ILSVRC2012_img_test.tar", images)
    described = data("ilsvrc2012", root / "source", keep="encoded")
    prepare(described, root / paths.data_dir("x"))
    save_model(root)
    tree = small_params().model_dump(mode="json")
    tree |= {"experiment": "x", "data": described.model_dump(mode="json"), "ensemble_searches": {}}
    tree["evaluation"] |= {"split": "val", "unlabelled_split": "test", "precision": "bf16", "protocols": PROTOCOLS}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(evaluate, "_track", lambda *_: None)
        stage = Stage(parse_params(tree), "x", RUN, False)
        evaluate.run(stage)
        yield stage


def save_model(root: Path) -> None:
    torch.manual_seed(0)
    network = build("resnet8", 3)
    for _ in range(5):
        network(torch.randn(16, 3, 16, 16) * 60)
    folder = root / paths.model_dir("x", RUN)
    folder.mkdir(parents=True)
    save_network(folder, network.eval(), Card("x", RUN, "resnet8", {}, ["tench", "springer", "saw"]))
    InputStatistics(np.full(3, 120, np.float32)).save(folder / INPUT)
    write_json(folder / paths.RECORD, {"weights_sha256": "ab" * 32})


def saved(name: str) -> Predictions:
    return Predictions.load(paths.predictions_dir("x", RUN) / f"{name}.npz")


def predictor(precision: str) -> Predictor:
    return Predictor.load(paths.model_dir("x", RUN), precision=precision)


def test_images_without_labels_are_predicted_and_counted_nowhere(at: Stage) -> None:
    split = Store.open(paths.data_dir("x")).split("test")
    assert split.n_images == N_TEST
    images = [split.image(i) for i in range(N_TEST)]
    for name, protocol in at.params.evaluation.protocols.chosen().items():
        found = saved(f"unlabelled_{name}")
        assert found.ids.tolist() == [f"ILSVRC2012_test_{n:08d}.JPEG" for n in range(1, N_TEST + 1)]
        assert set(found.labels.tolist()) == {-1}
        np.testing.assert_allclose(found.probabilities, predictor("bf16").predict(images, protocol), atol=1e-6)
    summary = read_json(paths.predictions_dir("x", RUN) / paths.SUMMARY)
    assert set(summary["metrics"]) == set(PROTOCOLS) | OTHER_WAYS
    shown = read_json(paths.run_metrics("x", RUN))
    assert shown == {name: summary["metrics"][name] for name in PROTOCOLS}, "dvc metrics show has protocols alone"


def test_errors_are_of_the_labelled_split_alone(at: Stage) -> None:
    split = Store.open(paths.data_dir("x")).split("val")
    summary = read_json(paths.predictions_dir("x", RUN) / paths.SUMMARY)
    for name in (*PROTOCOLS, *OTHER_WAYS):
        found = saved(name)
        assert found.ids.tolist() == split.keys
        assert summary["metrics"][name] == errors(found.probabilities, split.labels)
        assert summary["metrics"][name]["n_images"] == split.n_images
    files = {path.stem for path in paths.predictions_dir("x", RUN).glob("*.npz")}
    assert files == set(PROTOCOLS) | OTHER_WAYS | {f"unlabelled_{name}" for name in PROTOCOLS}


def test_images_that_have_labels_are_refused_as_those_without(at: Stage) -> None:
    tree = at.params.model_dump(mode="json")
    tree["evaluation"]["unlabelled_split"] = "val"
    changed = Stage(parse_params(tree), "x", RUN, False)
    job = evaluate._job(changed, Store.open(paths.data_dir("x")))
    with pytest.raises(ValueError, match=r"evaluation\.unlabelled_split: the images of val have labels"):
        evaluate._parts(changed, job)


def test_parts_that_other_code_predicted_are_not_taken_up(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def stopped(job: Job, parts: list[Part], folder: Path, spread: object) -> None:
        folders.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "predict_parts", stopped)
    for edited in (False, False, True):
        if edited:
            monkeypatch.setattr(evaluate, "sha256_file", lambda path: f"other {path.name}")
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(at)
    assert {folder.parent for folder in folders} == {paths.parts_dir("x", RUN)}
    assert folders[0] == folders[1] != folders[2]


def test_held_out_training_images_have_no_part_in_the_test_images_files(at: Stage) -> None:
    tree = at.params.model_dump(mode="json")
    tree["data"]["holdout"] = {"images": 2, "seed": 0, "balanced": False, "train_on": False}
    tree["evaluation"] |= {"protocols": {"multi_scale": PROTOCOLS["multi_scale"]}, "unlabelled_split": None}
    changed = replace(at, params=parse_params(tree))
    store = Store.open(paths.data_dir("x"))
    job = evaluate._job(changed, store)
    parts = evaluate._parts(changed, job)
    found = dict(assemble(predict_parts(job, parts, Path("parts"), in_turn), job.splits))
    assert found["holdout"].ids.tolist() != found["multi_scale"].ids.tolist()
    assert len(found["holdout"].ids) == 2
    for name in ("multi_scale", *OTHER_WAYS):
        assert found[name].ids.tolist() == store.split("val").keys, name


def test_what_bf16_changes_is_measured_on_the_first_images(at: Stage) -> None:
    split = Store.open(paths.data_dir("x")).split("val")
    images = [split.image(i) for i in range(split.n_images)]
    protocol = at.params.evaluation.protocols.center_crop
    assert protocol is not None
    found, expected = (predictor(precision).predict(images, protocol) for precision in ("bf16", "fp32"))
    said = EvaluationRecord.model_validate(read_json(paths.predictions_dir("x", RUN) / paths.SUMMARY)).precision_error
    assert said is not None
    assert (said.precision, said.protocol, said.n_images) == ("bf16", "center_crop", split.n_images)
    assert said.max_difference == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
    assert said.mean_difference == pytest.approx(np.abs(found - expected).mean(), abs=1e-7)
    assert said.top1_disagreements == (found.argmax(1) != expected.argmax(1)).sum()
    assert 0 < said.max_difference < 0.05
