"""Our own results: errors by protocol with their intervals, over seeds, and of ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.evaluation.statistics import Interval, error_interval, over_seeds
from pipeline.report import names
from pipeline.report.inputs import EnsembleResult, Inputs, RunResult
from pipeline.report.records import Errors
from pipeline.report.tables import Cell, Column, Row, Table, Tone

TOP5_CLASSES = 20
"""With fewer classes, a label among five says little."""
INTERVALS = "95%: Wilson's interval."
SPLITS = {"val": "validation images", "train": "training images"}
"""Splits that are no test images, in words."""


def percent(value: float) -> str:
    """An error as the paper prints it."""
    return f"{value:.2f}"


def interval_text(interval: Interval) -> str:
    """An interval in percent: '6.48–7.49'."""
    return f"{interval.low:.2f}–{interval.high:.2f}"


def results_tables(inputs: Inputs) -> list[Table]:
    """Every run by protocol; seeds together where a network has several; ways of averaging where there are any."""
    tables = [runs_table(inputs)]
    if any(len(inputs.of_network(run.network)) > 1 for run in inputs.shown):
        tables.append(seeds_table(inputs))
    if any(names.WAYS.keys() & run.errors.keys() for run in inputs.shown):
        tables.append(ways_table(inputs))
    return tables


def runs_table(inputs: Inputs) -> Table:
    """A row a run: size, training error and, by protocol, the error with its interval."""
    columns = (
        Column("run", "run", numeric=False),
        *protocol_columns(inputs),
        Column("training", "training error"),
        Column("parameters", "parameters"),
    )
    rows = tuple(_run_row(inputs, run) for run in inputs.runs.values())
    return Table(
        "runs",
        "Errors of every run",
        columns,
        rows,
        f"Percent of {images_text(inputs)}, of the last iteration's weights; {INTERVALS}"
        " Training error: over the last augmented mini-batches.",
    )


def ways_table(inputs: Inputs) -> Table:
    """A row a run: the error by every way of averaging over scales that was evaluated, the declared one first."""
    found = [way for way in names.WAYS if any(way in run.errors for run in inputs.shown)]
    labels = {"multi_scale": "as declared", **{way: names.WAYS[way] for way in found}}
    columns = [Column("run", "run", numeric=False)]
    for way, label in labels.items():
        columns += [Column(f"{way}.top1", "top-1", label), Column(f"{way}.interval", "95%", label)]
    rows = []
    for run in inputs.shown:
        cells = {"run": Cell(run.name)}
        for way in labels:
            cells |= _error_cells(way, run.errors[way], "") if way in run.errors else {}
        rows.append(Row(cells))
    caption = (
        "The paper averages scores over scales, without saying whether before or after the softmax and whether over"
        " mirror images too. What is declared, and stands elsewhere as multi-scale, is said in docs/DEVIATIONS.md."
        f" Percent of {images_text(inputs)}; {INTERVALS}"
    )
    return Table("multi_scale_ways", "Multi-scale testing, each way of averaging", tuple(columns), tuple(rows), caption)


def seeds_table(inputs: Inputs) -> Table:
    """A row a network and protocol: best with its interval, mean ± std."""
    columns = (
        Column("network", "network", numeric=False),
        Column("protocol", "protocol", numeric=False),
        Column("seeds", "seeds"),
        Column("best", "best"),
        Column("interval", "95% of best"),
        Column("mean", "mean"),
        Column("std", "std"),
    )
    networks = dict.fromkeys(run.network for run in inputs.shown if len(inputs.of_network(run.network)) > 1)
    rows = [
        row for network in networks for protocol in inputs.protocols for row in _seed_rows(inputs, network, protocol)
    ]
    caption = "Top-1 error in percent; std is the sample's (n − 1). The best is the lowest test error: read the mean."
    return Table("seeds", "Over seeds", columns, tuple(rows), caption)


def errors_table(inputs: Inputs) -> Table:
    """Every figure in long form, for programs."""
    keys = (
        "name",
        "kind",
        "protocol",
        "n_images",
        "top1_error",
        "top1_low",
        "top1_high",
        "top5_error",
        "top5_low",
        "top5_high",
    )
    results: list[RunResult | EnsembleResult] = [*inputs.runs.values(), *inputs.ensembles.values()]
    rows = [
        Row({key: Cell(str(value)) for key, value in zip(keys, _long(result, protocol), strict=True)})
        for result in results
        for protocol in sorted(result.errors, key=names.protocol_order)
    ]
    return Table("errors", "All errors", tuple(Column(key, key) for key in keys), tuple(rows))


def _long(result: RunResult | EnsembleResult, protocol: str) -> list[str | int | float]:
    errors = result.errors[protocol]
    top1, top5 = (error_interval(error, errors.n_images) for error in (errors.top1_error, errors.top5_error))
    kind = "run" if isinstance(result, RunResult) else "ensemble"
    first = [round(value, 4) for value in (errors.top1_error, top1.low, top1.high)]
    fifth = [round(value, 4) for value in (errors.top5_error, top5.low, top5.high)]
    return [result.name, kind, protocol, errors.n_images, *first, *fifth]


def protocol_columns(inputs: Inputs) -> list[Column]:
    """Error and interval of each protocol; top-5 too where there are many classes."""
    columns = []
    for protocol in inputs.protocols:
        group = names.protocol_label(protocol)
        columns += [Column(f"{protocol}.top1", "top-1", group), Column(f"{protocol}.interval", "95%", group)]
        if _many_classes(inputs):
            columns.append(Column(f"{protocol}.top5", "top-5", group))
    return columns


def _many_classes(inputs: Inputs) -> bool:
    if inputs.class_names is not None:
        return len(inputs.class_names) >= TOP5_CLASSES
    return any(names.family(run.network) == "imagenet" for run in inputs.shown)


def _run_row(inputs: Inputs, run: RunResult) -> Row:
    cells = {"run": Cell(run.name)}
    if run.training is not None and run.state == "shown":
        training = run.training
        cells["parameters"] = Cell(f"{training.parameters:,}" if training.parameters else "")
        cells["training"] = Cell("" if training.training_error is None else percent(training.training_error))
    return with_errors(inputs, cells, run)


def with_errors(inputs: Inputs, cells: dict[str, Cell], result: RunResult | EnsembleResult) -> Row:
    """A row of `cells` and the errors by protocol, or why there are none."""
    if result.state != "shown":
        absent = {f"{protocol}.top1": Cell(result.state, "muted") for protocol in inputs.protocols}
        return Row({**cells, **absent} if absent else _first_absent(cells, result.state), "absent")
    for protocol in inputs.protocols:
        if protocol in result.errors:
            cells |= _error_cells(protocol, result.errors[protocol], _tone(inputs, result, protocol))
        else:
            cells[f"{protocol}.top1"] = Cell("not run", "muted")
    return Row(cells)


def _first_absent(cells: Mapping[str, Cell], state: str) -> dict[str, Cell]:
    key, cell = next(iter(cells.items()))
    return {**cells, key: Cell(f"{cell.text} ({state})", "muted")}


def _error_cells(protocol: str, errors: Errors, tone: Tone) -> dict[str, Cell]:
    return {
        f"{protocol}.top1": Cell(percent(errors.top1_error), tone),
        f"{protocol}.interval": Cell(interval_text(error_interval(errors.top1_error, errors.n_images)), "muted"),
        f"{protocol}.top5": Cell(percent(errors.top5_error)),
    }


def _tone(inputs: Inputs, result: RunResult | EnsembleResult, protocol: str) -> Tone:
    """The lowest error of a column of runs stands out."""
    if isinstance(result, EnsembleResult):
        return ""
    lowest = min(run.errors[protocol].top1_error for run in inputs.shown if protocol in run.errors)
    return "strong" if result.errors[protocol].top1_error == lowest else ""


def _seed_rows(inputs: Inputs, network: str, protocol: str) -> list[Row]:
    found = [run.errors[protocol] for run in inputs.of_network(network) if protocol in run.errors]
    if len(found) < 2:
        return []
    seeds = over_seeds([errors.top1_error for errors in found])
    cells = {
        "network": names.label(network),
        "protocol": names.protocol_label(protocol),
        "seeds": str(len(found)),
        "best": percent(seeds.best),
        "interval": interval_text(error_interval(seeds.best, found[0].n_images)),
        "mean": percent(seeds.mean),
        "std": percent(seeds.std),
    }
    return [Row({key: Cell(text) for key, text in cells.items()})]


def images_text(inputs: Inputs) -> str:
    """How many test images the runs' errors are of, in words."""
    counts: Sequence[int] = sorted(
        {errors.n_images for run in inputs.shown for key, errors in run.errors.items() if key != names.HOLDOUT}
    )
    words = SPLITS.get(_split(inputs), "test images")
    return f"{' or '.join(f'{count:,}' for count in counts)} {words}" if counts else f"the {words}"


def _split(inputs: Inputs) -> str:
    """The split that errors are of, as the evaluations' records have it."""
    parameters = [run.evaluation.provenance.parameters for run in inputs.shown if run.evaluation]
    return str(parameters[0].get("split")) if parameters else "test"
