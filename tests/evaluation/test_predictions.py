"""Saved predictions open with numpy alone and are checked when read."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.predictions import Predictions

SAMPLE = Predictions(np.array(["a", "b"]), np.array([1, -1]), np.array([[0.25, 0.75], [1, 0]], np.float32))


def test_saved_predictions_are_read_back_by_us_and_by_numpy(tmp_path: Path) -> None:
    SAMPLE.save(tmp_path / "ten_crop.npz")
    again = Predictions.load(tmp_path / "ten_crop.npz")
    plain = np.load(tmp_path / "ten_crop.npz", allow_pickle=False)
    for name in ("ids", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(SAMPLE, name))
        np.testing.assert_array_equal(plain[name], getattr(SAMPLE, name))


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ten_crop.npz"
    SAMPLE.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"ten_crop\.npz: not a file of predictions"):
        Predictions.load(path)


def test_rows_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="1 ids, 2 labels and 2 rows"):
        Predictions(np.array(["a"]), SAMPLE.labels, SAMPLE.probabilities)
