"""Writes an experiment's report: metrics.json, tables, figures, curves, and the page that holds them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import paths
from pipeline.report import names
from pipeline.report.answer import claim_lines, claims_table, sentences
from pipeline.report.claims import check_claims
from pipeline.report.cost import cost_figure
from pipeline.report.diagnostics import diagnostic_plots, headline_run
from pipeline.report.ensemble_tables import ensemble_tables, selection
from pipeline.report.figures import headline_protocol, paper_figures
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.mistakes import ImageOf, Mistake, confident_mistakes
from pipeline.report.outcomes import Outcomes
from pipeline.report.page import Content, render_html, render_markdown, render_markdown_table
from pipeline.report.paper_tables import paper_tables, rule
from pipeline.report.plots import Plot, to_png, to_svg
from pipeline.report.provenance_cards import RunLink, cards, on_this_machine, provenance_table
from pipeline.report.reading import read_inputs
from pipeline.report.results_tables import errors_table, results_tables
from pipeline.report.tables import Table, to_csv, with_data
from pipeline.report.verdicts_table import verdicts_table
from pipeline.schema import Report
from pipeline.storage import atomic_directory, atomic_file, write_json

CURVE_COLUMNS = (
    "iteration",
    "epoch",
    "learning_rate",
    "training_loss",
    "training_error",
    "test_error",
    "holdout_error",
)


def write_report(
    experiment: str,
    report: Report,
    runs: Iterable[str],
    ensembles: Mapping[str, Sequence[str]],
    root: Path = Path("."),
    *,
    image: ImageOf | None = None,
    run_link: RunLink | None = None,
) -> list[str]:
    """Write results/<experiment>/ under `root` from what the runs and ensembles (name: members) left there.

    Writes metrics.json, report.html, report.md, curves.csv, tables/ and figures/; the same inputs give the same bytes.
    `image` gives a test image's pixels by its id, `run_link` an MLflow run's address. Missing or broken inputs are no
    error: they are named in the report and in the list of sentences returned. ValueError for a malformed run name.
    """
    inputs = read_inputs(experiment, runs, ensembles, root)
    outcomes = Outcomes(inputs)
    folder = root / paths.results_dir(experiment)
    content, tables = _compose(inputs, outcomes, report, image, run_link)
    write_json(folder / "metrics.json", {**metrics(inputs), "dataset": report.dataset, "note": report.note})
    _write_text(folder / "curves.csv", curves(inputs).to_csv(index=False, lineterminator="\n"))
    _write_tables(folder / "tables", tables, report)
    _write_figures(folder / "figures", content.plots, report.note)
    _write_text(folder / "report.md", render_markdown(content))
    _write_text(folder / "report.html", render_html(content))
    return inputs.problems


def _compose(
    inputs: Inputs, outcomes: Outcomes, report: Report, image: ImageOf | None, run_link: RunLink | None
) -> tuple[Content, list[Table]]:
    claims = check_claims(inputs, outcomes)
    paper = paper_tables(inputs, report.comparable)
    comparisons = [comparison for table in paper for comparison in table.comparisons]
    cost = cost_figure(inputs)
    plots = [*paper_figures(inputs), *([cost] if cost else []), *diagnostic_plots(inputs, outcomes)]
    found_cards = cards(inputs, run_link)
    mistakes, mistakes_of = _mistakes(inputs, outcomes, image)
    content = Content(
        inputs.experiment,
        report,
        sentences(inputs, comparisons, claims, report.comparable),
        claim_lines(claims),
        [*results_tables(inputs), *ensemble_tables(inputs)],
        [table.table for table in paper],
        rule(report.comparable),
        plots,
        mistakes,
        mistakes_of,
        found_cards,
        provenance_table(found_cards),
        on_this_machine(found_cards),
        names.ensemble_command(inputs.experiment) if _has_ensembles(inputs) else None,
        selection(inputs),
        inputs.problems,
    )
    extra = [errors_table(inputs), claims_table(claims), verdicts_table(comparisons), content.provenance]
    return content, [*content.results, *content.paper, *extra]


def _has_ensembles(inputs: Inputs) -> bool:
    return any(ensemble.state == "shown" for ensemble in inputs.ensembles.values())


def _mistakes(inputs: Inputs, outcomes: Outcomes, image: ImageOf | None) -> tuple[list[Mistake], str]:
    run, protocol = headline_run(inputs), headline_protocol(inputs)
    outcome = outcomes.of(run.name, protocol) if run and protocol else None
    if run is None or protocol is None or outcome is None:
        return [], ""
    found = confident_mistakes(outcome, inputs.class_names, image)
    if lacking := sum(mistake.picture is None for mistake in found) if image else 0:
        inputs.problems.append(
            f"{run.name}: no pictures of {lacking} of its {len(found)} most confident mistakes, as the store of images"
            f" is missing or broken; run `{names.prepare_command(inputs.experiment)}`"
        )
    return found, f"{run.name}, {names.protocol_label(protocol)}"


def metrics(inputs: Inputs) -> dict[str, Any]:
    """Every figure that has its provenance, and that provenance; errors in percent."""
    runs = {run.name: _errors(run.errors) for run in inputs.shown}
    shown = {name: ensemble for name, ensemble in inputs.ensembles.items() if ensemble.state == "shown"}
    ensembles = {name: {"members": list(found.members), **_errors(found.errors)} for name, found in shown.items()}
    provenance = {run.name: _provenance(run) for run in inputs.shown}
    return {"runs": runs, "ensembles": ensembles, "provenance": provenance}


def _errors(errors: Mapping[str, Any]) -> dict[str, Any]:
    ordered = sorted(errors, key=names.protocol_order)
    return {
        protocol: errors[protocol].model_dump(include={"top1_error", "top5_error", "n_images"}) for protocol in ordered
    }


def _provenance(run: RunResult) -> dict[str, Any]:
    assert run.training is not None
    assert run.evaluation is not None
    return {
        **run.training.provenance.model_dump(),
        "seed": run.training.seed,
        "weights_sha256": run.training.weights_sha256,
        "mlflow_run_id": run.mlflow_run_id,
        "evaluation": run.evaluation.provenance.model_dump(),
    }


def curves(inputs: Inputs) -> pd.DataFrame:
    """The curves of runs that have figures, in long form: experiment, run, network, seed, columns of history.csv."""
    found = []
    for run in inputs.shown:
        if run.history is not None:
            columns = run.history.reindex(columns=list(CURVE_COLUMNS))
            head = {"experiment": inputs.experiment, "run": run.name, "network": run.network, "seed": run.seed}
            found.append(columns.assign(**head)[[*head, *CURVE_COLUMNS]])
    head_columns = ["experiment", "run", "network", "seed", *CURVE_COLUMNS]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=head_columns)


def _write_tables(folder: Path, tables: Sequence[Table], report: Report) -> None:
    """Each as CSV and as Markdown; both say of what data, as a table may well be read by itself."""
    with atomic_directory(folder) as partial:
        for table in tables:
            text = render_markdown_table(table, report)
            (partial / f"{table.name}.csv").write_text(to_csv(with_data(table, report.dataset)), encoding="utf-8")
            (partial / f"{table.name}.md").write_text(text, encoding="utf-8")


def _write_figures(folder: Path, plots: Sequence[Plot], note: str | None) -> None:
    with atomic_directory(folder) as partial:
        for plot in plots:
            (partial / f"{plot.name}.svg").write_text(to_svg(plot, note), encoding="utf-8")
            (partial / f"{plot.name}.png").write_bytes(to_png(plot, note))


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
