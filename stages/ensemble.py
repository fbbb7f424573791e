"""Ensemble: the errors of averaged probabilities, from saved predictions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pipeline import paths, stage
from pipeline.evaluation.ensembles import average, halves, leave_one_out, only, search_members
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.schema import EnsembleSearch
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.evaluations import log_ensemble
from pipeline.tracking.store import answered, initialise


def run(at: stage.Stage) -> None:
    """Average each ensemble, declared or searched, by every protocol, and write its errors, a file an ensemble."""
    with atomic_directory(paths.ensembles_dir(at.experiment)) as folder:
        for name, members in at.params.ensembles.items():
            measured = {"members": members, **_measure(at, members)}
            write_json(folder / f"{name}.json", measured)
            run_ids = {member: _summary(at, member)["mlflow_run_id"] for member in members}
            _track(at, name, run_ids, measured)
        for name, search in at.params.ensemble_searches.items():
            write_json(folder / f"{name}.json", _searched(at, search))


def _searched(at: stage.Stage, search: EnsembleSearch) -> dict[str, Any]:
    """Choose members on images that do not report, then measure them on those that do."""
    candidates = search.candidates or list(at.params.runs)
    first = next(iter(at.params.evaluation.protocols.chosen()))
    found = _load(at, candidates, "holdout" if search.select_on == "holdout" else first)
    reporting = None
    if search.select_on == "half":
        selecting, reporting = halves(len(found[candidates[0]].ids), search.seed)
        found = {name: only(each, selecting) for name, each in found.items()}
    members, path = search_members(found, search.search, search.most)
    record = {
        **search.model_dump(mode="json"),
        "candidates": candidates,
        "protocol": first,
        "n_selecting": path[-1]["n_images"],
        "selecting_top1_error": [each["top1_error"] for each in path],
    }
    return {"members": members, "search": record, **_measure(at, members, reporting)}


def _measure(at: stage.Stage, members: list[str], reporting: np.ndarray | None = None) -> dict[str, Any]:
    """Errors by protocol, of the images at `reporting` where not of all, and without each member in turn."""
    measured: dict[str, Any] = {}
    for protocol in at.params.evaluation.protocols.chosen():
        found = _load(at, members, protocol)
        if reporting is not None:
            found = {name: only(each, reporting) for name, each in found.items()}
        mean = average(found)
        measured[protocol] = errors(mean.probabilities, mean.labels)
        if len(members) > 2:
            measured["leave_one_out"] = {**measured.get("leave_one_out", {}), protocol: leave_one_out(found)}
    return measured


def _load(at: stage.Stage, runs: list[str], name: str) -> dict[str, Predictions]:
    return {run: Predictions.load(paths.predictions_dir(at.experiment, run) / f"{name}.npz") for run in runs}


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
