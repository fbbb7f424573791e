"""Error rates from per-image probabilities."""

from __future__ import annotations

import numpy as np

Errors = dict[str, float | int]


def top_k_error(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Percent of images whose label is not among the k likeliest classes; equal ones rank by class number.

    `probabilities` is (images, classes), `labels` (images,). With fewer classes than k the error is 0.
    """
    _check(probabilities, labels)
    own = probabilities[np.arange(len(labels)), labels][:, None]
    classes = np.arange(probabilities.shape[1])
    ahead = (probabilities > own) | ((probabilities == own) & (classes < labels[:, None]))
    return 100.0 * int((ahead.sum(1) >= k).sum()) / len(labels)


def errors(probabilities: np.ndarray, labels: np.ndarray) -> Errors:
    """Top-1 and top-5 error in percent, and the number of images, of labelled images alone (label −1 is none)."""
    labelled = labels >= 0
    found, known = probabilities[labelled], labels[labelled]
    return {
        "top1_error": top_k_error(found, known, 1),
        "top5_error": top_k_error(found, known, 5),
        "n_images": int(labelled.sum()),
    }


def _check(probabilities: np.ndarray, labels: np.ndarray) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or not len(labels):
        raise ValueError(f"probabilities {probabilities.shape} and labels {labels.shape} are not of the same images")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, but {probabilities.shape[1]} classes")
