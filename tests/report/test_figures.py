"""Figures: what is drawn is what the records say, and the same bytes come out each time."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pipeline.evaluation.statistics import error_interval
from pipeline.models.complexity import complexity_of
from pipeline.report.cost import cost_figure, multiply_adds
from pipeline.report.figures import colours_of, curves_figure, depth_figure, network_points, paper_figures
from pipeline.report.plots import INK, to_inline_svgs, to_png, to_svg
from pipeline.report.reading import read_inputs
from pipeline.storage import write_json
from tests.report.factory import DIGITS, add_run, history


def draw(panel):
    axes = Figure().subplots()
    panel(axes)
    return axes


@pytest.fixture
def inputs(digits):
    return read_inputs("digits", DIGITS, {}, digits)


def test_figure_6_has_plain_left_residual_right_on_one_axis(inputs):
    plot = curves_figure(inputs)
    left, right = map(draw, plot.panels)
    assert plot.name == "figure6"
    assert (left.get_title("left") or left.get_title()) == "Plain nets"
    assert left.get_ylim() == right.get_ylim()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["plain-20", "plain-56"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["ResNet-20", "ResNet-56"]


def test_figure_6_draws_training_dashed_and_test_bold(inputs):
    axes = draw(curves_figure(inputs).panels[0])
    training, test = axes.lines[:2]
    expected = history(DIGITS["plain20-s0"])
    assert training.is_dashed()
    assert not test.is_dashed()
    assert test.get_linewidth() > training.get_linewidth()
    assert training.get_color() == test.get_color()
    assert np.allclose(training.get_xydata(), expected[["iteration", "training_error"]])
    assert np.allclose(test.get_xydata(), expected[["iteration", "test_error"]].dropna())


def test_the_axis_shows_the_second_half_of_every_curve_but_plain_110s(tmp_path):
    add_run(tmp_path, "x", "plain20-s0", {"single_view": 0.9})
    add_run(tmp_path, "x", "plain110-s0", {"single_view": 0.2})
    axes = draw(curves_figure(read_inputs("x", ["plain20-s0", "plain110-s0"], {}, tmp_path)).panels[0])
    late = history(0.9).query("iteration > 300")[["training_error", "test_error"]].max().max()
    assert late < axes.get_ylim()[1] < 40


def test_110_against_1202_has_a_panel_of_its_own(tmp_path):
    runs = ["resnet20-s0", "resnet110-s0", "resnet1202-s0"]
    for run in runs:
        add_run(tmp_path, "x", run, {"single_view": 0.9})
    panels = curves_figure(read_inputs("x", runs, {}, tmp_path)).panels
    legends = [[text.get_text() for text in draw(panel).get_legend().get_texts()] for panel in panels]
    assert legends == [["ResNet-20", "ResNet-110", "ResNet-1202"], ["ResNet-110", "ResNet-1202"]]


def test_imagenet_curves_are_figure_4(tmp_path):
    for run in ("plain18-s0", "resnet18a-s0"):
        add_run(tmp_path, "x", run, {"center_crop": 0.7})
    plot = curves_figure(read_inputs("x", ["plain18-s0", "resnet18a-s0"], {}, tmp_path))
    assert plot.name == "figure4"
    assert not draw(plot.panels[0]).lines[0].is_dashed()


def test_twins_have_one_colour():
    colours = colours_of(["plain20", "resnet20", "resnet56", "resnet34a", "plain34", "resnet34b"])
    assert colours["plain20"] == colours["resnet20"]
    assert colours["plain34"] == colours["resnet34a"]
    assert len(set(colours.values())) == 4


def test_depth_points_are_errors_with_their_intervals(inputs):
    points = network_points(inputs, "ten_crop")
    errors = inputs.runs["plain56-s0"].errors["ten_crop"]
    assert points["plain56"] == (errors.top1_error, error_interval(errors.top1_error, errors.n_images))
    axes = draw(depth_figure(inputs).panels[0])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["20", "56"]
    plain = axes.lines[[line.get_marker() for line in axes.lines].index("s")]
    assert plain.get_xydata().tolist() == [[20, points["plain20"][0]], [56, points["plain56"][0]]]


def test_multiply_adds_are_those_of_the_training_crop(inputs):
    run = inputs.runs["resnet20-s0"]
    assert multiply_adds(run, inputs) == complexity_of("resnet20", 10, 16).multiply_adds
    labels = {text.get_text() for text in draw(cost_figure(inputs).panels[0]).texts}
    assert labels == {"plain-20", "plain-56", "ResNet-20", "ResNet-56"}


def test_responses_are_drawn_in_order_and_sorted(digits):
    layers = [{"name": "a", "std": 0.2}, {"name": "b", "std": 0.9}, {"name": "c", "std": 0.4}]
    write_json(digits / "models" / "digits" / "resnet20-s0" / "responses.json", {"layers": layers})
    (plot,) = [plot for plot in paper_figures(read_inputs("digits", DIGITS, {}, digits)) if plot.name == "figure7"]
    in_order, by_size = (draw(panel).lines[0].get_ydata().tolist() for panel in plot.panels)
    assert in_order == [0.2, 0.9, 0.4]
    assert by_size == [0.9, 0.4, 0.2]


def test_nothing_run_draws_nothing(tmp_path):
    inputs = read_inputs("digits", DIGITS, {}, tmp_path)
    assert paper_figures(inputs) == []
    assert cost_figure(inputs) is None


@pytest.mark.slow
def test_files_are_the_same_bytes_each_time(inputs):
    plot = curves_figure(inputs)
    assert to_svg(plot, "A note.") == to_svg(plot, "A note.")
    assert to_png(plot, "A note.") == to_png(plot, "A note.")
    assert to_inline_svgs(plot) == to_inline_svgs(plot)
    assert "dc:date" not in to_svg(plot, None)


def test_a_file_is_sound_svg_on_white(inputs):
    root = ET.fromstring(to_svg(depth_figure(inputs), "A note."))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert to_png(depth_figure(inputs), None).startswith(b"\x89PNG")


def test_inline_panels_take_the_pages_ink_and_keep_their_ids_apart(inputs):
    first, second = to_inline_svgs(curves_figure(inputs))
    assert first.startswith("<svg")
    for svg in (first, second):
        ET.fromstring(svg)
        assert INK not in svg
        assert "currentColor" in svg
        assert to_hex("white") not in svg
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert used
        assert used <= set(re.findall(r'\bid="([^"]+)"', svg))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
