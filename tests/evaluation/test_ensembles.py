"""Ensembles: means in float64 of the same images' probabilities."""

import itertools

import numpy as np
import pytest

from pipeline.evaluation.ensembles import average, halves, leave_one_out, search_members, subset_errors
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


def members_of(n: int, *, classes: int = 12, n_images: int = 500) -> dict[str, Predictions]:
    """Made-up runs, coarse enough for many ties; some images without a label."""
    labels = np.random.default_rng(5).integers(-1, classes, n_images)
    found = {}
    for seed in range(n):
        rows = np.random.default_rng(seed).integers(0, 6, (n_images, classes)).astype(np.float32)
        rows[np.arange(n_images), labels] += 1
        ids = np.array([str(i) for i in range(n_images)])
        found[f"run-{seed}"] = Predictions(ids, labels, rows / rows.sum(1, keepdims=True))
    return found


def naive(members: dict[str, Predictions], subset: tuple[str, ...]) -> dict[str, float | int]:
    mean = average({name: members[name] for name in subset})
    return errors(mean.probabilities, mean.labels)


def test_every_subset_has_the_errors_of_its_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.ensembles.BLOCK_VALUES", 700)  # blocks that don't divide the images
    members = members_of(6)
    found = subset_errors(members)
    expected = [subset for size in range(1, 7) for subset in itertools.combinations(members, size)]
    assert list(found) == expected
    assert found == {subset: naive(members, subset) for subset in expected}
    assert subset_errors(members, most=2) == {s: e for s, e in found.items() if len(s) <= 2}


def test_means_that_float32_makes_equal_rank_by_class_number() -> None:
    rows = np.array([[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], np.float32)
    nudged = rows + np.float32(1e-8) * np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    ids, labels = np.array(["a", "b"]), np.array([1, 0])
    members = {"x": Predictions(ids, labels, rows), "y": Predictions(ids, labels, nudged)}
    assert subset_errors(members) == {s: naive(members, s) for s in (("x",), ("y",), ("x", "y"))}


def test_greedy_adds_the_best_next_member_while_the_error_falls() -> None:
    members = members_of(6)
    table = {frozenset(subset): each["top1_error"] for subset, each in subset_errors(members).items()}
    chosen, path = search_members(members, "greedy", 6)
    for size, measured in enumerate(path, 1):
        known = frozenset(chosen[: size - 1])
        assert measured["top1_error"] == table[known | {chosen[size - 1]}]
        assert measured["top1_error"] == min(table[known | {name}] for name in members if name not in known)
    assert 2 <= len(chosen) <= 6
    assert all(second["top1_error"] < first["top1_error"] for first, second in itertools.pairwise(path[1:]))
    if len(chosen) < 6:
        rest = [table[frozenset(chosen) | {name}] for name in members if name not in chosen]
        assert min(rest) >= path[-1]["top1_error"]
    assert search_members(members, "greedy", 2)[0] == chosen[:2]


def test_exhaustive_search_finds_the_best_subset() -> None:
    members = members_of(6)
    chosen, (measured,) = search_members(members, "exhaustive", 6)
    found = {subset: each["top1_error"] for subset, each in subset_errors(members).items() if len(subset) > 1}
    assert measured["top1_error"] == found[tuple(chosen)] == min(found.values())


def test_halves_part_the_images_by_seed_alone() -> None:
    select, report = halves(101, seed=3)
    assert (len(select), len(report)) == (50, 51)
    assert sorted([*select, *report]) == list(range(101))
    np.testing.assert_array_equal(halves(101, seed=3)[0], select)
    assert not np.array_equal(halves(101, seed=4)[0], select)


@pytest.mark.parametrize("classes", [3, 5])
def test_members_of_other_classes_are_refused(classes: int) -> None:
    first = predictions(0)
    other = Predictions(first.ids, first.labels, np.full((200, classes), 1 / classes, np.float32))
    members = {"a": first, "b": other}
    if classes == 5:
        assert len(subset_errors(members)) == 3
    else:
        with pytest.raises(ValueError, match="b and a have different classes"):
            subset_errors(members)
