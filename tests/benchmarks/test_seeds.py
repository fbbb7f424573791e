"""Trainings of several seeds: which ways lie within fp32's spread, and how likely a difference is by chance."""

from __future__ import annotations

from benchmarks.seeds import End, described, markdown, verdict


def ends(*losses: float) -> list[End]:
    return [{"training_loss": loss, "test_error": 10 * loss, "seconds": 1.0} for loss in losses]


def test_a_mean_within_the_spread_over_seeds_passes() -> None:
    assert verdict({"fp32": ends(1.0, 1.2), "bf16": ends(1.1, 1.25)}) == "all within fp32's spread over seeds"


def test_a_mean_outside_it_is_named() -> None:
    found = verdict({"fp32": ends(1.0, 1.2), "bf16": ends(1.3, 1.3), "fp32, compiled": ends(1.1)})
    assert found == "outside fp32's spread over seeds: bf16's training loss, bf16's test error"
    one = verdict({"fp32": ends(1.0), "bf16": ends(1.0)})
    assert one == "undecided, as fp32 has 1 of the two seeds that make a spread"
    assert verdict({"fp32": ends(1.0, 1.2), "bf16": []}).startswith("all"), "what was not trained is nowhere"
    assert verdict({"fp32": ends(1.0, 1.2), "usual script": ends(9.0)}).startswith("all"), "it is a control"


def test_the_table_has_means_ranges_and_chances() -> None:
    lines = markdown(
        {"fp32": ends(1.0, 1.2, 1.1), "bf16": ends(1.0, 1.2, 1.1), "other": ends(2.0, 2.2, 2.1)}
    ).splitlines()
    assert lines[2] == "| fp32 | 3 | 1.1 (1 to 1.2) |  | 11 (10 to 12) |  |"
    assert lines[3] == "| bf16 | 3 | 1.1 (1 to 1.2) | 1 | 11 (10 to 12) | 1 |"
    # Welch's t is 1 / sqrt(2 * 0.01 / 3) = 12.25 with 4 degrees of freedom.
    assert lines[4] == "| other | 3 | 2.1 (2 to 2.2) | 0.00026 | 21 (20 to 22) | 0.00026 |"


def test_ways_that_were_not_trained_have_no_row() -> None:
    assert len(markdown({"fp32": ends(1.0), "bf16": []}).splitlines()) == 3


def test_one_seed_has_no_chance() -> None:
    line = markdown({"fp32": ends(1.0, 1.2), "bf16": ends(1.5)}).splitlines()[3]
    assert line == "| bf16 | 1 | 1.5 (1.5 to 1.5) |  | 15 (15 to 15) |  |"
    assert described(ends(1.0, 2.0)) == "training loss 1.5 (1 to 2), test error 15 (10 to 20)%"
