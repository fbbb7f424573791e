"""Predictions for a split of the image store."""

from __future__ import annotations

import numpy as np

from pipeline.data.store import Split
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor, Protocol

IMAGES_AT_ONCE = 1024


def predict_split(
    predictor: Predictor, split: Split, protocol: Protocol, indices: np.ndarray | None = None
) -> Predictions:
    """A protocol's predictions for the images at `indices` (default: all), in that order, each exactly once."""
    chosen = np.arange(split.n_images) if indices is None else indices
    starts = range(0, len(chosen), IMAGES_AT_ONCE)
    parts = [chosen[start : start + IMAGES_AT_ONCE] for start in starts]
    rows = [predictor.predict([split.image(int(i)) for i in part], protocol) for part in parts]
    return Predictions(
        ids=np.array([split.keys[int(i)] for i in chosen]),
        labels=split.labels[chosen],
        probabilities=np.concatenate(rows),
    )
