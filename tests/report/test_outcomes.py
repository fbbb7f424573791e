"""Per-image outcomes, and the files from which there are none."""

import numpy as np
import pytest

from pipeline import paths
from pipeline.evaluation.predictions import Predictions
from pipeline.report.outcomes import Outcomes, outcome
from pipeline.report.reading import read_inputs
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, predictions

RUN = "resnet20-s0"


@pytest.fixture
def inputs(digits):
    return read_inputs("digits", DIGITS, DIGITS_ENSEMBLES, digits)


def test_wrong_images_are_those_of_the_errors(inputs):
    outcomes = Outcomes(inputs)
    for run in inputs.shown:
        for protocol, errors in run.errors.items():
            found = outcomes.of(run.name, protocol)
            assert 100 * found.wrong.mean() == pytest.approx(errors.top1_error)
    assert inputs.problems == []


def test_an_ensembles_outcome_is_of_the_averaged_probabilities(inputs, digits):
    found = Outcomes(inputs).of("resnets", "ten_crop")
    files = [
        digits / paths.predictions_dir("digits", member) / "ten_crop.npz" for member in DIGITS_ENSEMBLES["resnets"]
    ]
    mean = sum(Predictions.load(file).probabilities.astype(np.float64) for file in files) / 2
    assert np.array_equal(found.predicted, mean.argmax(1))
    assert found.confidence == pytest.approx(mean.max(1), abs=1e-6)


def test_images_without_labels_are_left_out():
    known = predictions(0.5, seed=1, n_images=20)
    labels = known.labels.copy()
    labels[::4] = -1
    found = outcome(Predictions(known.ids, labels, known.probabilities))
    assert len(found.labels) == 15
    assert list(found.ids) == [f"test/{number:05d}" for number in range(20) if number % 4]


def test_what_is_not_there_is_none(inputs):
    outcomes = Outcomes(inputs)
    assert outcomes.of(RUN, "single_view") is None
    assert outcomes.of("resnet110-s0", "ten_crop") is None
    assert inputs.problems == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


def overwrite(path):
    predictions(0.5, seed=7).save(path)


def spoil(path):
    found = Predictions.load(path)
    probabilities = found.probabilities.copy()
    probabilities[0] = np.nan
    Predictions(found.ids, found.labels, probabilities).save(path)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, overwrite, spoil, remove])
def test_a_damaged_file_gives_no_outcome_and_says_so_once(inputs, digits, damage):
    damage(digits / paths.predictions_dir("digits", RUN) / "ten_crop.npz")
    outcomes = Outcomes(inputs)
    assert outcomes.of(RUN, "ten_crop") is None
    assert outcomes.of(RUN, "ten_crop") is None
    assert outcomes.of(RUN, "center_crop") is not None
    assert len(inputs.problems) == 1
    assert inputs.problems[0].startswith(f"{RUN}: no per-image outcomes of ten_crop")
    assert str(digits) not in inputs.problems[0]
