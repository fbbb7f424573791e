"""Ensembles from saved predictions: nothing is run again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.predictions import Predictions


def average(members: Mapping[str, Predictions]) -> Predictions:
    """The members' mean probabilities, added up in float64; ValueError if they are not of the same images."""
    (first_name, first), *others = members.items()
    for name, other in others:
        if not np.array_equal(first.ids, other.ids) or not np.array_equal(first.labels, other.labels):
            raise ValueError(f"{name} and {first_name} predict different images: evaluate both on the same store")
    total = np.zeros(first.probabilities.shape, np.float64)
    for member in members.values():
        total += member.probabilities
    return Predictions(first.ids, first.labels, (total / len(members)).astype(np.float32))


def leave_one_out(members: Mapping[str, Predictions]) -> dict[str, Errors]:
    """The errors of the ensemble without each member in turn, by which its contribution shows."""
    found = {}
    for left_out in members:
        rest = {name: member for name, member in members.items() if name != left_out}
        mean = average(rest)
        found[left_out] = errors(mean.probabilities, mean.labels)
    return found
