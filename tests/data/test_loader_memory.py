"""The loader's memory stays as it is over many epochs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import psutil
import torch

from pipeline.data.loader import TrainingLoader
from pipeline.data.prepare import prepare
from pipeline.data.statistics import InputStatistics
from pipeline.data.store import Store
from pipeline.schema import Augmentation
from tests.data.material import digits


def test_memory_is_flat_over_twenty_epochs(tmp_path: Path) -> None:
    prepare(digits(), tmp_path / "store")
    store = Store.open(tmp_path / "store")
    split = store.split("train")
    loader = TrainingLoader(
        split,
        torch.arange(split.n_images).numpy(),
        augmentation=Augmentation(scale=None, pad=4, crop=20, mirror=True, color_noise=0.0),
        statistics=InputStatistics.of_store(store, digits().mean),
        batch_size=64,
        seed=0,
    )
    epoch, batches = -(-split.n_images // 64), loader.batches(0)
    held = []
    for _ in range(21):
        for _ in islice(batches, epoch):
            pass
        held.append(psutil.Process().memory_info().rss)
    assert split.n_images > 64
    # An epoch's inputs alone are over 5 MB: a loader that kept them would hold 100 MB by then.
    assert max(held[1:]) - held[0] < 16 * 2**20
