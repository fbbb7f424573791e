"""What an evaluation leaves besides protocols: ways of averaging, rounding, ensembles chosen by search."""

from pathlib import Path

import pytest

from pipeline import paths
from pipeline.evaluation.ensembles import average, halves, only
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.statistics import mcnemar
from pipeline.report import write_report
from pipeline.report.claims import check_claims
from pipeline.report.outcomes import Outcomes
from pipeline.report.reading import read_inputs
from pipeline.schema import Report
from pipeline.storage import read_json, write_json
from tests.report.factory import add_run, write_ensemble

pytestmark = pytest.mark.slow

RUNS = ["resnet20-s0", "resnet56-s0"]
WAYS = {"multi_scale": 0.9, "multi_scale_scores": 0.85}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for run in RUNS:
        add_run(tmp_path, "x", run, WAYS, n_images=801)
    return tmp_path


def load(root: Path, run: str) -> Predictions:
    return Predictions.load(root / paths.predictions_dir("x", run) / "multi_scale.npz")


def test_ways_of_averaging_have_a_table_and_are_no_protocols(root: Path, digits_report: Report) -> None:
    write_report("x", digits_report, RUNS, {}, root)
    assert read_inputs("x", RUNS, {}, root).protocols == ["multi_scale"]
    lines = (root / paths.results_dir("x") / "tables" / "multi_scale_ways.csv").read_text().splitlines()
    measured = read_json(root / paths.predictions_dir("x", RUNS[0]) / "evaluate.json")["metrics"]
    assert lines[0] == "run,as declared top-1,as declared 95%," + ",".join(
        [*(f'"scores, with mirror images {column}"' for column in ("top-1", "95%")), "data"]
    )
    assert lines[1].removesuffix(",made-up digits").split(",")[1::2] == [
        f"{measured[way]['top1_error']:.2f}" for way in WAYS
    ]


def test_rounding_stands_with_the_run(root: Path, digits_report: Report) -> None:
    path = root / paths.predictions_dir("x", RUNS[0]) / "evaluate.json"
    found = {"precision": "bf16", "protocol": "multi_scale", "n_images": 256}
    found |= {"max_difference": 0.0123, "mean_difference": 0.00045, "top1_disagreements": 3}
    write_json(path, {**read_json(path), "precision_error": found})
    write_report("x", digits_report, RUNS, {}, root)
    text = (root / paths.results_dir("x") / "report.html").read_text()
    said = "bf16 against fp32, multi-scale, 256 images: probabilities differ by 0.012 at most, 0.00045 on average"
    assert text.count(said) == 1
    assert "the likeliest class in 3" in text


def test_a_searched_ensemble_reports_on_the_half_it_was_not_chosen_on(root: Path) -> None:
    reporting = halves(801, 7)[1]
    members = {run: only(load(root, run), reporting) for run in RUNS}
    mean = average(members)
    search = {"search": "greedy", "select_on": "half", "seed": 7, "n_selecting": 400}
    write_ensemble(root, "x", "found", RUNS, {"multi_scale": errors(mean.probabilities, mean.labels)}, search, {})
    inputs = read_inputs("x", RUNS, {"found": []}, root)
    assert inputs.ensembles["found"].members == tuple(RUNS)
    outcomes = Outcomes(inputs)
    (link,) = next(claim for claim in check_claims(inputs, outcomes) if claim.name == "ensemble").links
    wrong = {run: members[run].probabilities.argmax(1) != members[run].labels for run in RUNS}
    best = min(RUNS, key=lambda run: wrong[run].mean())
    found = mean.probabilities.argmax(1) != mean.labels
    assert inputs.problems == []
    assert link.worse_value == pytest.approx(100 * wrong[best].mean())
    assert link.better_value == pytest.approx(100 * found.mean())
    assert link.p_value == mcnemar(wrong[best], found).p_mid
