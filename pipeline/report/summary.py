"""The table of results on the terminal, at the end of a reproduction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import paths
from pipeline.evaluation.statistics import error_interval
from pipeline.report import names
from pipeline.storage import read_json


def print_summary(
    experiment: str,
    root: Path = Path("."),
    *,
    where: Mapping[str, str] | None = None,
    console: Console | None = None,
) -> None:
    """Print top-1 errors by run and protocol from metrics.json, and `where` to look: label to path or command.

    The report's own path comes first. ValueError when there is no metrics.json, or it is broken.
    """
    path = root / paths.results_dir(experiment) / "metrics.json"
    if not path.exists():
        raise ValueError(f"{path}: no such file; run `dvc repro` first")
    console = console or Console()
    console.print(results_table(experiment, read_json(path)))
    report = {"report": str(root / paths.results_dir(experiment) / "report.html")}
    for label, place in {**report, **(where or {})}.items():
        console.print(f"[bold]{label}[/bold]  {place}", highlight=False, soft_wrap=True)


def results_table(experiment: str, metrics: Mapping[str, Any]) -> Table:
    """Runs, then ensembles, a column a protocol: the error in percent with its 95% interval."""
    rows = {**metrics["runs"], **metrics["ensembles"]}
    found = {protocol for row in rows.values() for protocol in row} - {"members", names.HOLDOUT, *names.WAYS}
    protocols = sorted(found, key=names.protocol_order)
    table = Table(title=f"{experiment}: top-1 error, % (Wilson's 95% interval)", title_justify="left")
    table.add_column("run")
    for protocol in protocols:
        table.add_column(names.protocol_label(protocol), justify="right")
    for number, (name, row) in enumerate(rows.items()):
        table.add_row(
            name, *(_cell(row, protocol) for protocol in protocols), end_section=number == len(metrics["runs"]) - 1
        )
    return table


def _cell(row: Mapping[str, Any], protocol: str) -> str:
    if protocol not in row:
        return "not run"
    errors = row[protocol]
    interval = error_interval(errors["top1_error"], errors["n_images"])
    return f"{errors['top1_error']:.2f} [dim]({interval.low:.1f}–{interval.high:.1f})[/dim]"
