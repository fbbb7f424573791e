"""Ensembles: their errors, what each member contributes, and how the members of searched ones were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report import names
from pipeline.report.inputs import EnsembleResult, Inputs
from pipeline.report.results_tables import INTERVALS, images_text, percent, protocol_columns, with_errors
from pipeline.report.tables import Cell, Column, Row, Table

SELECTED_ON = {"holdout": "held-out training images", "half": "test images"}
"""What the images were on which a search chose, in words."""


def ensemble_tables(inputs: Inputs) -> list[Table]:
    """Those for which there are records."""
    tables = [ensembles_table(inputs)] if inputs.ensembles else []
    shown = [ensemble for ensemble in inputs.ensembles.values() if ensemble.state == "shown"]
    if any(ensemble.leave_one_out for ensemble in shown):
        tables.append(contributions_table(inputs))
    if any(ensemble.search is not None for ensemble in shown):
        tables.append(searches_table(shown))
    return tables


def selection(inputs: Inputs) -> str:
    """A sentence on what the test images selected."""
    halved = [ensemble.name for ensemble in inputs.ensembles.values() if ensemble.halved]
    if not halved:
        return "The test images select nothing."
    return f"Half of the test images chose the members of {', '.join(halved)}; they select nothing else."


def ensembles_table(inputs: Inputs) -> Table:
    """A row an ensemble."""
    columns = (
        Column("ensemble", "ensemble", numeric=False),
        *protocol_columns(inputs),
        Column("members", "members", numeric=False),
    )
    rows = tuple(_row(inputs, ensemble) for ensemble in inputs.ensembles.values())
    caption = f"The members' saved probabilities averaged. Percent of {images_text(inputs)}; {INTERVALS}"
    return Table("ensembles", "Ensembles", columns, rows, caption)


def _row(inputs: Inputs, ensemble: EnsembleResult) -> Row:
    members = ", ".join(ensemble.members)
    if ensemble.search is not None:
        members += f" (chosen on {_selected_on(ensemble.search)}{_reporting_on(ensemble)})"
    cells = {"ensemble": Cell(ensemble.name), "members": Cell(members)}
    return with_errors(inputs, cells, ensemble)


def _selected_on(search: Mapping[str, Any]) -> str:
    return f"{search.get('n_selecting', 0):,} {SELECTED_ON.get(str(search.get('select_on')), 'other images')}"


def _reporting_on(ensemble: EnsembleResult) -> str:
    if not ensemble.halved:
        return ""
    return f"; errors of the other {max((errors.n_images for errors in ensemble.errors.values()), default=0):,}"


def contributions_table(inputs: Inputs) -> Table:
    """A row a member of an ensemble: by how much the error rises without it, in percentage points."""
    columns = [Column("ensemble", "ensemble", numeric=False), Column("member", "without", numeric=False)]
    columns += [Column(protocol, names.protocol_label(protocol)) for protocol in inputs.protocols]
    rows = [
        Row({"ensemble": Cell(ensemble.name), "member": Cell(member), **_contribution(ensemble, member)})
        for ensemble in inputs.ensembles.values()
        for member in ensemble.members
        if ensemble.leave_one_out
    ]
    caption = "Change of the ensemble's top-1 error when one member is left out, in percentage points."
    return Table("contributions", "Members' contributions", tuple(columns), tuple(rows), caption)


def _contribution(ensemble: EnsembleResult, member: str) -> dict[str, Cell]:
    return {
        protocol: Cell(f"{without[member].top1_error - ensemble.errors[protocol].top1_error:+.2f}")
        for protocol, without in ensemble.leave_one_out.items()
        if member in without and protocol in ensemble.errors
    }


def searches_table(shown: list[EnsembleResult]) -> Table:
    """A row a searched ensemble: from what, on what and by what errors its members were chosen."""
    labels = ("ensemble", "search", "candidates", "chosen on", "by", "top-1 error there", "reported on")
    columns = tuple(Column(label, label, numeric=False) for label in labels)
    rows = [_search_row(ensemble, ensemble.search) for ensemble in shown if ensemble.search is not None]
    caption = (
        "Members are never chosen on images that report. Of a greedy search the errors are given as members were added,"
        " the first one's first."
    )
    return Table("searches", "How members were chosen", columns, tuple(rows), caption)


def _search_row(ensemble: EnsembleResult, search: Mapping[str, Any]) -> Row:
    reported = max((errors.n_images for errors in ensemble.errors.values()), default=0)
    texts = {
        "ensemble": ensemble.name,
        "search": f"{search.get('search', '')}, at most {search.get('most', '?')}",
        "candidates": ", ".join(map(str, search.get("candidates") or ())),
        "chosen on": _selected_on(search),
        "by": names.protocol_label(str(search.get("protocol", ""))),
        "top-1 error there": " → ".join(percent(float(error)) for error in search.get("selecting_top1_error") or ()),
        "reported on": f"{reported:,} images",
    }
    return Row({key: Cell(text) for key, text in texts.items()})
