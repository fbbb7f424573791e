"""Ensembles: means in float64 of the same images' probabilities."""

import numpy as np
import pytest

from pipeline.evaluation.ensembles import average, leave_one_out
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions


def predictions(seed: int, n_images: int = 200) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, 5, n_images)
    logits = generator.normal(size=(n_images, 5)) + 1.5 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(np.array([f"image-{i}" for i in range(n_images)]), labels, probabilities.astype(np.float32))


def test_average_is_the_mean_and_better_than_its_members() -> None:
    members = {name: predictions(seed) for seed, name in enumerate("abc")}
    mean = average(members)
    expected = np.mean([m.probabilities.astype(np.float64) for m in members.values()], axis=0)
    np.testing.assert_array_equal(mean.probabilities, expected.astype(np.float32))
    single = [errors(m.probabilities, m.labels)["top1_error"] for m in members.values()]
    assert errors(mean.probabilities, mean.labels)["top1_error"] < min(single)


def test_leave_one_out_is_the_average_of_the_rest() -> None:
    members = {name: predictions(seed) for seed, name in enumerate("abc")}
    rest = average({name: members[name] for name in "ac"})
    assert leave_one_out(members)["b"] == errors(rest.probabilities, rest.labels)


def test_members_of_different_images_are_refused() -> None:
    other = predictions(1)
    shuffled = Predictions(other.ids[::-1], other.labels, other.probabilities)
    with pytest.raises(ValueError, match="b and a predict different images"):
        average({"a": predictions(0), "b": shuffled})
