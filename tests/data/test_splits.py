"""Tests of pipeline.data.splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import holdout_indices, training_indices
from pipeline.schema import Holdout

LABELS = np.repeat(np.arange(10), 5000)[np.random.default_rng(0).permutation(50_000)]


@pytest.mark.parametrize("balanced", [True, False])
def test_the_papers_split_of_cifar10(balanced: bool) -> None:
    holdout = Holdout(images=5000, seed=0, balanced=balanced, train_on=False)
    held, rest = holdout_indices(LABELS, holdout), training_indices(LABELS, holdout)
    assert (len(held), len(rest)) == (5000, 45_000)
    assert np.array_equal(np.sort(np.concatenate([held, rest])), np.arange(50_000))
    assert np.array_equal(held, np.sort(held))
    counts = np.bincount(LABELS[held])
    assert (counts == 500).all() == balanced
    assert counts.min() > 400


def test_training_on_everything_still_names_the_holdout() -> None:
    holdout = Holdout(images=100, seed=0, balanced=True, train_on=True)
    assert np.array_equal(training_indices(LABELS, holdout), np.arange(50_000))
    assert len(holdout_indices(LABELS, holdout)) == 100


def test_it_depends_on_the_seed_alone() -> None:
    first, again, other = (
        holdout_indices(LABELS, Holdout(images=50, seed=s, balanced=True, train_on=False)) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(0, 59), st.booleans(), st.integers(0, 5))
def test_any_holdout_is_a_partition_or_is_refused(labels: list[int], images: int, balanced: bool, seed: int) -> None:
    holdout = Holdout(images=images, seed=seed, balanced=balanced, train_on=False)
    classes, counts = np.unique(labels, return_counts=True)
    each, rest = divmod(images, len(classes))
    possible = images < len(labels) and not (balanced and (rest or each >= counts.min()))
    if not possible:
        with pytest.raises(ValueError, match=r"data\.holdout\.images"):
            holdout_indices(np.array(labels), holdout)
        return
    held = holdout_indices(np.array(labels), holdout)
    assert len(held) == images
    assert len(set(held) | set(training_indices(np.array(labels), holdout))) == len(labels)


def test_what_cannot_be_had_is_refused() -> None:
    for images, balanced, reason in (
        (10, True, "leaves none"),
        (3, True, "multiple of 2 classes"),
        (8, True, "class 1"),
    ):
        with pytest.raises(ValueError, match=reason):
            holdout_indices(
                np.array([0] * 6 + [1] * 4), Holdout(images=images, seed=0, balanced=balanced, train_on=False)
            )
