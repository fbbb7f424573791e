"""Our side and the peer's of each benchmark do the work that is counted, on a few images."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import precision
from benchmarks.cifar_training import prepare_cifar, usual_script, usual_steps
from benchmarks.evaluation import our_evaluation, usual_evaluation
from benchmarks.imagenet_training import reference_steps
from benchmarks.images import DATA_VARIABLE, data_of, generated
from benchmarks.ours import gigaflops, preset, recipe, training_steps
from benchmarks.overhead import bare_curve, cluster_settings, make_spec
from benchmarks.precision import WAYS, described, end_of, usual_end
from pipeline.data.prepare import prepare
from pipeline.data.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DATA_VARIABLE, raising=False)
        return prepare_cifar(tmp_path_factory.mktemp("cifar"), 160)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    for number, content in enumerate(generated(4)):
        path = folder / "images" / "train" / f"class{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_cifar_store_keeps_pixels(cifar: Path) -> None:
    split = Store.open(cifar).split("train")
    assert (split.n_images, split.shape) == (160, (32, 32, 3))


def test_recipe_is_the_presets_but_for_what_a_benchmark_sets() -> None:
    training = recipe("cifar10", 128, 128, precision="fp32")
    own = preset("cifar10")["training"]
    assert training.optimizer.model_dump() == own["optimizer"]
    assert (training.batch_size, training.precision, training.warmup, training.compile) == (128, "fp32", None, False)


def test_gigaflops_are_twice_the_multiply_adds() -> None:
    assert gigaflops("resnet20", 10, 32, training=False) == pytest.approx(0.0816, rel=0.02)  # 41 million multiply-adds
    assert gigaflops("resnet20", 10, 32, training=True) == pytest.approx(3 * 0.0816, rel=0.02)


def test_both_cifar_loops_train(cifar: Path) -> None:
    ours = training_steps(cifar, "cifar10", "resnet8", recipe("cifar10", 128, 64), 0)
    assert [next(ours) for _ in range(3)] == [1, 2, 3]
    peer = usual_steps(cifar, "resnet8", 0)
    losses = [next(peer) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_usual_script_ends_by_our_schedule(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizers: list[torch.optim.Optimizer] = []

    def seen(*arguments: Any) -> Any:
        made = usual_script(*arguments)
        optimizers.append(made[1])
        return made

    monkeypatch.setattr(precision, "usual_script", seen)
    spec = precision.with_drops(make_spec("resnet8", cifar, 8))
    once, again, other = (usual_end(spec, seed, 0) for seed in (0, 0, 1))
    assert once["training_loss"] == again["training_loss"] != other["training_loss"]
    assert 0 <= once["test_error"] <= 100
    assert [each.param_groups[0]["lr"] for each in optimizers] == [pytest.approx(0.001)] * 3


def test_both_imagenet_loops_train(jpegs: Path, tmp_path: Path) -> None:
    prepare(data_of("class_folders", jpegs / "images"), tmp_path / "store")
    ours = training_steps(tmp_path / "store", "imagenet", "resnet18b", recipe("imagenet", 2, 2), 0)
    assert [next(ours) for _ in range(2)] == [1, 2]
    peer = reference_steps(jpegs / "images" / "train", "resnet18b", 2, 0)
    assert all(np.isfinite(next(peer)) for _ in range(3))


def test_both_evaluations_give_probabilities_of_every_image(jpegs: Path) -> None:
    prepare(data_of("class_folders", jpegs / "images"), jpegs / "store")
    for rows in (
        our_evaluation(jpegs / "store", "resnet18b", "fp32", 2),
        usual_evaluation(jpegs / "images" / "train", "resnet18b", 2, 0),
    ):
        found = np.concatenate([next(rows) for _ in range(3)])
        assert found.shape == (6, 1000)
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(found[4:], found[:2], atol=1e-6)  # four images, then again from the first


def test_bare_loop_is_the_specifications(cifar: Path) -> None:
    spec = make_spec("resnet8", cifar, 25)
    assert (spec.training.iterations, spec.training.bn_images) == (25, 128)
    assert cluster_settings(cifar, 5).checkpoint_every == 5
    begun = multiprocessing.Event()
    rows = bare_curve(spec, torch.get_num_threads(), begun)
    assert [row["iteration"] for row in rows] == [5, 10, 15, 20, 25]
    assert begun.is_set()


def test_ends_of_trainings_by_number_format_are_near_each_other(cifar: Path) -> None:
    spec = make_spec("resnet8", cifar, 10)
    exact, short = (end_of(spec, 0, WAYS[way]) for way in ("fp32", "bf16"))
    assert exact["training_loss"] != short["training_loss"]
    assert short["training_loss"] == pytest.approx(exact["training_loss"], rel=0.1)
    ends = [{"training_loss": loss, "test_error": 10 + 10 * loss, "seconds": 1.0} for loss in (1.0, 2.0)]
    assert described(ends) == "training loss 1.500 (1.000 to 2.000), test error 25.00 (20.00 to 30.00)%"
