"""Tests of pipeline.data.loader and its processes."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from pipeline.data.augment import draw
from pipeline.data.batches import LoaderError
from pipeline.data.errors import StoreError
from pipeline.data.loader import TrainingLoader
from pipeline.data.plan import Plan
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.schema import Augmentation
from tests.data.material import data, digits, train_images, write_ilsvrc2012

JITTER = Augmentation(scale=(24, 40), pad=0, crop=16, mirror=True, color_noise=0.1)
CIFAR = Augmentation(scale=None, pad=4, crop=20, mirror=True, color_noise=0.0)
DIGITS = Augmentation(scale=(20, 20), pad=0, crop=16, mirror=True, color_noise=0.0)

Make = Callable[..., TrainingLoader]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("stores")
    prepare(data("ilsvrc2012", write_ilsvrc2012(folder / "source")), folder / "encoded")
    prepare(digits(), folder / "decoded")
    return {name: Store.open(folder / name) for name in ("encoded", "decoded")}


def make(store: Store, augmentation: Augmentation, **changes: Any) -> TrainingLoader:
    split = store.split("train")
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 3, "indices": np.arange(split.n_images)} | changes
    statistics = arguments.pop("statistics", None) or InputStatistics.of_store(store, data("digits", None).mean)
    return TrainingLoader(split, augmentation=augmentation, statistics=statistics, **arguments)


def take(loader: TrainingLoader, n: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    iterator = loader.batches(start)
    found = [(images.clone(), labels.clone()) for images, labels in (next(iterator) for _ in range(n))]
    iterator.close()
    return found


def same(left: list[Any], right: list[Any]) -> bool:
    return all(torch.equal(a, b) and torch.equal(y, z) for (a, y), (b, z) in zip(left, right, strict=True))


WAYS = {"encoded": JITTER, "decoded": DIGITS}


@pytest.fixture(scope="module")
def digits_statistics(stores: dict[str, Store]) -> InputStatistics:
    return InputStatistics.of_store(stores["decoded"], digits().mean)


@pytest.fixture(params=["encoded", "decoded"])
def loader_of(request: pytest.FixtureRequest, stores: dict[str, Store], digits_statistics: InputStatistics) -> Make:
    def build(**changes: Any) -> TrainingLoader:
        if request.param == "decoded":
            changes = {"statistics": digits_statistics} | changes
        return make(stores[request.param], WAYS[request.param], **changes)

    return build


def test_batches_are_channels_last_float_with_labels(loader_of: Make) -> None:
    ((images, labels),) = take(loader_of(), 1)
    assert (images.shape, images.dtype) == ((8, 3, 16, 16), torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (labels.shape, labels.dtype) == ((8,), torch.int64)


@pytest.mark.parametrize("start", [0, 1, 5])
def test_starting_at_an_iteration_gives_what_would_have_come(loader_of: Make, start: int) -> None:
    assert same(take(loader_of(), 4, start), take(loader_of(), 4 + start)[start:])


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_together_see_the_single_ranks_batches(loader_of: Make, world_size: int) -> None:
    whole = take(loader_of(), 3)
    shares = [take(loader_of(rank=rank, world_size=world_size), 3) for rank in range(world_size)]
    joined = [tuple(torch.cat(parts) for parts in zip(*(share[i] for share in shares), strict=True)) for i in range(3)]
    assert same(joined, whole)


def test_another_seed_gives_other_batches(loader_of: Make) -> None:
    assert not same(take(loader_of(), 1), take(loader_of(seed=4), 1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("processes", [1, 3])
def test_processes_give_the_same_in_the_same_order(stores: dict[str, Store], processes: int) -> None:
    here = take(make(stores["encoded"], JITTER), 9, 2)
    assert same(take(make(stores["encoded"], JITTER, processes=processes), 9, 2), here)


def test_labels_are_the_images_own(stores: dict[str, Store]) -> None:
    store = stores["decoded"]
    zero = InputStatistics(np.zeros(3, np.float32))
    plain = Augmentation(scale=None, pad=0, crop=20, mirror=False, color_noise=0.0)
    split = store.split("train")
    indices = np.flatnonzero(split.labels == 7)
    by_pixels = {split.image(int(i)).tobytes() for i in indices}
    for images, labels in take(make(store, plain, indices=indices, statistics=zero), 40):
        assert (labels == 7).all()
        for image in images.permute(0, 2, 3, 1).to(torch.uint8):
            assert image.contiguous().numpy().tobytes() in by_pixels


def test_an_epoch_has_every_image_once(stores: dict[str, Store]) -> None:
    store = stores["decoded"]
    plain = Augmentation(scale=None, pad=0, crop=20, mirror=False, color_noise=0.0)
    indices = np.arange(0, 1297, 17)
    loader = make(store, plain, indices=indices, batch_size=7, statistics=InputStatistics(np.zeros(3, np.float32)))
    seen = [
        image.numpy().tobytes()
        for images, _ in take(loader, 11)
        for image in images.permute(0, 2, 3, 1).to(torch.uint8)
    ]
    assert sorted(seen) == sorted(store.split("train").image(int(i)).tobytes() for i in indices)


def test_encoded_views_are_the_papers_by_the_plain_way(stores: dict[str, Store]) -> None:
    """Resize all of the image with PIL, crop, mirror, subtract the mean, add the colour noise."""
    store = stores["encoded"]
    statistics = InputStatistics.of_store(store, data("digits", None).mean)
    contents = [content for members in train_images().values() for content in members.values()]
    plan = Plan(18, 8, 3)
    for iteration, (images, _) in enumerate(take(make(store, JITTER), 4)):
        draws = draw(plan.generator(iteration), 8, JITTER)
        for row, index in enumerate(plan.indices(iteration)):
            image = Image.open(io.BytesIO(contents[index]))
            scale = int(draws.scale[row])
            resized = np.asarray(image.resize((int(scale * 40 / 30), scale), Image.Resampling.BILINEAR))
            top, left = (draws.position[row] * (np.array(resized.shape[:2]) - 15)).astype(int)
            view = resized[top : top + 16, left : left + 16].astype(np.float32)
            view = view[:, ::-1] if draws.mirror[row] else view
            noise = (draws.noise[row] * np.sqrt(statistics.eigenvalues)) @ statistics.eigenvectors
            difference = images[row].permute(1, 2, 0).numpy() - (view - statistics.mean + noise)
            assert np.abs(difference).mean() < 1.5


def test_padding_puts_zeros_around_the_image_less_its_mean(stores: dict[str, Store]) -> None:
    store = stores["decoded"]
    split = store.split("train")
    statistics = InputStatistics(split.array().mean(axis=0).astype(np.float32))
    plan = Plan(split.n_images, 8, 3)
    for iteration, (images, _) in enumerate(take(make(store, CIFAR, statistics=statistics), 3)):
        draws = draw(plan.generator(iteration), 8, CIFAR)
        for row, index in enumerate(plan.indices(iteration)):
            padded = np.pad(split.image(int(index)) - statistics.mean, ((4, 4), (4, 4), (0, 0)))
            top, left = (draws.position[row] * 9).astype(int)
            view = padded[top : top + 20, left : left + 20]
            view = view[:, ::-1] if draws.mirror[row] else view
            assert np.allclose(images[row].permute(1, 2, 0).numpy(), view, atol=1e-4)


def test_decoded_images_are_resized_where_the_scale_differs(
    stores: dict[str, Store], digits_statistics: InputStatistics
) -> None:
    jitter = Augmentation(scale=(20, 26), pad=0, crop=16, mirror=True, color_noise=0.0)
    ((images, _),) = take(make(stores["decoded"], jitter, statistics=digits_statistics), 1)
    assert images.shape == (8, 3, 16, 16)
    assert images.std() > 30


def test_what_cannot_be_loaded_is_refused(stores: dict[str, Store]) -> None:
    with pytest.raises(ValueError, match="rank 2 of 2 cannot have a share"):
        make(stores["encoded"], JITTER, rank=2, world_size=2)
    with pytest.raises(ValueError, match=r"augmentation\.pad needs images that are kept decoded"):
        make(stores["encoded"], CIFAR)
    large = Augmentation(scale=None, pad=0, crop=21, mirror=False, color_noise=0.0)
    with pytest.raises(ValueError, match=r"augmentation\.crop: 21 does not fit into images of 20x20"):
        take(make(stores["decoded"], large, statistics=InputStatistics(np.zeros(3, np.float32))), 1)


def test_unlabelled_images_cannot_be_trained_on(stores: dict[str, Store]) -> None:
    split = stores["encoded"].split("train")
    split.labels = np.where(np.arange(18) == 5, -1, split.labels)
    statistics = InputStatistics(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="train split has images without labels"):
        TrainingLoader(split, np.arange(18), augmentation=JITTER, statistics=statistics, batch_size=4, seed=0)


def folder_of(store: Store) -> Path:
    return store.opened(store.manifest.statistics, lambda path: path.parent)


@pytest.fixture
def damaged(stores: dict[str, Store], tmp_path: Path) -> Store:
    """A store one of whose images is cut short though its shard has the right size."""
    source = folder_of(stores["encoded"])
    shutil.copytree(source, tmp_path / "damaged")
    shard = tmp_path / "damaged" / "train-00002.arrow"
    content = shard.read_bytes()
    image = bytes(stores["encoded"].split("train").encoded(9))
    shard.write_bytes(content.replace(image, b"\xff\xd8" + bytes(len(image) - 2)))
    return Store.open(tmp_path / "damaged")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_a_damaged_image_is_named(damaged: Store, processes: int) -> None:
    where = re.escape("train-00002.arrow, row 1 (n02102040/n02102040_3.JPEG): no view can be made of it")
    with pytest.raises(StoreError, match=where):
        take(make(damaged, JITTER, processes=processes), 5)


@pytest.mark.slow
def test_a_shard_that_vanishes_is_named(stores: dict[str, Store], tmp_path: Path) -> None:
    source = folder_of(stores["encoded"])
    shutil.copytree(source, tmp_path / "copy")
    loader = make(Store.open(tmp_path / "copy"), JITTER, processes=1)
    (tmp_path / "copy" / "train-00003.arrow").unlink()
    with pytest.raises(StoreError, match=r"train-00003\.arrow: cannot be read"):
        take(loader, 5)


def kill_loader_processes_and_go_on(loader: TrainingLoader) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    iterator = loader.batches(0)
    next(iterator)
    children = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    try:
        for _ in range(20):
            next(iterator)
    finally:
        assert time.monotonic() - killed < 60


def run_in_thread(loader: TrainingLoader) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(kill_loader_processes_and_go_on, loader).result()


@pytest.mark.slow
def test_a_killed_loader_process_is_an_error_not_a_hang(stores: dict[str, Store]) -> None:
    """In a thread, as Ray Train runs the loop: signals about children arrive in the main one alone."""
    loader = make(stores["encoded"], JITTER, processes=2)
    with pytest.raises(LoaderError, match="a loader process ended early, killed or out of memory"):
        run_in_thread(loader)


@pytest.mark.slow
def test_a_killed_loader_process_ends_a_process_that_loads_in_its_main_thread(stores: dict[str, Store]) -> None:
    """In a process of its own: the signal may arrive outside of the loader, and again as the other one ends."""
    script = f"""
from tests.data.test_loader import JITTER, Store, kill_loader_processes_and_go_on, make
if __name__ == "__main__":
    kill_loader_processes_and_go_on(make(Store.open({str(folder_of(stores["encoded"]))!r}), JITTER, processes=2))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 1
    assert re.search(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", ended.stderr), ended.stderr


def test_nvjpeg_needs_a_gpu(stores: dict[str, Store]) -> None:
    with pytest.raises(ValueError, match="nvjpeg works on a CUDA device, not on cpu"):
        make(stores["encoded"], JITTER, jpeg_decoder="nvjpeg")
