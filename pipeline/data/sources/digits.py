"""scikit-learn's bundled handwritten digits: 1,797 grey images of 8 x 8 pixels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.sources.base import Listing, Piece, RunTasks, Sample, ranges

_SPLIT_SEED = 1512
_TEST_IMAGES_PER_CLASS = 50
_LARGEST_VALUE = 16
_CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class Digits:
    """The test split is 50 images of every digit, drawn once and for all; the other 1,297 are for training."""

    def listing(self, shard_images: int, run_tasks: RunTasks) -> Listing:
        """Both splits in the data set's order."""
        pieces = [
            Piece(split, stop - start, (start, stop))
            for split, indices in _split_indices().items()
            for start, stop in ranges(len(indices), shard_images)
        ]
        return Listing(_CLASSES, _CLASSES, tuple(pieces))

    def read(self, piece: Piece) -> Iterator[Sample]:
        """The images as uint8 (8, 8), 0 to 255."""
        images, labels = _digits()
        start, stop = piece.content
        for index in _split_indices()[piece.split][start:stop]:
            yield Sample(f"digits/{index:04d}", int(labels[index]), images[index])


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _LARGEST_VALUE)).astype(np.uint8)
    return images, bunch.target.astype(np.int64)


def _split_indices() -> dict[str, np.ndarray]:
    labels = _digits()[1]
    generator = np.random.default_rng(_SPLIT_SEED)
    test = [generator.permutation(np.flatnonzero(labels == label))[:_TEST_IMAGES_PER_CLASS] for label in range(10)]
    chosen = np.sort(np.concatenate(test))
    return {"train": np.setdiff1d(np.arange(len(labels)), chosen), "test": chosen}
