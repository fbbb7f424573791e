"""Records as they are read: what is shown, what is not, and what is said about it."""

import json

import pytest

from pipeline import paths
from pipeline.report.claims import check_claims
from pipeline.report.outcomes import Outcomes
from pipeline.report.reading import read_inputs
from pipeline.storage import read_json, write_json
from tests.report.factory import BROKEN, DIGITS, DIGITS_ENSEMBLES, INPUTS

RUN = "resnet20-s0"


def read(root, runs=DIGITS, ensembles=DIGITS_ENSEMBLES):
    return read_inputs("digits", runs, ensembles, root)


def change(path, **changes):
    write_json(path, {**read_json(path), **changes})


def test_everything_there_is_shown(digits):
    inputs = read(digits)
    assert [run.name for run in inputs.shown] == ["plain20-s0", "plain56-s0", "resnet20-s0", "resnet56-s0"]
    assert inputs.problems == []
    assert inputs.protocols == ["center_crop", "ten_crop", "multi_scale"]
    assert inputs.class_names == [str(number) for number in range(10)]
    committed = read_json(digits / paths.run_metrics("digits", RUN))
    assert inputs.runs[RUN].errors["ten_crop"].model_dump() == committed["ten_crop"]
    assert len(inputs.runs[RUN].history) == 12
    assert inputs.ensembles["resnets"].state == "shown"


def test_a_run_of_which_nothing_is_there_was_not_run(digits):
    inputs = read(digits, [*DIGITS, "resnet110-s0"], {**DIGITS_ENSEMBLES, "all": list(DIGITS)})
    assert inputs.runs["resnet110-s0"].state == "not run"
    assert inputs.ensembles["all"].state == "not run"
    assert inputs.problems == []


def test_the_holdout_is_no_protocol_of_the_tables(digits):
    path = digits / paths.run_metrics("digits", RUN)
    metrics = {**read_json(path), "holdout": {"top1_error": 3.0, "top5_error": 0.0, "n_images": 200}}
    write_json(path, metrics)
    change(digits / paths.predictions_dir("digits", RUN) / "evaluate.json", metrics=metrics)
    inputs = read(digits)
    assert inputs.runs[RUN].errors["holdout"].n_images == 200
    assert "holdout" not in inputs.protocols


@pytest.mark.parametrize("place", ["train", "evaluate"])
@pytest.mark.parametrize("key", ["git_commit", "data_digest", "packages", "hardware", "parameters", "wall_seconds"])
def test_a_figure_without_its_provenance_is_not_shown(digits, place, key):
    folder = paths.model_dir if place == "train" else paths.predictions_dir
    path = digits / folder("digits", RUN) / f"{place}.json"
    record = read_json(path)
    del record["provenance"][key]
    write_json(path, record)
    inputs = read(digits)
    assert inputs.runs[RUN].state == "not shown"
    assert inputs.runs[RUN].errors == {}
    assert any(RUN in said and f"provenance.{key}" in said for said in inputs.problems)
    assert any("dvc repro evaluate@digits-resnet20-s0" in said for said in inputs.problems)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (paths.run_metrics("digits", RUN), "{", "can't be read"),
        (paths.run_metrics("digits", RUN), "[1, 2]", "not of errors by protocol"),
        (paths.run_metrics("digits", RUN), '{"ten_crop": {"top1_error": NaN}}', "not of errors by protocol"),
        (paths.run_metrics("digits", RUN), None, "is missing"),
        (paths.model_dir("digits", RUN) / "train.json", None, "is missing"),
        (paths.model_dir("digits", RUN) / "train.json", "3", "lacks what it must have"),
        (paths.model_dir("digits", RUN) / "train.json", "\x00", "can't be read"),
        (paths.predictions_dir("digits", RUN) / "evaluate.json", None, "is missing"),
    ],
)
def test_missing_and_broken_files_are_named(digits, path, text, said):
    if text is None:
        (digits / path).unlink()
    else:
        (digits / path).write_text(text, encoding="utf-8")
    inputs = read(digits)
    assert inputs.runs[RUN].state == "not shown"
    assert any(str(path) in problem and said in problem for problem in inputs.problems)
    assert str(digits) not in "".join(inputs.problems)
    assert len(inputs.shown) == 3


@pytest.mark.parametrize("content", BROKEN, ids=repr)
@pytest.mark.parametrize("path", INPUTS, ids=lambda path: str(path)[-24:])
def test_no_broken_file_is_a_crash(digits, path, content):
    (digits / path).write_bytes(content)
    inputs = read(digits)
    check_claims(inputs, Outcomes(inputs))
    named = path.stem if path.suffix == ".npz" else str(path)
    assert any(named in problem for problem in inputs.problems)


def test_errors_beyond_percent_are_refused(digits):
    path = digits / paths.run_metrics("digits", RUN)
    metrics = read_json(path)
    metrics["ten_crop"]["top1_error"] = 101.0
    write_json(path, metrics)
    assert read(digits).runs[RUN].state == "not shown"


def test_figures_that_are_not_the_evaluations_are_not_shown(digits):
    path = digits / paths.run_metrics("digits", RUN)
    metrics = read_json(path)
    metrics["ten_crop"]["top1_error"] = 0.0
    write_json(path, metrics)
    inputs = read(digits)
    assert inputs.runs[RUN].state == "not shown"
    assert any("different figures" in problem for problem in inputs.problems)


def test_a_protocol_that_the_metrics_lack_is_not_the_evaluations(digits):
    path = digits / paths.run_metrics("digits", RUN)
    metrics = read_json(path)
    del metrics["ten_crop"]
    write_json(path, metrics)
    assert read(digits).runs[RUN].state == "not shown"


def test_figures_of_other_weights_are_not_shown(digits):
    evaluation = digits / paths.predictions_dir("digits", RUN) / "evaluate.json"
    change(evaluation, weights_sha256="cd" * 32)
    assert read(digits).runs[RUN].state == "shown"
    change(evaluation, weights_sha256="ef" * 32)
    inputs = read(digits)
    assert inputs.runs[RUN].state == "not shown"
    assert any("other weights" in problem for problem in inputs.problems)


def test_an_ensemble_goes_with_its_members(digits):
    (digits / paths.model_dir("digits", RUN) / "train.json").unlink()
    inputs = read(digits)
    assert inputs.ensembles["resnets"].state == "not shown"
    assert any(said.startswith("resnets: not shown, as its members resnet20-s0") for said in inputs.problems)


def test_an_ensemble_of_other_members_is_not_shown(digits):
    inputs = read(digits, ensembles={"resnets": ["plain20-s0", "resnet20-s0"]})
    assert inputs.ensembles["resnets"].state == "not shown"
    assert any(
        "is of resnet20-s0, resnet56-s0; run `dvc repro --single-item ensemble@digits`" in said
        for said in inputs.problems
    )


def test_what_each_member_contributes_is_read_beside_the_errors(digits):
    found = read(digits).ensembles["resnets"]
    assert set(found.errors) == {"center_crop", "ten_crop", "multi_scale"}
    alone = read_json(digits / paths.run_metrics("digits", "resnet56-s0"))["ten_crop"]
    assert found.leave_one_out["ten_crop"][RUN].model_dump() == alone
    assert found.search is None


def test_an_ensemble_whose_members_have_no_record_is_not_shown(digits):
    path = paths.members_dir("digits") / "resnets.json"
    (digits / path).unlink()
    inputs = read(digits)
    assert inputs.ensembles["resnets"].state == "not shown"
    assert any(f"{path} is missing; run `dvc repro --single-item ensemble@digits`" in said for said in inputs.problems)


@pytest.mark.parametrize(
    "text", ["", "iteration,training_error\n1,2\n", "iteration,training_error,test_error\n1,a,2\n"]
)
def test_a_run_with_broken_curves_keeps_its_figures(digits, text):
    path = paths.model_dir("digits", RUN) / "history.csv"
    (digits / path).write_text(text)
    inputs = read(digits)
    assert inputs.runs[RUN].state == "shown"
    assert inputs.runs[RUN].history is None
    assert any(f"{RUN}: no curves" in problem and str(path) in problem for problem in inputs.problems)


def test_layer_responses_are_read_where_they_are(digits):
    assert read(digits).runs[RUN].responses is None
    path = digits / paths.model_dir("digits", RUN) / "responses.json"
    write_json(path, {"layers": [{"name": "conv1", "std": 0.5}]})
    assert read(digits).runs[RUN].responses.layers[0].std == 0.5
    path.write_text(json.dumps({"layers": [{"name": "conv1", "std": -1.0}]}))
    inputs = read(digits)
    assert inputs.runs[RUN].responses is None
    assert inputs.runs[RUN].state == "shown"
    assert any("no layer responses" in problem for problem in inputs.problems)


def test_a_malformed_run_is_an_error(digits):
    with pytest.raises(ValueError, match="resnet20"):
        read(digits, ["resnet20"])
