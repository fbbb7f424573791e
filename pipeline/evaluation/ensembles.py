"""Ensembles from saved predictions: nothing is run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.subsets import Counts, count_errors

BLOCK_VALUES = 128_000
"""Probabilities of a member in one block of images: small enough for all sums of a block to stay in the cache."""
THREADS = 2


def average(members: Mapping[str, Predictions]) -> Predictions:
    """The members' mean probabilities, added up in float64; ValueError if they are not of the same images."""
    check_same_images(members)
    first = next(iter(members.values()))
    total = np.zeros(first.probabilities.shape, np.float64)
    for member in members.values():
        total += member.probabilities
    return Predictions(first.ids, first.labels, (total / len(members)).astype(np.float32))


def check_same_images(members: Mapping[str, Predictions]) -> None:
    """ValueError if predictions are not of the same images in the same order, or of other classes."""
    (first_name, first), *others = members.items()
    for name, other in others:
        if not np.array_equal(first.ids, other.ids) or not np.array_equal(first.labels, other.labels):
            raise ValueError(f"{name} and {first_name} predict different images: evaluate both on the same store")
        if first.probabilities.shape != other.probabilities.shape:
            raise ValueError(f"{name} and {first_name} have different classes: evaluate both on the same store")


def leave_one_out(members: Mapping[str, Predictions]) -> dict[str, Errors]:
    """The errors of the ensemble without each member in turn, by which its contribution shows."""
    found = {}
    for left_out in members:
        rest = {name: member for name, member in members.items() if name != left_out}
        mean = average(rest)
        found[left_out] = errors(mean.probabilities, mean.labels)
    return found


def subset_errors(members: Mapping[str, Predictions], most: int | None = None) -> dict[tuple[str, ...], Errors]:
    """The errors of every subset of the members, of at most `most`, single ones too; as `average` gives them.

    Runs over blocks of images, each subset's sum in float64 being its first members' plus one, so that n members cost
    2ⁿ − 1 additions and hold one block of n sums. ValueError if they are not of the same images.
    """
    check_same_images(members)
    first = next(iter(members.values()))
    labelled = np.flatnonzero(first.labels >= 0)
    if not len(labelled):
        raise ValueError("no image has a label: there are no errors to count")
    tables = [member.probabilities for member in members.values()]
    names = list(members)
    most = len(names) if most is None else most

    def of_block(chosen: np.ndarray) -> dict[tuple[int, ...], Counts]:
        return count_errors([table[chosen] for table in tables], first.labels[chosen], most)

    total: dict[tuple[int, ...], Counts] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for counts in pool.map(of_block, _blocks(labelled, first.probabilities.shape[1])):
            for subset, (top1, top5) in counts.items():
                known = total.get(subset, (0, 0))
                total[subset] = known[0] + top1, known[1] + top5
    ordered = sorted(total, key=lambda subset: (len(subset), subset))
    return {tuple(names[i] for i in subset): _as_errors(total[subset], len(labelled)) for subset in ordered}


def _blocks(indices: np.ndarray, classes: int) -> Iterator[np.ndarray]:
    size = max(1, BLOCK_VALUES // classes)
    return (indices[start : start + size] for start in range(0, len(indices), size))


def _as_errors(counts: Counts, n_images: int) -> Errors:
    top1, top5 = counts
    return {"top1_error": 100.0 * top1 / n_images, "top5_error": 100.0 * top5 / n_images, "n_images": n_images}


def search_members(members: Mapping[str, Predictions], method: str, most: int) -> tuple[list[str], list[Errors]]:
    """The members chosen on these predictions, by top-1 error, and the errors there as the choice went on.

    "greedy" takes the best one, then the one that helps it most, then the best next one while the error falls;
    "exhaustive" takes the best subset of at least two, the smaller and earlier of equal ones. ValueError if there are
    fewer than two.
    """
    if len(members) < 2:
        raise ValueError(f"{', '.join(members)}: an ensemble needs at least two candidates")
    if method == "exhaustive":
        found = {subset: each for subset, each in subset_errors(members, most).items() if len(subset) > 1}
        best = min(found, key=lambda subset: found[subset]["top1_error"])
        return list(best), [found[best]]
    return _greedy(members, most)


def _greedy(members: Mapping[str, Predictions], most: int) -> tuple[list[str], list[Errors]]:
    chosen: list[str] = []
    path: list[Errors] = []
    total = np.zeros(next(iter(members.values())).probabilities.shape, np.float64)
    check_same_images(members)
    while len(chosen) < min(most, len(members)):
        found = {name: _with(total, len(chosen), members[name]) for name in members if name not in chosen}
        best = min(found, key=lambda name: found[name]["top1_error"])
        if len(chosen) > 1 and found[best]["top1_error"] >= path[-1]["top1_error"]:
            break
        chosen.append(best)
        path.append(found[best])
        total += members[best].probabilities
    return chosen, path


def _with(total: np.ndarray, size: int, member: Predictions) -> Errors:
    mean = ((total + member.probabilities) / (size + 1)).astype(np.float32)
    return errors(mean, member.labels)


def halves(n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of a split, sorted positions int64: the one to select on, the one to report on (the larger)."""
    order = np.random.default_rng(seed).permutation(n_images)
    return np.sort(order[: n_images // 2]), np.sort(order[n_images // 2 :])


def only(predictions: Predictions, indices: Sequence[int] | np.ndarray) -> Predictions:
    """The predictions of the images at `indices`."""
    return Predictions(predictions.ids[indices], predictions.labels[indices], predictions.probabilities[indices])
