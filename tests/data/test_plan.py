"""Tests of pipeline.data.plan."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.plan import Plan


@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 2**40))
def test_every_image_comes_once_an_epoch(n_images: int, batch_size: int, seed: int) -> None:
    plan = Plan(n_images, batch_size, seed)
    n_batches = -(-3 * n_images // batch_size)
    chain = np.concatenate([plan.indices(iteration) for iteration in range(n_batches)])
    for epoch in range(3):
        assert sorted(chain[epoch * n_images : (epoch + 1) * n_images]) == list(range(n_images))


def test_epochs_are_shuffled_anew_and_by_seed() -> None:
    plan = Plan(100, 100, 0)
    assert not np.array_equal(plan.indices(0), plan.indices(1))
    assert not np.array_equal(plan.indices(0), Plan(100, 100, 1).indices(0))
    assert not np.array_equal(plan.indices(0), np.arange(100))


@given(st.lists(st.integers(0, 50), max_size=6))
def test_an_iteration_does_not_depend_on_what_was_asked_before(asked: list[int]) -> None:
    plan = pickle.loads(pickle.dumps(Plan(37, 16, 3)))
    for iteration in asked:
        plan.indices(iteration)
        plan.generator(iteration).random()
    assert np.array_equal(plan.indices(7), Plan(37, 16, 3).indices(7))
    assert plan.generator(7).random() == Plan(37, 16, 3).generator(7).random()


def test_generators_differ_by_iteration_and_from_the_shuffle() -> None:
    plan = Plan(10, 5, 0)
    assert len({plan.generator(iteration).random() for iteration in range(100)}) == 100


def test_the_order_is_pinned() -> None:
    """A change here changes every result and breaks the resuming of trainings under way."""
    assert Plan(10, 4, 0).indices(0).tolist() == [1, 7, 9, 0]
    assert round(float(Plan(10, 4, 0).generator(0).random()), 12) == 0.945316529014


@pytest.mark.parametrize("wrong", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_nonsense_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a plan needs"):
        Plan(*wrong)
    with pytest.raises(ValueError, match="negative"):
        Plan(1, 1, 0).indices(-1)
