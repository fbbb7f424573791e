"""Claims in words, on made-up predictions whose differences are known."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from pipeline import paths
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.statistics import mcnemar
from pipeline.report.answer import claim_lines, claims_table, p_text, sentences
from pipeline.report.claims import Claim, Link, check_claims
from pipeline.report.outcomes import Outcomes
from pipeline.report.reading import read_inputs
from pipeline.storage import read_json, write_json
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, add_ensemble, add_predictions, add_run, predictions


def claims_of(root, experiment, runs, ensembles=None):
    inputs = read_inputs(experiment, runs, ensembles or {}, root)
    return inputs, {claim.name: claim for claim in check_claims(inputs, Outcomes(inputs))}


def link(worse, better, p_value):
    return Link("worse", "better", worse, better, p_value)


@pytest.mark.parametrize(
    ("links", "standing", "p_value"),
    [
        ([], "not run", None),
        ([link(9.0, 8.0, 0.01)], "holds", 0.01),
        ([link(9.0, 8.0, 0.05)], "undecided", 0.05),
        ([link(9.0, 8.0, None)], "undecided", None),
        ([link(8.0, 9.0, 0.01)], "does not hold", 0.01),
        ([link(8.0, 9.0, 0.2)], "undecided", 0.2),
        ([link(9.0, 8.0, 0.01), link(8.0, 7.0, 0.3), link(7.0, 6.9, 0.6)], "undecided", 0.6),
        ([link(9.0, 8.0, 0.001), link(8.0, 7.0, None)], "undecided", None),
        ([link(9.0, 8.0, 0.3), link(7.0, 8.0, 0.01), link(8.0, 8.5, 0.04)], "does not hold", 0.03),
        ([link(9.0, 8.0, 0.0001), link(7.0, 8.0, 0.02)], "does not hold", 0.04),
        ([link(9.0, 8.0, 0.0001), link(7.0, 8.0, 0.03)], "undecided", 0.06),
        ([link(9.0, 8.0, 0.3), link(7.0, 8.0, 0.03)], "undecided", 0.3),
        ([link(9.0, 8.0, 0.01), link(8.0, 7.0, 0.001)], "holds", 0.01),
    ],
)
def test_a_claim_stands_as_the_comparison_that_decides(links, standing, p_value):
    claim = Claim("c", "", "", tuple(links))
    assert (claim.standing, claim.p_value) == (standing, p_value)


@pytest.mark.parametrize(
    ("found", "standing"),
    [
        (link(9.0, 8.0, 0.01), "holds so far"),
        (link(9.0, 8.0, 0.06), "undecided"),
        (link(8.0, 9.0, 0.01), "does not hold"),
    ],
)
def test_a_claim_of_which_a_part_was_not_run_holds_so_far_at_most(found, standing):
    claim = Claim("c", "", "", (found,), ("resnet110",))
    assert (claim.standing, claim.p_value) == (standing, found.p_value)


CHAINS = {
    "degradation": ["plain34", "plain18"],
    "depth": ["resnet18a", "resnet34a"],
    "shortcuts": ["resnet34a", "resnet34b", "resnet34c"],
    "deeper": ["resnet34b", "resnet50", "resnet101", "resnet152"],
    "degradation on CIFAR-10": ["plain110", "plain56", "plain44", "plain32", "plain20"],
    "depth on CIFAR-10": ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"],
    "1202 layers": ["resnet1202", "resnet110"],
}
"""The networks of a claim, from the worst to the best as the paper has it."""


@pytest.mark.parametrize("last", ["holds", "does not hold"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_networks_stands_as_it_was_built(tmp_path, name, last):
    """Each network better than the one before by a tenth of the images, but for the last where it is worse."""
    networks = CHAINS[name]
    accuracies = {f"{network}-s0": 0.5 + 0.1 * place for place, network in enumerate(networks)}
    accuracies[f"{networks[-1]}-s0"] -= 0 if last == "holds" else 0.17
    for run, accuracy in accuracies.items():
        add_run(tmp_path, "x", run, {"single_view": accuracy})
    inputs, claims = claims_of(tmp_path, "x", accuracies)
    claim, outcomes = claims[name.removesuffix(" on CIFAR-10")], Outcomes(inputs)
    assert (claim.standing, claim.missing, len(claim.links)) == (last, (), len(networks) - 1)
    wrong = [outcomes.of(f"{network}-s0", "single_view").wrong for network in networks]
    p_values = [mcnemar(first, second).p_mid for first, second in pairwise(wrong)]
    assert claim.p_value == (max(p_values) if last == "holds" else min(1, p_values[-1] * len(p_values)))


@pytest.mark.parametrize("bystander", ["vgg16-s0", "highway19-s0"])
def test_what_was_not_run_is_said_of_every_claim(tmp_path, bystander):
    add_run(tmp_path, "x", bystander, {"single_view": 0.9})
    _, claims = claims_of(tmp_path, "x", [bystander])
    on_cifar = bystander.startswith("highway")
    named = {name.removesuffix(" on CIFAR-10") for name in list(CHAINS)[4 if on_cifar else 0 :][: 3 if on_cifar else 4]}
    assert set(claims) == named | {"responses"} | ({"residual"} if on_cifar else {"protocols", "ensemble"})
    assert {claim.standing for claim in claims.values()} == {"not run"}
    assert {claim.p_value for claim in claims.values()} == {None}
    assert all(claim.missing for claim in claims.values())


@pytest.mark.parametrize(
    ("accuracies", "standing"),
    [
        ((0.6, 0.7, 0.8), "holds"),
        ((0.6, 0.8, 0.7), "does not hold"),
        ((0.7, 0.6), "does not hold"),
        ((0.6, 0.7), "holds so far"),
        ((0.7,), "not run"),
    ],
)
def test_protocols_stand_as_they_were_built(tmp_path, accuracies, standing):
    protocols = dict(zip(("center_crop", "ten_crop", "multi_scale"), accuracies, strict=False))
    add_run(tmp_path, "x", "resnet50-s0", protocols)
    inputs, claims = claims_of(tmp_path, "x", ["resnet50-s0"])
    claim, outcomes = claims["protocols"], Outcomes(inputs)
    wrong = [outcomes.of("resnet50-s0", protocol).wrong for protocol in protocols]
    p_values = [mcnemar(first, second).p_mid for first, second in pairwise(wrong)]
    assert claim.standing == standing
    decides = max(p_values, default=None) if "holds" in standing else p_values[-1:]
    assert claim.p_value == (decides[-1] * len(p_values) if standing == "does not hold" else decides or None)
    assert claim.missing == ("10-crop", "multi-scale")[len(accuracies) - 1 :]


def add_members(root, confident):
    """Three members, each wrong on another third of 240 of 400 images: hesitantly, or surely where `confident`."""
    found = predictions(1.0, seed=0)
    for place, run in enumerate(MEMBERS):
        rows = np.full_like(found.probabilities, 0.01)
        rows[np.arange(400), found.labels] = 0.91
        mistaken = np.arange(80 * place, 80 * (place + 1)) if place or not confident else np.arange(0)
        rows[mistaken] = 0.01
        rows[mistaken, (found.labels[mistaken] + 1) % 10] = 0.99 if confident else 0.5
        rows[mistaken, found.labels[mistaken]] = 0.001 if confident else 0.42
        add_predictions(root, "x", run, {"ten_crop": Predictions(found.ids, found.labels, rows)})


MEMBERS = ["resnet34b-s0", "resnet50-s0", "resnet101-s0"]


def test_an_ensemble_beats_members_that_err_on_other_images(tmp_path):
    add_members(tmp_path, confident=False)
    add_ensemble(tmp_path, "x", "paper", MEMBERS, ["ten_crop"])
    _, claims = claims_of(tmp_path, "x", MEMBERS, {"paper": MEMBERS})
    (found,) = claims["ensemble"].links
    assert (found.worse_value, found.better_value) == (20.0, 0.0)
    assert claims["ensemble"].standing == "holds"
    assert claims["ensemble"].p_value == pytest.approx(0.5**80)


def test_an_ensemble_spoilt_by_confident_members_does_not(tmp_path):
    add_members(tmp_path, confident=True)
    pair = [MEMBERS[0], MEMBERS[1]]
    add_ensemble(tmp_path, "x", "paper", pair, ["ten_crop"])
    _, claims = claims_of(tmp_path, "x", MEMBERS, {"paper": pair})
    (found,) = claims["ensemble"].links
    assert (found.worse, found.worse_value, found.better_value) == ("resnet34b-s0 (10-crop)", 0.0, 20.0)
    assert claims["ensemble"].standing == "does not hold"
    assert claims["ensemble"].p_value == pytest.approx(0.5**80)


def test_digits_claims(digits):
    inputs, claims = claims_of(digits, "digits", DIGITS, DIGITS_ENSEMBLES)
    assert claims["degradation"].standing == "holds so far"
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


@pytest.mark.parametrize(("deep", "standing"), [(0.95, "holds so far"), (0.5, "does not hold")])
def test_residual_nets_against_plain_ones_of_their_depth(tmp_path, deep, standing):
    runs = {"plain20-s0": 0.6, "resnet20-s0": 0.7, "plain56-s0": 0.8, "resnet56-s0": deep, "resnet32-s0": 0.9}
    for run, accuracy in runs.items():
        add_run(tmp_path, "x", run, {"single_view": accuracy})
    _, claims = claims_of(tmp_path, "x", runs)
    assert claims["residual"].standing == standing
    assert len(claims["residual"].links) == 2
    assert set(claims["residual"].missing) == {"plain32", "plain44", "resnet44", "plain110", "resnet110"}


RESPONSES = {"plain20-s0": 1.0, "resnet20-s0": 0.5, "resnet56-s0": 0.1}
"""The mean of the layers' standard deviations, as the paper has them."""


@pytest.mark.parametrize(("changed", "standing"), [({}, "holds"), ({"resnet56-s0": 0.9}, "does not hold")])
def test_layer_responses(tmp_path, changed, standing):
    rng = np.random.default_rng(0)
    means = {**RESPONSES, **changed}
    stds = {run: mean * (0.8 + 0.4 * rng.random(19 if "20" in run else 55)) for run, mean in means.items()}
    for run, values in stds.items():
        add_run(tmp_path, "x", run, {"single_view": 0.9})
        layers = [{"name": f"conv{number}", "std": float(value)} for number, value in enumerate(values)]
        write_json(tmp_path / "predictions" / "x" / run / "responses.json", {"layers": layers})
    _, claims = claims_of(tmp_path, "x", stds)
    twins, deeper = claims["responses"].links
    assert claims["responses"].standing == standing
    assert twins.p_value == pytest.approx(stats.wilcoxon(stds["plain20-s0"], stds["resnet20-s0"]).pvalue)
    assert deeper.p_value == pytest.approx(stats.mannwhitneyu(stds["resnet20-s0"], stds["resnet56-s0"]).pvalue)
    decides = max(twins.p_value, deeper.p_value) if standing == "holds" else 2 * deeper.p_value
    assert claims["responses"].p_value == decides
    assert (twins.worse_value, deeper.better_value) == pytest.approx(
        (stds["plain20-s0"].mean(), stds["resnet56-s0"].mean())
    )


def test_ranks_and_means_that_go_different_ways_decide_nothing(tmp_path):
    stds = {"plain20-s0": [1.0] * 19, "resnet20-s0": [0.9] * 17 + [3.0] * 2}
    for run, values in stds.items():
        add_run(tmp_path, "x", run, {"single_view": 0.9})
        layers = [{"name": f"conv{number}", "std": value} for number, value in enumerate(values)]
        write_json(tmp_path / "predictions" / "x" / run / "responses.json", {"layers": layers})
    _, claims = claims_of(tmp_path, "x", stds)
    (found,) = claims["responses"].links
    assert found.p_value < 0.05
    assert found.better_value > found.worse_value
    assert found.ranks > 0
    assert claims["responses"].standing == "undecided"
    (evidence,) = claim_lines([claims["responses"]])[0].evidence
    assert "undecided, as the ranks, which the test uses, and the means point in opposite directions, p = " in evidence


def test_networks_and_ensembles_that_were_not_run_leave_a_claim_to_hold_so_far(tmp_path):
    runs = [*RESPONSES, "plain56-s0", "resnet110-s0", "resnet110-s1"]
    add_responses(tmp_path, RESPONSES)
    for run in RESPONSES:
        add_run(tmp_path, "x", run, {"center_crop": 0.6, "ten_crop": 0.75, "multi_scale": 0.9})
    add_members(tmp_path, confident=False)
    add_ensemble(tmp_path, "x", "paper", MEMBERS, ["ten_crop"])
    _, claims = claims_of(
        tmp_path, "x", [*runs, *MEMBERS], {"paper": MEMBERS, "seeds": ["resnet110-s0", "resnet110-s1"]}
    )
    assert claims["responses"].standing == claims["protocols"].standing == claims["ensemble"].standing == "holds so far"
    assert claims["responses"].missing == claims["protocols"].missing == ("plain56", "resnet110")
    assert claims["ensemble"].missing == ("seeds",)


def add_responses(root, runs):
    for run in runs:
        add_run(root, "x", run, {"single_view": 0.9})
        layers = [{"name": f"conv{number}", "std": RESPONSES[run] + number / 100} for number in range(20)]
        write_json(root / "predictions" / "x" / run / "responses.json", {"layers": layers})


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("resnet56-s0", ("those of residual nets of two depths",)),
        ("plain20-s0", ("layer responses of a plain net and its residual twin",)),
    ],
)
def test_half_of_the_claim_on_responses_holds_so_far(tmp_path, left_out, missing):
    runs = [run for run in RESPONSES if run != left_out]
    add_responses(tmp_path, runs)
    _, claims = claims_of(tmp_path, "x", runs)
    assert (claims["responses"].standing, claims["responses"].missing) == ("holds so far", missing)


def test_responses_of_a_run_that_is_not_shown_are_not_compared(tmp_path):
    add_responses(tmp_path, RESPONSES)
    path = tmp_path / "predictions" / "x" / "plain20-s0" / "evaluate.json"
    write_json(path, {**read_json(path), "weights_sha256": "0" * 64})
    inputs, claims = claims_of(tmp_path, "x", RESPONSES)
    assert inputs.runs["plain20-s0"].state == "not shown"
    assert [found.worse for found in claims["responses"].links] == ["resnet20-s0"]


def test_shortcuts_of_one_depth_are_not_compared_as_depths(tmp_path):
    for run in ("plain34-s0", "resnet18a-s0", "resnet34a-s0", "resnet34b-s0"):
        add_run(tmp_path, "x", run, {"ten_crop": 0.9})
        layers = [{"name": f"conv{number}", "std": 1 + number / 10} for number in range(8)]
        write_json(tmp_path / "predictions" / "x" / run / "responses.json", {"layers": layers})
    _, claims = claims_of(tmp_path, "x", ["plain34-s0", "resnet18a-s0", "resnet34a-s0", "resnet34b-s0"])
    assert [(link.worse, link.better) for link in claims["responses"].links] == [
        ("plain34-s0", "resnet34a-s0"),
        ("plain34-s0", "resnet34b-s0"),
        ("resnet18a-s0", "resnet34a-s0"),
    ]


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


@pytest.mark.parametrize(("ended", "told"), [(None, False), (True, False), (False, True)])
def test_a_warm_up_that_never_ended_is_told(digits, ended, told):
    record = digits / paths.model_dir("digits", "resnet20-s0") / paths.RECORD
    write_json(record, {**read_json(record), "warmup_ended": ended})
    found = sentences(claims_of(digits, "digits", DIGITS)[0], [], [], comparable=False)
    assert [sentence for sentence in found if "warm-up never ended of: resnet20-s0." in sentence] == found[1:]
    assert len(found) == 1 + told


def test_the_answer_counts(digits):
    inputs, claims = claims_of(digits, "digits", [*DIGITS, "resnet110-s0"], DIGITS_ENSEMBLES)
    runs, words = sentences(inputs, [], list(claims.values()), comparable=False)
    assert runs == "4 of 5 runs have results."
    held = [claim for claim in claims.values() if claim.standing.startswith("holds")]
    so_far = [claim for claim in held if claim.standing == "holds so far"]
    assert f"5 could be checked: {len(held)} hold" in words
    assert so_far
    of_them = "" if so_far == held else f"{len(so_far)} of them "
    assert f"({of_them}as far as {'it was' if len(so_far) == 1 else 'they were'} run)" in words
