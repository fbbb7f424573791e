"""MLflow's runs brought up to what the stages saved: all that it missed while it was away, once."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.paths import HISTORY, RECORD
from pipeline.provenance import digest_of
from pipeline.storage import read_json
from pipeline.tracking import store
from pipeline.tracking.attachments import attach
from pipeline.tracking.evaluations import Metrics, log_evaluation, log_own_run, run_link
from pipeline.tracking.names import as_tags, evaluation_metrics, provenance_tags
from pipeline.tracking.runs import send_history
from pipeline.tracking.surroundings import Surroundings

REPORT = "report"
_ERRORS = ("top1_error", "top5_error")


def send_results(
    experiment: str, run: str, folder: Path, metrics: Metrics, data: tuple[str, str], *, split: str, limit: float = 60.0
) -> str:
    """Log a model folder's training and its errors by protocol on the training's run; the run's identifier.

    The run is the one that the training noted, else found by its identity, or made. Nothing is logged twice. `data` is
    the manifest's digest and where the images came from. ValueError where MLflow cannot be reached within `limit`
    seconds, or refuses.
    """
    record = read_json(folder / RECORD)
    provenance = record["provenance"]
    with store.answered():
        run_id = send_history(
            experiment,
            run,
            record["identity"],
            provenance["parameters"],
            provenance_tags(provenance),
            read_history(folder),
            dataset=(experiment, *data),
            provenance=provenance,
            surroundings=Surroundings.load(folder),
            run_id=record.get("mlflow_run_id"),
            limit=limit,
        )
        if run_id is None:
            raise ValueError(f"MLflow at {store.shown_uri()}: did not take all of {run} within {limit:.0f} s")
        return log_evaluation(experiment, run, run_id, metrics, iterations=record["iterations"], split=split)


def read_history(folder: Path) -> list[dict[str, str]]:
    """The rows of a model folder's curves, as text."""
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def send_report(
    experiment: str, metrics: Mapping[str, Any], run_ids: Mapping[str, str], files: Mapping[str, bytes], *, split: str
) -> str:
    """Log a report on a run of its own that links the runs it is about; the run's identifier.

    `metrics` is the report's metrics.json; `run_ids` are MLflow's identifiers by run and ensemble; `files` are the
    report's by path. The same figures of the same runs come to the same run again.
    """
    client, experiment_id = store.client(), store.experiment_id(experiment)
    measured = {kind: metrics.get(kind, {}) for kind in ("runs", "ensembles")}
    identity = digest_of([measured, dict(run_ids)])
    links = [f"- [{name}]({run_link(experiment_id, run_id)})" for name, run_id in run_ids.items()]
    note = f"The report of **{experiment}**: its pages are among the artifacts.\n\n" + "\n".join(links)
    members = {f"member.{name}": run_id for name, run_id in run_ids.items()}
    tags = as_tags({"kind": REPORT, "experiment": experiment, "run": REPORT, "mlflow.note.content": note, **members})
    figures = _best_figures(measured, split)
    run_id = log_own_run(client, experiment_id, REPORT, identity, f"{REPORT}-{experiment}", tags, figures)
    attach(run_id, files)
    return run_id


def _best_figures(measured: Mapping[str, Mapping[str, Any]], split: str) -> dict[str, float]:
    """The lowest error of any run or ensemble, by protocol: test/ten_crop/top1_error …, and how many there are."""
    lowest: dict[str, float] = {}
    for entry in [entry for kind in measured.values() for entry in kind.values()]:
        errors = {name: f for name, f in entry.items() if isinstance(f, Mapping) and "top1_error" in f}
        plain = {name: {key: f[key] for key in f if key in _ERRORS} for name, f in errors.items()}
        for name, value in evaluation_metrics(plain, split).items():
            lowest[name] = min(value, lowest.get(name, value))
    return {**lowest, "n_runs": len(measured["runs"]), "n_ensembles": len(measured["ensembles"])}
