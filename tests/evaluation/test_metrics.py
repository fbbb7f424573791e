"""Error rates against plain counting."""

import numpy as np
import pytest

from pipeline.evaluation.metrics import errors, top_k_error


def test_errors_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    labels = np.array([0, 2, 1, 0])
    assert top_k_error(probabilities, labels, 1) == 50.0
    assert top_k_error(probabilities, labels, 2) == 25.0
    assert top_k_error(probabilities, labels, 3) == 0.0
    assert top_k_error(probabilities, labels, 5) == 0.0


@pytest.mark.parametrize("k", [1, 3, 5])
def test_errors_equal_a_stable_sort_even_with_ties(k: int) -> None:
    generator = np.random.default_rng(0)
    probabilities = np.round(generator.random((500, 10)), 1)
    labels = generator.integers(0, 10, 500)
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    expected = 100 * np.mean([label not in row for label, row in zip(labels, ranked, strict=True)])
    assert top_k_error(probabilities, labels, k) == pytest.approx(expected, abs=1e-12)


def test_unlabelled_images_do_not_count() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    assert errors(probabilities, np.array([0, -1, 0])) == {"top1_error": 50.0, "top5_error": 0.0, "n_images": 2}


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 2], "labels from 0 to 2, but 2 classes"), ([0], "not of the same images")]
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k_error(np.full((2, 2), 0.5), np.array(labels), 1)
