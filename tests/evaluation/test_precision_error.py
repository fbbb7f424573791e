"""What a shorter number format changes, from tables whose differences are known."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pipeline.evaluation.precision_error import precision_error
from pipeline.evaluation.predictor import Predictor
from pipeline.schema import SingleView

EXACT = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.1, 0.1, 0.8]], np.float32)
ROUNDED = np.array([[0.5, 0.3, 0.2], [0.33, 0.35, 0.32], [0.11, 0.1, 0.79]], np.float32)


class Known:
    """Stands where a predictor does: gives its rows for the images that it is shown."""

    def __init__(self, rows: np.ndarray, precision: str) -> None:
        self.rows, self.precision = rows, precision

    def predict(self, images: list[np.ndarray], protocol: SingleView) -> np.ndarray:
        return self.rows[: len(images)]


def measured(found: np.ndarray, n_images: int = 3) -> dict[str, Any]:
    shown = [np.zeros((4, 4, 3), np.uint8)] * n_images
    pair = (cast(Predictor, Known(found, "bf16")), cast(Predictor, Known(EXACT, "fp32")))
    return dict(precision_error(*pair, shown, "single_view", SingleView()))


def test_differences_by_hand() -> None:
    found = measured(ROUNDED)
    assert found["max_difference"] == pytest.approx(0.02)
    assert found["mean_difference"] == pytest.approx((0.01 + 0.02 + 0.01 + 0.01 + 0.01) / 9)
    assert found["top1_disagreements"] == 1
    assert (found["precision"], found["protocol"], found["n_images"]) == ("bf16", "single_view", 3)


def test_the_same_tables_differ_by_nothing() -> None:
    found = measured(EXACT, n_images=2)
    assert (found["max_difference"], found["mean_difference"], found["top1_disagreements"]) == (0.0, 0.0, 0)
    assert found["n_images"] == 2
