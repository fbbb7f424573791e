"""Claims in words, on made-up predictions whose differences are known."""

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.statistics import mcnemar
from pipeline.report.answer import claim_lines, claims_table, p_text, sentences
from pipeline.report.claims import Claim, Link, check_claims
from pipeline.report.outcomes import Outcomes
from pipeline.report.reading import read_inputs
from pipeline.storage import write_json
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, add_ensemble, add_run


def claims_of(root, experiment, runs, ensembles=None):
    inputs = read_inputs(experiment, runs, ensembles or {}, root)
    return inputs, {claim.name: claim for claim in check_claims(inputs, Outcomes(inputs))}


def link(worse, better, p_value):
    return Link("worse", "better", worse, better, p_value)


@pytest.mark.parametrize(
    ("links", "standing"),
    [
        ([], "not run"),
        ([link(9.0, 8.0, 0.01)], "holds"),
        ([link(9.0, 8.0, 0.05)], "undecided"),
        ([link(9.0, 8.0, None)], "undecided"),
        ([link(8.0, 9.0, 0.01)], "does not hold"),
        ([link(8.0, 9.0, 0.2)], "undecided"),
        ([link(9.0, 8.0, 0.01), link(8.0, 7.0, 0.3)], "undecided"),
        ([link(9.0, 8.0, 0.3), link(7.0, 8.0, 0.01)], "does not hold"),
        ([link(9.0, 8.0, 0.01), link(8.0, 7.0, 0.001)], "holds"),
    ],
)
def test_a_claim_stands_as_its_weakest_comparison(links, standing):
    claim = Claim("c", "", "", tuple(links))
    assert claim.standing == standing
    known = [each.p_value for each in links if each.p_value is not None]
    assert claim.p_value == (max(known) if known else None)


def test_digits_claims(digits):
    inputs, claims = claims_of(digits, "digits", DIGITS, DIGITS_ENSEMBLES)
    assert claims["degradation"].standing == "holds"
    assert claims["degradation"].missing == ("plain110", "plain44", "plain32")
    assert [(found.worse, found.better) for found in claims["residual"].links] == [
        ("plain20-s0 (10-crop)", "resnet20-s0 (10-crop)"),
        ("plain56-s0 (10-crop)", "resnet56-s0 (10-crop)"),
    ]
    assert claims["1202 layers"].standing == "not run"
    assert claims["responses"].standing == "not run"
    assert len(claims["protocols"].links) == 8
    assert inputs.problems == []


def test_p_values_are_mcnemars_of_the_files(digits):
    inputs, claims = claims_of(digits, "digits", DIGITS, DIGITS_ENSEMBLES)
    outcomes = Outcomes(inputs)
    plain20, plain56 = (outcomes.of(run, "ten_crop").wrong for run in ("plain20-s0", "plain56-s0"))
    (found,) = claims["degradation"].links
    assert found.p_value == mcnemar(plain56, plain20).p_mid
    assert (found.worse_value, found.better_value) == pytest.approx((100 * plain56.mean(), 100 * plain20.mean()))


def test_a_claim_that_is_the_other_way_round_does_not_hold(tmp_path):
    runs = {"plain20-s0": 0.7, "plain56-s0": 0.95, "resnet20-s0": 0.95, "resnet56-s0": 0.6}
    for run, accuracy in runs.items():
        add_run(tmp_path, "x", run, {"single_view": accuracy})
    _, claims = claims_of(tmp_path, "x", runs)
    assert claims["degradation"].standing == claims["depth"].standing == "does not hold"
    assert "protocols" not in claims
    assert "ensemble" not in claims


def test_imagenet_claims(tmp_path):
    accuracies = {
        "plain18-s0": 0.70,
        "plain34-s0": 0.62,
        "resnet18a-s0": 0.71,
        "resnet34a-s0": 0.77,
        "resnet34b-s0": 0.81,
        "resnet34c-s0": 0.85,
        "resnet50-s0": 0.90,
        "resnet152-s0": 0.95,
    }
    for run, accuracy in accuracies.items():
        add_run(tmp_path, "x", run, {"center_crop": accuracy - 0.05, "ten_crop": accuracy}, n_images=2000)
    _, claims = claims_of(tmp_path, "x", accuracies)
    standings = {name: claim.standing for name, claim in claims.items() if name != "responses"}
    assert standings == dict.fromkeys(["degradation", "depth", "shortcuts", "deeper", "protocols"], "holds")
    assert [len(claims[name].links) for name in ("shortcuts", "deeper")] == [2, 2]
    assert claims["deeper"].missing == ("resnet101",)


def test_an_ensemble_is_held_against_its_best_member(tmp_path):
    runs = {"resnet20-s0": 0.8, "resnet20-s1": 0.9, "resnet56-s0": 0.85}
    for run, accuracy in runs.items():
        add_run(tmp_path, "x", run, {"single_view": accuracy}, n_images=1000)
    add_ensemble(tmp_path, "x", "all", list(runs), ["single_view"])
    inputs, claims = claims_of(tmp_path, "x", runs, {"all": list(runs)})
    (found,) = claims["ensemble"].links
    errors = {run.name: run.errors["single_view"].top1_error for run in inputs.shown}
    best = min(errors, key=errors.get)
    assert found.worse == f"{best} (single view)"
    assert found.worse_value == errors[best]
    assert found.better_value == inputs.ensembles["all"].errors["single_view"].top1_error


def test_without_predictions_there_is_no_test(digits):
    for file in (digits / "predictions" / "digits" / "plain56-s0").glob("*.npz"):
        file.unlink()
    inputs, claims = claims_of(digits, "digits", DIGITS, DIGITS_ENSEMBLES)
    assert claims["degradation"].standing == "undecided"
    assert claims["degradation"].p_value is None
    assert "no paired test" in claim_lines([claims["degradation"]])[0].evidence[0]
    assert inputs.problems


def test_predictions_of_other_images_are_not_paired(tmp_path):
    add_run(tmp_path, "x", "plain20-s0", {"single_view": 0.9}, n_images=400)
    add_run(tmp_path, "x", "plain56-s0", {"single_view": 0.4}, n_images=300)
    _, claims = claims_of(tmp_path, "x", ["plain20-s0", "plain56-s0"])
    assert claims["degradation"].p_value is None


def test_layer_responses(tmp_path):
    rng = np.random.default_rng(0)
    stds = {"plain20-s0": 1 + rng.random(19), "resnet20-s0": 0.5 * rng.random(19), "resnet56-s0": 0.1 * rng.random(55)}
    for run, values in stds.items():
        add_run(tmp_path, "x", run, {"single_view": 0.9})
        layers = [{"name": f"conv{number}", "std": float(value)} for number, value in enumerate(values)]
        write_json(tmp_path / "predictions" / "x" / run / "responses.json", {"layers": layers})
    _, claims = claims_of(tmp_path, "x", stds)
    twins, deeper = claims["responses"].links
    assert claims["responses"].standing == "holds"
    assert twins.p_value == pytest.approx(stats.wilcoxon(stds["plain20-s0"], stds["resnet20-s0"]).pvalue)
    assert deeper.p_value == pytest.approx(stats.mannwhitneyu(stds["resnet20-s0"], stds["resnet56-s0"]).pvalue)
    assert (twins.worse_value, deeper.better_value) == pytest.approx(
        (stds["plain20-s0"].mean(), stds["resnet56-s0"].mean())
    )


def test_the_claims_in_words_and_in_csv():
    claims = [
        Claim("a", "A is so", "Table 1", (Link("y", "x", 9.0, 8.0, 0.0001), Link("z", "y", 10.0, 9.0, 0.04))),
        Claim("b", "B is so", "Table 2", (), ("resnet110", "plain34")),
    ]
    first, second = claim_lines(claims)
    assert (first.standing, first.tone, first.p_value) == ("holds", "good", "p = 0.040")
    assert first.evidence[0] == "x 8.00% against y 9.00%: holds, p < 0.001"
    assert (second.standing, second.missing) == ("not run", "ResNet-110, plain-34")
    rows = claims_table(claims).rows
    assert [row.cell("standing").text for row in rows] == ["holds", "holds", "not run"]
    assert rows[1].cell("better_value").text == "9.0000"
    assert p_text(None) == ""


def test_the_answer_counts(digits):
    inputs, claims = claims_of(digits, "digits", [*DIGITS, "resnet110-s0"], DIGITS_ENSEMBLES)
    runs, words = sentences(inputs, [], list(claims.values()), comparable=False)
    assert runs == "4 of 5 runs have results."
    held = [claim for claim in claims.values() if claim.standing == "holds"]
    assert f"5 could be checked: {len(held)} hold" in words
