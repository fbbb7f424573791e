"""Trainings of several seeds: which ways lie within fp32's spread, and how likely a difference is by chance."""

from __future__ import annotations

from benchmarks.seeds import End, described, markdown, verdict


def ends(*losses: float) -> list[End]:
    return [{"training_loss": loss, "test_error": 10 * loss, "seconds": 1.0} for loss in losses]


def test_ways_that_end_alike_pass() -> None:
    found = verdict({"fp32": ends(1.0, 1.2), "bf16": ends(1.1, 1.25)})
    assert found.startswith("none differs from fp32 by more than seeds do (least p 0.6")
    assert found.endswith("; all means lie within fp32's least and largest")


def test_a_mean_outside_by_no_more_than_seeds_differ_is_named() -> None:
    found = verdict({"fp32": ends(1.0, 1.2, 1.1), "bf16": ends(1.0, 1.1, 0.85)})
    assert found.startswith("none differs")
    assert found.endswith("; means outside fp32's least and largest: bf16's training loss, bf16's test error")


def test_a_difference_is_named_with_its_chance() -> None:
    found = verdict({"fp32": ends(1.0, 1.2, 1.1), "bf16": ends(2.0, 2.2, 2.1), "fp32, compiled": ends(1.1, 1.15)})
    told = "bf16's training loss (p = 0.00026), bf16's test error (p = 0.00026)"
    assert found.startswith(f"not fp32's, by more than seeds differ: {told}; ")
    assert "compiled" not in found


def test_too_few_seeds_decide_nothing() -> None:
    assert verdict({"fp32": ends(1.0), "bf16": ends(1.0, 1.1)}) == "undecided, as it takes two seeds of each: fp32"
    assert verdict({"bf16": ends(1.0)}) == "undecided, as it takes two seeds of each: fp32, bf16"
    alone = verdict({"fp32": ends(1.0, 1.2), "bf16": [], "usual script": ends(9.0, 9.1)})
    assert alone.startswith("undecided"), "the usual script is a control"


def test_the_table_has_means_ranges_and_chances() -> None:
    lines = markdown(
        {"fp32": ends(1.0, 1.2, 1.1), "bf16": ends(1.0, 1.2, 1.1), "other": ends(2.0, 2.2, 2.1)}
    ).splitlines()
    assert lines[2] == "| fp32 | 3 | 1.100 (1.000 to 1.200) |  | 11.00 (10.00 to 12.00) |  |"
    assert lines[3] == "| bf16 | 3 | 1.100 (1.000 to 1.200) | 1 | 11.00 (10.00 to 12.00) | 1 |"
    # Welch's t is 1 / sqrt(2 * 0.01 / 3) = 12.25 with 4 degrees of freedom.
    assert lines[4] == "| other | 3 | 2.100 (2.000 to 2.200) | 0.00026 | 21.00 (20.00 to 22.00) | 0.00026 |"


def test_ways_that_were_not_trained_have_no_row() -> None:
    assert len(markdown({"fp32": ends(1.0), "bf16": []}).splitlines()) == 3


def test_one_seed_has_no_chance() -> None:
    line = markdown({"fp32": ends(1.0, 1.2), "bf16": ends(1.5)}).splitlines()[3]
    assert line == "| bf16 | 1 | 1.500 (1.500 to 1.500) |  | 15.00 (15.00 to 15.00) |  |"
    assert described(ends(1.0, 2.0)) == "training loss 1.500 (1.000 to 2.000), test error 15.00 (10.00 to 20.00)%"
