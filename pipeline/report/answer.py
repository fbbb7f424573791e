"""The answer first: what was reproduced and what was not, in sentences and as a list of claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report import names
from pipeline.report.claims import Claim, Link
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.paper_tables import Comparison
from pipeline.report.tables import Cell, Column, Row, Table, Tone

STANDING_TONES: dict[str, Tone] = {
    "holds": "good",
    "holds so far": "good",
    "does not hold": "bad",
    "undecided": "",
    "not run": "muted",
}


@dataclass(frozen=True)
class ClaimLine:
    """A claim as the page shows it."""

    standing: str
    tone: Tone
    statement: str
    where: str
    p_value: str
    evidence: tuple[str, ...]
    missing: str


def sentences(
    inputs: Inputs, comparisons: Sequence[Comparison], claims: Sequence[Claim], comparable: bool
) -> list[str]:
    """What a reader in a hurry should know."""
    found = [_runs_sentence(inputs)]
    if comparable and comparisons:
        found.insert(0, _figures_sentence(comparisons))
    if claims:
        found.append(_claims_sentence(claims))
    if endless := [run for run in inputs.shown if run.training and run.training.warmup_ended is False]:
        found.append(_warmup_sentence(endless))
    return found


def _figures_sentence(comparisons: Sequence[Comparison]) -> str:
    # Plain-34 and ResNet-34 A stand in Table 2 and again in Table 3.
    figures = {(each.network or each.label, each.metric, each.published): each.verdict.kind for each in comparisons}
    counts = Counter(figures.values())
    off = counts["higher"] + counts["lower"]
    return (
        f"Of {len(figures)} figures that the paper publishes for its own networks here, {counts['reproduced']}"
        f" {_are(counts['reproduced'])} reproduced, {off} {_are(off)} not,"
        f" and {counts['not run']} {'was' if counts['not run'] == 1 else 'were'} not run."
    )


def _runs_sentence(inputs: Inputs) -> str:
    hidden = [run.name for run in inputs.runs.values() if run.state == "not shown"]
    text = f"{len(inputs.shown)} of {len(inputs.runs)} runs have results."
    return f"{text} Not shown, for reasons at the foot: {', '.join(hidden)}." if hidden else text


def _warmup_sentence(runs: Sequence[RunResult]) -> str:
    named = ", ".join(run.name for run in runs)
    return (
        f"The warm-up never ended of: {named}. Their training error stayed above its bound, so that they were trained"
        " at the warm-up's rate to the last iteration, and the schedule never began."
    )


def _claims_sentence(claims: Sequence[Claim]) -> str:
    counts = Counter(claim.standing for claim in claims)
    checked, so_far = len(claims) - counts["not run"], counts["holds so far"]
    held = counts["holds"] + so_far
    of_them = "" if so_far == held else f"{so_far} of them "
    part = f" ({of_them}as far as {'it was' if so_far == 1 else 'they were'} run)" if so_far else ""
    return (
        f"Of the paper's {len(claims)} claims in words, {checked} could be checked:"
        f" {held} {_hold(held)}{part},"
        f" {counts['does not hold']} {'does' if counts['does not hold'] == 1 else 'do'} not,"
        f" {counts['undecided']} {_are(counts['undecided'])} undecided on these images."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _hold(count: int) -> str:
    return "holds" if count == 1 else "hold"


def claim_lines(claims: Sequence[Claim]) -> list[ClaimLine]:
    """Claims in words, for the page."""
    return [
        ClaimLine(
            claim.standing,
            STANDING_TONES[claim.standing],
            claim.statement,
            claim.where,
            p_text(claim.p_value),
            tuple(_evidence(link) for link in claim.links),
            ", ".join(map(names.label, claim.missing)),
        )
        for claim in claims
    ]


def p_text(p_value: float | None) -> str:
    """A p-value in words; blank for none."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _evidence(link: Link) -> str:
    better, worse = (f"{value:.2f}{link.unit}" for value in (link.better_value, link.worse_value))
    test = p_text(link.p_value) or "no paired test: per-image predictions are missing"
    torn = ", as the ranks, which the test uses, and the means point in opposite directions" if link.torn else ""
    return f"{link.better} {better} against {link.worse} {worse}: {link.standing}{torn}, {test}"


def claims_table(claims: Sequence[Claim]) -> Table:
    """A row a comparison, for programs; a claim that was not run has one row."""
    keys = (
        "claim",
        "statement",
        "where",
        "claim_standing",
        "better",
        "better_value",
        "worse",
        "worse_value",
        "p_value",
        "standing",
    )
    rows = []
    for claim in claims:
        head = [claim.name, claim.statement, claim.where, claim.standing]
        for link in claim.links:
            values = [
                link.better,
                f"{link.better_value:.4f}",
                link.worse,
                f"{link.worse_value:.4f}",
                _p(link),
                link.standing,
            ]
            rows.append(_row(keys, [*head, *values]))
        if not claim.links:
            rows.append(_row(keys, [*head, "", "", "", "", "", "not run"]))
    columns = tuple(Column(key, key, numeric=key.endswith("value")) for key in keys)
    return Table("claims", "Claims in words", columns, tuple(rows))


def _p(link: Link) -> str:
    return "" if link.p_value is None else f"{link.p_value:.3g}"


def _row(keys: Sequence[str], values: Sequence[str]) -> Row:
    return Row({key: Cell(value) for key, value in zip(keys, values, strict=True)})
