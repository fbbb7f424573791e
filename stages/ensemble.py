"""Ensemble: the errors of averaged probabilities, from saved predictions."""

from __future__ import annotations

import sys
from typing import Any

from pipeline import paths, stage
from pipeline.evaluation.ensembles import average, leave_one_out
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.evaluations import log_ensemble
from pipeline.tracking.store import answered, initialise


def run(at: stage.Stage) -> None:
    """Average each declared ensemble by every protocol, and write its errors, a file an ensemble."""
    with atomic_directory(paths.ensembles_dir(at.experiment)) as folder:
        for name, members in at.params.ensembles.items():
            measured = _measure(at, members)
            write_json(folder / f"{name}.json", measured)
            run_ids = {member: _summary(at, member)["mlflow_run_id"] for member in members}
            _track(at, name, run_ids, measured)


def _measure(at: stage.Stage, members: list[str]) -> dict[str, Any]:
    measured: dict[str, Any] = {"members": members}
    for protocol in at.params.evaluation.protocols.chosen():
        found = {m: Predictions.load(paths.predictions_dir(at.experiment, m) / f"{protocol}.npz") for m in members}
        mean = average(found)
        measured[protocol] = errors(mean.probabilities, mean.labels)
        if len(members) > 2:
            measured["leave_one_out"] = {**measured.get("leave_one_out", {}), protocol: leave_one_out(found)}
    return measured


def _track(at: stage.Stage, name: str, run_ids: dict[str, str | None], measured: dict[str, Any]) -> None:
    """Log the errors in MLflow; where it is away, the register stage does."""
    if None in run_ids.values():
        return
    errors_by_protocol = {protocol: measured[protocol] for protocol in at.params.evaluation.protocols.chosen()}
    split = at.params.evaluation.split
    try:
        initialise()
        with answered():
            log_ensemble(at.experiment, name, list(run_ids), run_ids, errors_by_protocol, split=split)
    except ValueError as error:
        print(f"ensemble {name}: not logged, which the register stage makes up for: {error}", file=sys.stderr)


def _summary(at: stage.Stage, member: str) -> dict[str, Any]:
    summary: dict[str, Any] = read_json(paths.predictions_dir(at.experiment, member) / paths.SUMMARY)
    return summary


if __name__ == "__main__":
    stage.main("ensemble", run, of_run=False)
