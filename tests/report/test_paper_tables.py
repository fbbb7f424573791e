"""The paper's tables with ours beside."""

import pytest

from pipeline.evaluation.statistics import verdict
from pipeline.report.answer import sentences
from pipeline.report.paper_tables import paper_tables, verdict_text
from pipeline.report.published import load_published
from pipeline.report.reading import read_inputs
from pipeline.report.verdicts_table import verdicts_table
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, add_ensemble, add_run


def tables_of(root, experiment, runs, ensembles=None, comparable=True):
    found = paper_tables(read_inputs(experiment, runs, ensembles or {}, root), comparable)
    return {each.table.name: each for each in found}


def texts(table, **known):
    """The cells of the one row that has the known texts."""
    (row,) = [row for row in table.rows if all(row.cell(key).text == text for key, text in known.items())]
    return {key: cell.text for key, cell in row.cells.items()}


def test_cifar_has_table_6_alone_and_says_what_was_not_run(tmp_path):
    found = tables_of(tmp_path, "x", ["resnet20-s0"])
    assert list(found) == ["table6"]
    table = found["table6"].table
    assert [row.cell("layers").text for row in table.rows[-6:]] == ["20", "32", "44", "56", "110", "1202"]
    assert {row.cell("top1_error.verdict").text for row in table.rows[-6:]} == {"not run"}
    assert texts(table, method="Highway (published)", layers="19")["top1_error.published"] == "7.54 (7.72 ± 0.16)"
    assert all(row.kind == "published" for row in table.rows[:6])
    assert len(found["table6"].comparisons) == 6


def test_table_6_compares_one_seed_by_wilson_and_several_by_their_spread(tmp_path):
    add_run(tmp_path, "x", "resnet20-s0", {"single_view": 0.87}, n_images=5000)
    for seed, accuracy in enumerate((0.87, 0.89)):
        add_run(tmp_path, "x", f"resnet110-s{seed}", {"single_view": accuracy}, n_images=5000)
    runs = ["resnet20-s0", "resnet110-s0", "resnet110-s1"]
    found = tables_of(tmp_path, "x", runs)["table6"]
    inputs = read_inputs("x", runs, {}, tmp_path)
    (one,) = [run.errors["single_view"].top1_error for run in inputs.of_network("resnet20")]
    several = [run.errors["single_view"].top1_error for run in inputs.of_network("resnet110")]
    twenty, deep = (texts(found.table, layers=layers, method="ResNet") for layers in ("20", "110"))
    assert twenty["top1_error.ours"] == f"{one:.2f}"
    assert twenty["parameters"] == "0.27M (ours 0.27M)"
    expected = verdict(8.75, [one], 5000)
    assert twenty["top1_error.verdict"] == verdict_text(expected)
    mean, spread = sum(several) / 2, abs(several[0] - several[1]) / 2**0.5
    assert deep["top1_error.ours"] == f"{min(several):.2f} ({mean:.2f} ± {spread:.2f})"
    assert deep["top1_error.interval"] == f"{mean - spread:.2f}–{mean + spread:.2f}"
    compared = {comparison.network: comparison for comparison in found.comparisons}
    assert compared["resnet110"].published == 6.61
    assert compared["resnet110"].verdict.difference == pytest.approx(mean - 6.61)


def test_other_data_gets_no_verdict(tmp_path):
    add_run(tmp_path, "x", "resnet20-s0", {"single_view": 0.9})
    found = tables_of(tmp_path, "x", ["resnet20-s0"], comparable=False)["table6"]
    cells = texts(found.table, layers="20", method="ResNet")
    assert cells["top1_error.verdict"] == "not compared"
    assert "no verdict" in found.table.caption
    assert {comparison.verdict.kind for comparison in found.comparisons} == {"not compared", "not run"}


def test_an_experiment_by_other_protocols_has_no_paper_tables(digits):
    assert tables_of(digits, "digits", DIGITS, DIGITS_ENSEMBLES, comparable=False) == {}


IMAGENET = {"plain18-s0": 0.72, "plain34-s0": 0.70, "resnet18a-s0": 0.74, "resnet34b-s0": 0.76, "vgg16-s0": 0.72}


@pytest.fixture
def imagenet(tmp_path):
    for run, accuracy in IMAGENET.items():
        add_run(tmp_path, "x", run, {"ten_crop": accuracy, "multi_scale": accuracy + 0.02}, n_images=1000, classes=50)
    add_ensemble(tmp_path, "x", "paper", ["plain34-s0", "resnet34b-s0"], ["ten_crop", "multi_scale"])
    return tmp_path


def test_imagenet_has_tables_2_to_5(imagenet):
    found = tables_of(imagenet, "x", IMAGENET, {"paper": ["plain34-s0", "resnet34b-s0"]})
    assert list(found) == ["table2", "table3", "table4", "table5"]
    errors = {run.network: run.errors for run in read_inputs("x", IMAGENET, {}, imagenet).shown}
    first, second = found["table2"].table.rows
    assert first.cell("plain.ours").text == f"{errors['plain18']['ten_crop'].top1_error:.2f}"
    assert first.cell("ResNet.ours").text == f"{errors['resnet18a']['ten_crop'].top1_error:.2f}"
    assert (second.cell("ResNet.published").text, second.cell("ResNet.verdict").text) == ("25.03", "not run")
    row = texts(found["table3"].table, method="ResNet-34 B")
    assert row["top5_error.ours"] == f"{errors['resnet34b']['ten_crop'].top5_error:.2f}"
    row = texts(found["table4"].table, method="ResNet-34 B")
    assert row["top1_error.ours"] == f"{errors['resnet34b']['multi_scale'].top1_error:.2f}"


def test_anothers_network_that_was_trained_here_stands_beside_its_figure(imagenet):
    found = tables_of(imagenet, "x", IMAGENET)["table3"]
    vgg = texts(found.table, method="VGG-16 (published)")
    assert vgg["top1_error.published"] == "28.07"
    assert float(vgg["top1_error.ours"]) > 0
    assert vgg["top1_error.verdict"] == "not compared", "others' figures come of other recipes"
    assert "vgg16" not in {comparison.network for comparison in found.comparisons}
    assert texts(found.table, method="GoogLeNet (published)")["top1_error.published"] == "–"
    assert len(found.comparisons) == 14


def test_the_answer_counts_a_figure_that_two_tables_repeat_once(imagenet):
    found = tables_of(imagenet, "x", IMAGENET)
    comparisons = [comparison for each in found.values() for comparison in each.comparisons]
    inputs = read_inputs("x", IMAGENET, {}, imagenet)
    first = sentences(inputs, comparisons, [], comparable=True)[0]
    assert first.startswith(f"Of {4 + 14 + 10 - 2} figures"), "plain-34 and ResNet-34 A are in Tables 2 and 3"


def test_table_5_of_other_data_is_for_orientation(imagenet):
    ensembles = {"paper": ["plain34-s0", "resnet34b-s0"]}
    captions = [
        tables_of(imagenet, "x", IMAGENET, ensembles, comparable=comparable)["table5"].table.caption
        for comparable in (True, False)
    ]
    assert ["for orientation" in caption for caption in captions] == [False, True]


def test_table_5_holds_no_test_servers_figure_against_ours(imagenet):
    found = tables_of(
        imagenet, "x", IMAGENET, {"paper": ["plain34-s0", "resnet34b-s0"], "none": ["plain18-s0", "vgg16-s0"]}
    )
    rows = found["table5"].table.rows
    ensemble = read_inputs("x", IMAGENET, {"paper": ["plain34-s0", "resnet34b-s0"]}, imagenet).ensembles["paper"]
    assert rows[-2].cell("method").text == "ours: paper (plain-34, ResNet-34 B), multi-scale"
    assert rows[-2].cell("ours").text == f"{ensemble.errors['multi_scale'].top5_error:.2f}"
    assert rows[-1].cell("ours").text == "not run"
    assert found["table5"].comparisons == ()
    assert texts(found["table4"].table, method="VGG (ILSVRC'14) (published)")["top5_error.published"] == "8.43†"


def test_verdicts_in_long_form(imagenet):
    found = tables_of(imagenet, "x", IMAGENET)
    comparisons = [comparison for each in found.values() for comparison in each.comparisons]
    table = verdicts_table(comparisons)
    assert len(table.rows) == len(comparisons) == 4 + 14 + 10
    row = next(row for row in table.rows if row.cell("table").text == "table2" and row.cell("row").text == "plain-18")
    assert float(row.cell("difference").text) == pytest.approx(float(row.cell("ours").text) - 27.94, abs=1e-3)
    assert load_published().table2.of_network("plain18").top1 == float(row.cell("published").text)
