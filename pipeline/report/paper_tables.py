"""Tables 2 to 6 in the paper's layout, ours beside the paper's, with interval and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.statistics import Verdict, over_seeds, verdict
from pipeline.report import names
from pipeline.report.inputs import EnsembleResult, Inputs, RunResult
from pipeline.report.published import Metric, PublishedRow, PublishedTable, load_published
from pipeline.report.results_tables import interval_text, percent
from pipeline.report.tables import Cell, Column, Row, Table, Tone

METRIC_LABELS: dict[Metric, str] = {"top1_error": "top-1", "top5_error": "top-5"}
TONES: dict[str, Tone] = {
    "reproduced": "good",
    "higher": "bad",
    "lower": "strong",
    "not compared": "muted",
    "not run": "muted",
}


@dataclass(frozen=True)
class Comparison:
    """One published figure of the paper's own and what became of it here."""

    table: str
    label: str
    network: str | None
    metric: Metric
    published: float
    verdict: Verdict


@dataclass(frozen=True)
class PaperTable:
    """A table for the page, and its verdicts on the paper's own figures."""

    table: Table
    comparisons: tuple[Comparison, ...]


def paper_tables(inputs: Inputs, comparable: bool) -> list[PaperTable]:
    """The paper's tables that belong to the experiment: of its networks and, on other data, its protocols too.

    Nothing is given a verdict unless `comparable`: the data are the paper's own.
    """
    published = load_published()
    families = {names.family(run.network) for run in inputs.runs.values()}
    found = []
    if "imagenet" in families:
        if _belongs(inputs, published.table2, comparable):
            found.append(_table2(inputs, published.table2, comparable))
        for name, table in (("table3", published.table3), ("table4", published.table4)):
            if _belongs(inputs, table, comparable):
                found.append(_by_row(inputs, name, table, ("top1_error", "top5_error"), comparable))
        if inputs.ensembles or comparable:
            found.append(_table5(inputs, published.table5, comparable))
    if "cifar" in families and _belongs(inputs, published.table6, comparable):
        found.append(_by_row(inputs, "table6", published.table6, ("top1_error",), comparable))
    return found


def rule(comparable: bool) -> str:
    """When a figure counts as reproduced, in words."""
    if not comparable:
        return "The paper's figures are of its own data; ours are not compared with them."
    return (
        "A figure is reproduced when the paper's lies within our interval: Wilson's 95% interval, around the mean over"
        " several seeds, or mean ± std where that is wider. ResNet-110's on CIFAR-10 is held against the paper's mean"
        " over seeds. Otherwise the table says by how much ours differs."
    )


def _belongs(inputs: Inputs, table: PublishedTable, comparable: bool) -> bool:
    return comparable or any(protocol in inputs.protocols for protocol in table.protocols)


def _table2(inputs: Inputs, published: PublishedTable, comparable: bool) -> PaperTable:
    columns = [Column("depth", "", numeric=False)]
    for group in ("plain", "ResNet"):
        columns += _metric_columns(group, group)
    comparisons: list[Comparison] = []
    rows = []
    for depth in (18, 34):
        cells = {"depth": Cell(f"{depth} layers")}
        for group, network in (("plain", f"plain{depth}"), ("ResNet", f"resnet{depth}a")):
            row = published.of_network(network)
            compared = _compare(inputs, "table2", published, row, "top1_error", comparable)
            cells |= _cells(inputs, group, published, row, "top1_error", compared)
            comparisons += [compared] if compared else []
        rows.append(Row(cells))
    return PaperTable(_table("table2", published, columns, rows, comparable), tuple(comparisons))


def _by_row(
    inputs: Inputs, name: str, published: PublishedTable, metrics: Sequence[Metric], comparable: bool
) -> PaperTable:
    columns = [Column("method", "method", numeric=False)]
    if any(row.layers for row in published.rows):
        columns += [Column("layers", "layers"), Column("parameters", "parameters")]
    for metric in metrics:
        columns += _metric_columns(metric, f"{METRIC_LABELS[metric]} error" if len(metrics) > 1 else "")
    comparisons: list[Comparison] = []
    rows = []
    for row in published.rows:
        cells = _row_head(inputs, row)
        for metric in metrics:
            compared = _compare(inputs, name, published, row, metric, comparable)
            cells |= _cells(inputs, metric, published, row, metric, compared)
            comparisons += [compared] if compared and not row.other else []
        rows.append(Row(cells, "published" if row.other else ""))
    return PaperTable(_table(name, published, columns, rows, comparable), tuple(comparisons))


def _table5(inputs: Inputs, published: PublishedTable, comparable: bool) -> PaperTable:
    columns = [
        Column("method", "method", numeric=False),
        Column("published", "paper, test server"),
        Column("ours", "ours"),
        Column("interval", "95%"),
        Column("verdict", "verdict", numeric=False),
    ]
    rows = [
        Row(
            {
                "method": Cell(row.label + (" (published)" if row.other else "")),
                "published": Cell(percent(row.top5) if row.top5 is not None else "–"),
                "verdict": Cell("" if row.other else "not compared: no labels of the test set", "muted"),
            },
            "published" if row.other else "",
        )
        for row in published.rows
    ]
    rows += [_ensemble_row(ensemble, published) for ensemble in inputs.ensembles.values()]
    return PaperTable(_table("table5", published, columns, rows, comparable), ())


def _ensemble_row(ensemble: EnsembleResult, published: PublishedTable) -> Row:
    protocol = next((protocol for protocol in published.protocols if protocol in ensemble.errors), None)
    method = f"ours: {ensemble.name} ({', '.join(names.label(_network(member)) for member in ensemble.members)})"
    if protocol is None:
        state = ensemble.state if ensemble.state != "shown" else "not run"
        return Row({"method": Cell(method), "ours": Cell(state, "muted")}, "absent")
    errors = ensemble.errors[protocol]
    interval = verdict(0.0, [errors.top5_error], errors.n_images).interval
    return Row(
        {
            "method": Cell(f"{method}, {names.protocol_label(protocol)}"),
            "ours": Cell(percent(errors.top5_error), "strong"),
            "interval": Cell(interval_text(interval) if interval else "", "muted"),
            "verdict": Cell(f"of {errors.n_images:,} labelled images", "muted"),
        }
    )


def _network(run: str) -> str:
    return run.rpartition("-s")[0]


def _table(
    name: str, published: PublishedTable, columns: Sequence[Column], rows: Sequence[Row], comparable: bool
) -> Table:
    caption = published.caption
    if not comparable:
        caption += " The paper's figures are of its own data and stand here for orientation: no verdict is given."
    return Table(name, published.title, tuple(columns), tuple(rows), caption)


def _metric_columns(key: str, group: str) -> list[Column]:
    return [
        Column(f"{key}.published", "paper", group),
        Column(f"{key}.ours", "ours", group),
        Column(f"{key}.interval", "interval", group),
        Column(f"{key}.verdict", "verdict", group, numeric=False),
    ]


def _row_head(inputs: Inputs, row: PublishedRow) -> dict[str, Cell]:
    cells = {"method": Cell(f"{row.label} (published)" if row.other else row.label)}
    if row.layers:
        cells["layers"] = Cell(str(row.layers))
    if row.parameters:
        cells["parameters"] = Cell(f"{row.parameters:g}M" + _our_parameters(inputs, row))
    return cells


def _our_parameters(inputs: Inputs, row: PublishedRow) -> str:
    ours = [run.training.parameters for run in _runs(inputs, row) if run.training and run.training.parameters]
    return f" (ours {ours[0] / 1e6:.2f}M)" if ours else ""


def _runs(inputs: Inputs, row: PublishedRow) -> list[RunResult]:
    return inputs.of_network(row.network) if row.network else []


def _errors(inputs: Inputs, published: PublishedTable, row: PublishedRow, metric: Metric) -> tuple[list[float], int]:
    protocol = published.protocols[0]
    found = [run.errors[protocol] for run in _runs(inputs, row) if protocol in run.errors]
    errors = [e.top1_error if metric == "top1_error" else e.top5_error for e in found]
    return errors, found[0].n_images if found else 0


def _compare(
    inputs: Inputs, name: str, published: PublishedTable, row: PublishedRow, metric: Metric, comparable: bool
) -> Comparison | None:
    """The verdict on a row's figure; None where the paper gives none or another's system was not trained here.

    Others' figures are not compared: they come from other recipes and tests than those of this project.
    """
    target = row.comparison(metric)
    errors, n_images = _errors(inputs, published, row, metric)
    if target is None or (row.other and not errors):
        return None
    label = f"{row.label}-{row.layers}" if row.layers else row.label
    judged = verdict(target, errors, n_images, comparable and not row.on_test_set and not row.other)
    return Comparison(name, label, row.network, metric, target, judged)


def _cells(
    inputs: Inputs, key: str, published: PublishedTable, row: PublishedRow, metric: Metric, compared: Comparison | None
) -> dict[str, Cell]:
    cells = {f"{key}.published": Cell(_published_text(row, metric))}
    errors, _ = _errors(inputs, published, row, metric)
    if errors:
        cells[f"{key}.ours"] = Cell(_ours_text(errors), "strong")
    if compared is None:
        return cells
    judged = compared.verdict
    if judged.interval is not None:
        cells[f"{key}.interval"] = Cell(interval_text(judged.interval), "muted")
    cells[f"{key}.verdict"] = Cell(verdict_text(judged), TONES[judged.kind])
    return cells


def _published_text(row: PublishedRow, metric: Metric) -> str:
    error = row.error(metric)
    if error is None:
        return "–"
    text = percent(error) + ("†" if row.on_test_set else "")
    if metric == "top1_error" and row.mean is not None and row.std is not None:
        text += f" ({row.mean:.2f} ± {row.std:.2f})"
    return text


def _ours_text(errors: Sequence[float]) -> str:
    if len(errors) == 1:
        return percent(errors[0])
    seeds = over_seeds(errors)
    return f"{seeds.best:.2f} ({seeds.mean:.2f} ± {seeds.std:.2f})"


def verdict_text(judged: Verdict) -> str:
    """A verdict in words: 'reproduced', '1.20 points higher', 'not run'."""
    if judged.kind in ("higher", "lower") and judged.difference is not None:
        return f"{abs(judged.difference):.2f} points {judged.kind}"
    return judged.kind
