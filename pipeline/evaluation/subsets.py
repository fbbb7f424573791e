"""Errors of every subset of an ensemble's members on one block of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Counts = tuple[int, int]
"""Images whose label is not the likeliest class, and not among the five likeliest."""
NEARLY = 1 - 2.0**-20
"""Sums that float32 could round to the same mean differ by less."""


def count_errors(tables: Sequence[np.ndarray], labels: np.ndarray, most: int) -> dict[tuple[int, ...], Counts]:
    """By subset of the members' numbers, of at most `most`: the errors of its mean, rounded to float32.

    `tables` are the members' probabilities, float32 (images, classes), `labels` int64 (images,), none of them −1. Sums
    are in float64 and in the members' order, one addition a subset.
    """
    found: dict[tuple[int, ...], Counts] = {}
    sums = np.empty((min(most, len(tables)), *tables[0].shape), np.float64)

    def descend(subset: tuple[int, ...], start: int) -> None:
        size = len(subset)
        for member in range(start, len(tables)):
            if size:
                np.add(sums[size - 1], tables[member], out=sums[size])
            else:
                sums[0] = tables[member]
            found[*subset, member] = _count(sums[size], size + 1, labels)
            if size + 1 < len(sums):
                descend((*subset, member), member + 1)

    descend((), 0)
    return found


def _count(total: np.ndarray, members: int, labels: np.ndarray) -> Counts:
    """Only where another class comes up to the label's, but for float32's rounding, are the means computed."""
    own = total[np.arange(len(labels)), labels][:, None]
    near = (total >= own * NEARLY).view(np.int8).sum(1, dtype=np.int16)
    doubtful = np.flatnonzero(near > 1)
    mean = (total[doubtful] / members).astype(np.float32)
    known = labels[doubtful][:, None]
    own_mean = np.take_along_axis(mean, known, 1)
    ahead = ((mean > own_mean) | ((mean == own_mean) & (np.arange(mean.shape[1]) < known))).sum(1)
    return int((ahead >= 1).sum()), int((ahead >= 5).sum())
