"""Reliability, confusion and mistakes against plain loops."""

import base64
import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline.report.diagnostics import (
    calibration_error,
    confusion,
    confusion_figure,
    diagnostic_plots,
    headline_run,
    reliability,
)
from pipeline.report.mistakes import confident_mistakes, picture
from pipeline.report.outcomes import Outcomes, outcome
from pipeline.report.reading import read_inputs
from tests.report.factory import DIGITS, add_run, predictions


@pytest.fixture
def found():
    return outcome(predictions(0.7, seed=5, n_images=300))


def test_reliability_is_the_mean_of_each_bin(found):
    confidence, accuracy, count = reliability(found)
    assert count.sum() == 300
    number = 0
    for low in np.arange(10) / 10:
        inside = [i for i in range(300) if low <= found.confidence[i] < low + 0.1 - 1e-12]
        if inside:
            assert confidence[number] == pytest.approx(np.mean([found.confidence[i] for i in inside]), rel=1e-5)
            assert accuracy[number] == np.mean([found.predicted[i] == found.labels[i] for i in inside])
            assert count[number] == len(inside)
            number += 1
    assert number == len(count)


def test_calibration_error_weighs_the_bins(found):
    confidence, accuracy, count = reliability(found)
    expected = sum(c * abs(p - a) for p, a, c in zip(confidence, accuracy, count, strict=True)) / 3
    assert calibration_error(found) == pytest.approx(expected)


def test_certainty_has_a_bin():
    sure = predictions(1.0, seed=0, n_images=20)
    sure.probabilities[:] = np.eye(10, dtype=np.float32)[sure.labels]
    confidence, accuracy, count = reliability(outcome(sure))
    assert (confidence.tolist(), accuracy.tolist(), count.tolist()) == ([1.0], [1.0], [20])
    assert calibration_error(outcome(sure)) == 0


@pytest.mark.parametrize("first", ["gas pump, gasoline pump, petrol pump, island dispenser", "x" * 60])
def test_long_class_names_leave_room_for_the_matrix(digits, first):
    inputs = read_inputs("digits", DIGITS, {}, digits)
    inputs.class_names = [first, *map(str, range(1, 10))]
    figure = Figure(figsize=(4.9, 4.6), layout="constrained")
    axes = figure.subplots()
    confusion_figure(inputs, Outcomes(inputs), "ten_crop").panels[0](axes)
    figure.canvas.draw()
    assert axes.get_xticklabels()[0].get_text() in ("gas pump", "x" * 19 + "…")
    assert axes.get_position().width > 0.5


def test_networks_for_which_there_is_no_room_are_named(tmp_path):
    runs = [f"resnet{6 * n + 2}-s0" for n in range(1, 11)]
    for run in runs:
        add_run(tmp_path, "x", run, {"single_view": 0.9})
    inputs = read_inputs("x", runs, {}, tmp_path)
    plot = next(plot for plot in diagnostic_plots(inputs, Outcomes(inputs)) if plot.name == "reliability")
    axes = Figure().subplots()
    plot.panels[0](axes)
    drawn = [text.get_text().partition(",")[0] for text in axes.get_legend().get_texts()]
    left_out = [f"ResNet-{6 * n + 2}" for n in range(1, 11) if f"ResNet-{6 * n + 2}" not in drawn]
    assert len(drawn) + len(left_out) == len(runs)
    assert left_out
    assert plot.caption.endswith(f"not drawn: {', '.join(left_out)}.")


def test_confusion_counts_labels_by_predictions(found):
    counts = np.zeros((10, 10), dtype=int)
    for label, predicted in zip(found.labels, found.predicted, strict=True):
        counts[label, predicted] += 1
    assert np.array_equal(confusion(found), counts)


def test_mistakes_are_the_most_confident_first(found):
    names = [f"digit {number}" for number in range(10)]
    mistakes = confident_mistakes(found, names, None, count=7)
    wrong = sorted((-found.confidence[i], i) for i in range(300) if found.predicted[i] != found.labels[i])
    assert [mistake.image_id for mistake in mistakes] == [found.ids[i] for _, i in wrong[:7]]
    assert mistakes[0].label == names[found.labels[wrong[0][1]]]
    assert mistakes[0].predicted == names[found.predicted[wrong[0][1]]]
    assert mistakes[0].picture is None


def test_a_picture_is_the_image_enlarged():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    address = picture(lambda image_id: pixels, "a")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
    assert np.array_equal(decoded, pixels.repeat(16, 0).repeat(16, 1))


def test_an_image_that_can_not_be_had_is_left_out():
    assert picture({}.__getitem__, "a") is None


def test_the_run_looked_at_is_the_deepest_residual_whatever_its_error(tmp_path):
    for run, accuracy in {"plain110-s0": 0.9, "resnet20-s0": 0.95, "resnet56-s1": 0.5, "resnet56-s0": 0.4}.items():
        add_run(tmp_path, "x", run, {"single_view": accuracy})
    runs = ["plain110-s0", "resnet20-s0", "resnet56-s1", "resnet56-s0"]
    assert headline_run(read_inputs("x", runs, {}, tmp_path)).name == "resnet56-s0"
    assert headline_run(read_inputs("x", runs[:1], {}, tmp_path)).name == "plain110-s0"
    assert headline_run(read_inputs("x", ["resnet20-s5"], {}, tmp_path)) is None


def test_a_matrix_of_too_many_classes_is_left_out(digits, tmp_path):
    inputs = read_inputs("digits", DIGITS, {}, digits)
    assert [plot.name for plot in diagnostic_plots(inputs, Outcomes(inputs))] == ["reliability", "confusion"]
    add_run(tmp_path, "x", "resnet50-s0", {"ten_crop": 0.9}, classes=50)
    inputs = read_inputs("x", ["resnet50-s0"], {}, tmp_path)
    assert [plot.name for plot in diagnostic_plots(inputs, Outcomes(inputs))] == ["reliability"]
