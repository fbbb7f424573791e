"""Parts of an evaluation: the same predictions however they are cut, each image once, and none made twice."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.cluster import OWN_RAY, spreading
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Split, Store
from pipeline.evaluation.parts import (
    Job,
    Part,
    assemble,
    in_turn,
    make_job,
    plan,
    predict_part,
    predict_parts,
)
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.models import build
from pipeline.models.saved import INPUT, WEIGHTS, Card, save_network
from pipeline.schema import MultiScale, SingleView, TenCrop
from tests.cluster.conftest import small_params

pytestmark = pytest.mark.slow

TEN_CROP = TenCrop(shorter_side=20, crop=16)
MULTI_SCALE = MultiScale(shorter_sides=(16, 20), mirror=True, average="softmax", report_others=True)
TASKS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("digits") / "store"
    prepare(small_params().data, folder)
    return Store.open(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = build("resnet8", 10)
    for _ in range(5):
        network(torch.randn(16, 3, 16, 16) * 60)
    save_network(folder, network.eval(), Card("digits", "resnet8-s0", "resnet8", {}, [str(i) for i in range(10)]))
    InputStatistics.of_store(store, small_params().data.mean).save(folder / INPUT)
    return folder


def job_of(model: Path, store: Store, *, batch_size: int = 64, threads: int | None = None) -> Job:
    splits = {name: store.split(name) for name in ("test", "train")}
    options = {"precision": "fp32", "batch_size": batch_size, "gpu": False, "threads": threads}
    return make_job(model, splits, store.digest, **options)


@pytest.fixture
def job(model: Path, store: Store) -> Job:
    return job_of(model, store)


def pages_faulted(evaluates: bool, model: Path, store: Path) -> int:
    """By memory that is freed and asked for again, in a process that has evaluated, or in one that has not."""
    script = f"""
import resource
from pathlib import Path
import torch
from pipeline.data.store import Store
from pipeline.evaluation.parts import plan, predict_part
from tests.evaluation.test_parts import TEN_CROP, job_of
if {evaluates}:
    job = job_of(Path({str(model)!r}), Store.open({str(store)!r}), threads=1)
    predict_part(job, plan("ten_crop", job.splits["test"], TEN_CROP, 1)[0])
for _ in range(20):  # aligned blocks may need a few before one of the right size lies there
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(ended.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_what_evaluates_keeps_freed_memory(model: Path, store: Store) -> None:
    folder = store.opened(store.manifest.statistics, lambda path: path.parent)
    assert pages_faulted(True, model, folder) < pages_faulted(False, model, folder) / 5


def test_fp32_is_not_rounded_to_tf32(model: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(self: Predictor, images: Sequence[np.ndarray], protocol: Protocol) -> np.ndarray:
        seen.append(torch.backends.cudnn.allow_tf32)
        return np.zeros((len(images), 3), np.float32)

    monkeypatch.setattr(Predictor, "predict", watched)
    job = job_of(model, store)
    with torch.backends.cudnn.flags(allow_tf32=True):
        predict_part(job, plan("single_view", job.splits["test"], SingleView(), 1)[0])
        assert seen == [False]
        assert torch.backends.cudnn.allow_tf32, "and the process keeps its setting"


def images_of(split: Split) -> list[np.ndarray]:
    return [split.image(i) for i in range(split.n_images)]


def predicted(job: Job, parts: list[Part], folder: Path, run=in_turn) -> dict[str, Predictions]:
    return dict(assemble(predict_parts(job, parts, folder, run), job.splits))


def backwards(function, job: Job, parts) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
    return in_turn(function, job, parts[::-1])


def shuffled(function, job: Job, parts) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
    return in_turn(function, job, [parts[i] for i in np.random.default_rng(0).permutation(len(parts))])


@pytest.mark.parametrize("protocol", [TEN_CROP, MULTI_SCALE], ids=["ten_crop", "multi_scale"])
@pytest.mark.parametrize(
    ("shard_images", "tasks", "batch_size", "run"),
    [(1024, 1, 512, in_turn), (97, 3, 7, backwards), (500, 4, 64, shuffled)],
)
def test_shards_tasks_batches_and_order_change_no_prediction(
    model, store, tmp_path, protocol, shard_images, tasks, batch_size, run
) -> None:
    prepare(small_params().data.model_copy(update={"shard_images": shard_images}), tmp_path / "store")
    cut = Store.open(tmp_path / "store")
    job = job_of(model, cut, batch_size=batch_size)
    made = predicted(job, plan("mine", cut.split("test"), protocol, tasks), tmp_path / "parts", run)
    images = images_of(store.split("test"))
    if isinstance(protocol, MultiScale):
        expected = Predictor.load(model).predict_ways(images, protocol)
        expected["mine"] = expected.pop(protocol.way)
    else:
        expected = {"mine": Predictor.load(model).predict(images, protocol)}
    assert made.keys() == expected.keys()
    for name, found in made.items():
        np.testing.assert_array_equal(found.ids, store.split("test").keys)
        np.testing.assert_array_equal(found.labels, store.split("test").labels)
        np.testing.assert_allclose(found.probabilities, expected[name], rtol=0, atol=1e-6)


def test_two_workers_of_ray_predict_the_same(job: Job, tmp_path: Path) -> None:
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, 3)
    settings = small_params().cluster.model_copy(update={"workers": 2, "cpus_per_worker": 1})
    here = predicted(job, parts, tmp_path / "here")["ten_crop"]
    with spreading(settings) as spread:
        assert spread is not None
        there = predicted(job, parts, tmp_path / "there", spread)["ten_crop"]
    np.testing.assert_array_equal(there.ids, here.ids)
    np.testing.assert_allclose(there.probabilities, here.probabilities, rtol=0, atol=1e-6)


def test_one_worker_on_this_machine_needs_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with spreading(small_params().cluster) as spread:
        assert spread is None
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv(OWN_RAY, "1")
    with spreading(small_params().cluster) as spread:
        assert spread is None


def test_parts_hold_every_image_once(store: Store) -> None:
    split = store.split("test")
    parts = plan("center_crop", split, TEN_CROP, 7)
    assert np.concatenate([part.indices for part in parts]).tolist() == list(range(split.n_images))
    assert len(parts) == 7
    held_out = plan("holdout", store.split("train"), TEN_CROP, 1, np.array([5, 9, 11]))
    assert [part.indices.tolist() for part in held_out] == [[5, 9, 11]]


def test_a_missing_or_repeated_image_is_refused(job: Job) -> None:
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, 5)
    made = [(part, {"ten_crop": np.zeros((len(part.indices), 10), np.float32)}) for part in parts]
    n_images = job.splits["test"].n_images
    with pytest.raises(ValueError, match=f"ten_crop: 400 images in 400 rows, not {n_images}"):
        list(assemble(made[:-1], job.splits))
    with pytest.raises(ValueError, match=f"ten_crop: 400 images in {n_images} rows, not {n_images}"):
        list(assemble([*made[:-1], made[0]], job.splits))


def test_rows_that_are_not_the_parts_are_refused(job: Job, tmp_path: Path) -> None:
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, 5)
    with pytest.raises(ValueError, match="ten_crop: 3 rows for 100 images"):
        predicted(job, parts, tmp_path, lambda f, j, ps: ((part, {"ten_crop": np.zeros((3, 10))}) for part in ps))
    with pytest.raises(ValueError, match="5 of 5 parts were not predicted"):
        predicted(job, parts, tmp_path, lambda f, j, ps: ())
    assert not list(tmp_path.glob("*"))


def test_parts_that_are_there_are_not_made_again(job: Job, tmp_path: Path) -> None:
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, TASKS)
    made: list[int] = []

    def dies_after_two(function, job, parts):
        for number, part in enumerate(parts):
            if number == 2:
                raise KeyboardInterrupt
            yield part, function(job, part)

    def counting(function, job, parts):
        for part in parts:
            made.append(int(part.indices[0]))
            yield part, function(job, part)

    with pytest.raises(KeyboardInterrupt):
        predicted(job, parts, tmp_path, dies_after_two)
    kept = sorted(tmp_path.glob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # as a full disk leaves it: made again
    found = predicted(job, parts, tmp_path, counting)["ten_crop"]
    assert len(made) == 3
    np.testing.assert_array_equal(
        found.probabilities, predicted(job, parts, tmp_path / "anew")["ten_crop"].probabilities
    )
    predicted(job, parts, tmp_path, counting)
    assert len(made) == 3


def test_parts_of_other_weights_precision_or_protocol_are_not_taken(job: Job, tmp_path: Path) -> None:
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, 1)
    predicted(job, parts, tmp_path)
    nearer = [replace(part, protocol=TenCrop(shorter_side=18, crop=16)) for part in parts]
    for other, others in ((replace(job, identity="0" * 64), parts), (job, nearer)):
        predicted(other, others, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_identity_tells_weights_data_precision_and_compiling_apart(model: Path, store: Store) -> None:
    splits = {"test": store.split("test")}
    identities = {
        make_job(
            model, splits, digest, precision=precision, batch_size=1, gpu=False, threads=None, compile=compile
        ).identity
        for digest, precision, compile in itertools.product((store.digest, "other"), ("fp32", "bf16"), (False, True))
    }
    assert len(identities) == 8
    assert job_of(model, store, batch_size=3).identity in identities  # which changes no prediction


def test_a_model_folder_without_weights_says_how_to_get_them(model: Path, store: Store, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).unlink()
    options = {"precision": "fp32", "batch_size": 64, "gpu": False, "threads": None}
    with pytest.raises(ValueError, match=r"model: no weights\.safetensors; `dvc pull`"):
        make_job(tmp_path / "model", {"test": store.split("test")}, store.digest, **options)


def test_every_way_of_multi_scale_from_one_pass(model: Path, job: Job, tmp_path: Path) -> None:
    split = job.splits["test"]
    found = predicted(job, plan("multi_scale", split, MULTI_SCALE, 1), tmp_path)
    assert list(found) == [
        "multi_scale",
        "multi_scale_softmax_unmirrored",
        "multi_scale_scores",
        "multi_scale_scores_unmirrored",
    ]
    predictor = Predictor.load(model)
    for name, protocol in MULTI_SCALE.ways().items():
        each = found["multi_scale" if name == "multi_scale_softmax" else name]
        alone = predictor.predict([split.image(i) for i in range(40)], protocol)
        np.testing.assert_allclose(each.probabilities[:40], alone, atol=1e-6)
    assert np.abs(found["multi_scale"].probabilities - found["multi_scale_scores"].probabilities).max() > 1e-4


SLOW_EVALUATION = """
import sys, time
from pathlib import Path
from tests.evaluation.test_parts import TASKS, TEN_CROP, job_of
from pipeline.data.store import Store
from pipeline.evaluation.parts import plan, predict_parts

def slowly(function, job, parts):
    for part in parts:
        yield part, function(job, part)
        time.sleep(1)

job = job_of(Path(sys.argv[1]), Store.open(sys.argv[2]))
list(predict_parts(job, plan("ten_crop", job.splits["test"], TEN_CROP, TASKS), Path(sys.argv[3]), slowly))
"""


def test_a_killed_evaluation_leaves_whole_parts_alone(model: Path, store: Store, job: Job, tmp_path: Path) -> None:
    place = str(store._files._folder)  # type: ignore[union-attr]
    command = [sys.executable, "-c", SLOW_EVALUATION, str(model), place, str(tmp_path / "parts")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=dict(os.environ))
    deadline = time.monotonic() + 400
    while not list((tmp_path / "parts").glob("*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list((tmp_path / "parts").glob("*.npz")))
    left: list[Part] = []
    parts = plan("ten_crop", job.splits["test"], TEN_CROP, TASKS)

    def counting(function, job, parts):
        left.extend(parts)
        return in_turn(function, job, parts)

    found = predicted(job, parts, tmp_path / "parts", counting)["ten_crop"]
    assert 1 <= kept == TASKS - len(left) < TASKS
    expected = Predictor.load(model).predict(images_of(job.splits["test"]), TEN_CROP)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)


def test_a_large_part_is_decoded_and_predicted_piece_by_piece(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    split = job.splits["test"]
    (whole,) = plan("multi_scale", split, MULTI_SCALE, 1, most=8192)
    assert len(whole.indices) == split.n_images
    at_once, sizes, images = predict_part(job, whole), [], Split.images

    def counted(self: Split, indices: np.ndarray, threads: int) -> list[np.ndarray]:
        sizes.append(len(indices))
        return images(self, indices, threads)

    monkeypatch.setattr(Split, "images", counted)
    monkeypatch.setattr("pipeline.evaluation.parts.IMAGES_AT_ONCE", 200)
    in_pieces = predict_part(job, whole)
    assert sizes == [200, 200, 100]
    assert in_pieces.keys() == at_once.keys()
    assert len(at_once) == 4
    for name, rows in at_once.items():
        np.testing.assert_allclose(in_pieces[name], rows, atol=1e-6)


def test_a_gpu_that_is_not_there_is_an_error_and_no_evaluation_by_the_processor(job: Job) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (part, *_) = plan("ten_crop", job.splits["test"], TEN_CROP, 10)
    with pytest.raises(ValueError, match=r"cluster\.gpus_per_worker: torch sees no GPU on .*, where images are"):
        predict_part(replace(job, gpu=True), part)


def test_a_part_alone_is_its_rows(job: Job) -> None:
    (part, *_), split = plan("ten_crop", job.splits["test"], TEN_CROP, 10), job.splits["test"]
    assert isinstance(split, Split)
    assert predict_part(job, part)["ten_crop"].shape == (len(part.indices), 10)
