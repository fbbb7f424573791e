"""What a run's record says beside its errors, as a worker finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.cluster import spreading
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.evaluation.examination import PRECISION_IMAGES, RESPONSE_IMAGES, Examination, Wanted, examine
from pipeline.evaluation.parts import Job, make_job
from pipeline.evaluation.predictor import Predictor
from pipeline.models import build
from pipeline.models.responses import layer_responses
from pipeline.models.saved import INPUT, Card, save_network
from pipeline.provenance import hardware
from pipeline.schema import SingleView, TenCrop
from tests.cluster.conftest import small_params

TEN_CROP = TenCrop(shorter_side=20, crop=16)
WANTED = Wanted("test", SingleView(), "ten_crop", TEN_CROP)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("digits") / "store"
    prepare(small_params().data, folder)
    return Store.open(folder)


def model_of(network: str, folder: Path) -> Path:
    torch.manual_seed(0)
    made = build(network, 10)
    if network == "resnet8":
        for _ in range(5):  # BN's statistics as after training, or all probabilities would be 0 and 1
            made(torch.randn(16, 3, 16, 16) * 60)
    save_network(folder, made.eval(), Card("x", "y", network, {}, [str(n) for n in range(10)]))
    InputStatistics(np.full(3, 120, np.float32)).save(folder / INPUT)
    return folder


def job_of(model: Path, store: Store, precision: str) -> Job:
    splits = {"test": store.split("test")}
    return make_job(model, splits, store.digest, precision=precision, batch_size=64, gpu=False, threads=1)


def test_in_fp32_there_are_responses_of_the_first_images_and_no_rounding(store: Store, tmp_path: Path) -> None:
    model = model_of("resnet8", tmp_path)
    found = examine(job_of(model, store, "fp32"), WANTED)
    predictor = Predictor.load(model)
    images = [store.split("test").image(i) for i in range(min(RESPONSE_IMAGES, 500))]
    expected = layer_responses(predictor.network, predictor.inputs(images, SingleView()))
    assert found.responses is not None
    assert [name for name, _ in found.responses] == [name for name, _ in expected]
    assert [std for _, std in found.responses] == pytest.approx([std for _, std in expected], rel=1e-5)
    assert (found.precision_error, found.precision, found.hardware) == (None, "fp32", hardware())


def test_in_bf16_the_rounding_is_measured_on_the_first_images(store: Store, tmp_path: Path) -> None:
    model = model_of("resnet8", tmp_path)
    found = examine(job_of(model, store, "bf16"), WANTED)
    images = [store.split("test").image(i) for i in range(PRECISION_IMAGES)]
    rounded, exact = (Predictor.load(model, precision=way).predict(images, TEN_CROP) for way in ("bf16", "fp32"))
    error = found.precision_error
    assert error is not None
    assert (found.precision, error["precision"], error["n_images"]) == ("bf16", "bf16", PRECISION_IMAGES)
    assert error["max_difference"] == pytest.approx(float(np.abs(rounded - exact).max()), abs=1e-6)
    assert error["max_difference"] > 1e-6


def test_a_network_without_bn_has_no_responses(store: Store, tmp_path: Path) -> None:
    assert examine(job_of(model_of("vgg16", tmp_path), store, "fp32"), WANTED).responses is None


@pytest.mark.slow
def test_a_worker_of_ray_finds_the_same(store: Store, tmp_path: Path) -> None:
    job = job_of(model_of("resnet8", tmp_path), store, "bf16")
    settings = small_params().cluster.model_copy(update={"workers": 2, "cpus_per_worker": 1})
    with spreading(settings) as spread:
        assert spread is not None
        ((_, found),) = spread(examine, job, [WANTED])
    assert isinstance(found, Examination)
    here = examine(job, WANTED)
    assert found.responses is not None
    assert here.responses is not None
    assert [std for _, std in found.responses] == pytest.approx([std for _, std in here.responses], rel=1e-4)
    assert (found.precision, found.hardware) == (here.precision, here.hardware)
