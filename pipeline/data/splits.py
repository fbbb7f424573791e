"""The training images kept apart for model selection, as a function of the labels."""

from __future__ import annotations

import numpy as np

from pipeline.schema import Holdout


def holdout_indices(labels: np.ndarray, holdout: Holdout) -> np.ndarray:
    """Sorted positions, int64, of the held-out images among `labels` (paper, section 4.2: the 45k/5k split).

    ValueError when there are not enough images, or no equal number of each class.
    """
    labels = np.asarray(labels)
    generator = np.random.default_rng(holdout.seed)
    if holdout.images >= len(labels):
        raise ValueError(f"data.holdout.images: {holdout.images} leaves none of {len(labels)} images to train on")
    if not holdout.balanced:
        return np.sort(generator.permutation(len(labels))[: holdout.images]).astype(np.int64)
    return np.sort(_balanced(labels, holdout.images, generator))


def training_indices(labels: np.ndarray, holdout: Holdout) -> np.ndarray:
    """Sorted positions, int64, of the images to train on: those not held out, or all with `train_on`."""
    everything = np.arange(len(labels), dtype=np.int64)
    if holdout.train_on:
        return everything
    return np.setdiff1d(everything, holdout_indices(labels, holdout), assume_unique=True)


def _balanced(labels: np.ndarray, images: int, generator: np.random.Generator) -> np.ndarray:
    classes, counts = np.unique(labels, return_counts=True)
    each, rest = divmod(images, len(classes))
    if rest:
        raise ValueError(f"data.holdout.images: {images} is no multiple of {len(classes)} classes; set balanced: false")
    if each >= counts.min():
        scarce = classes[counts.argmin()]
        raise ValueError(f"data.holdout.images: {each} of each class leaves none of class {scarce}'s {counts.min()}")
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:each] for label in classes]
    return np.concatenate(chosen).astype(np.int64)
