"""Ensemble: the errors of averaged probabilities, from saved predictions."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import paths, stage
from pipeline.evaluation.ensembles import average, halves, leave_one_out, only, search_members
from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.predictions import Predictions
from pipeline.schema import EnsembleSearch
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.evaluations import log_ensemble
from pipeline.tracking.store import answered, initialise


@dataclass(frozen=True)
class Choice:
    """An ensemble's members."""

    name: str
    members: list[str]
    search: dict[str, Any] | None = None
    """How they were chosen; None for declared ones."""
    reporting: np.ndarray | None = None
    """Positions of the images that report, where not all do."""


def run(at: stage.Stage) -> None:
    """Average each ensemble, declared or searched, by every protocol; write its errors and what is to say of members.

    The errors alone stand in the files that `dvc metrics show` lists. An ensemble is left out, and said to be, where
    one of its runs has not been evaluated, as when an experiment's runs are trained one by one.
    """
    declared = [Choice(name, members) for name, members in at.params.ensembles.items() if _evaluated(at, name, members)]
    searched = (
        _search(at, name, search)
        for name, search in at.params.ensemble_searches.items()
        if _evaluated(at, name, _candidates(at, search))
    )
    ensembles, details = paths.ensembles_dir(at.experiment), paths.members_dir(at.experiment)
    with atomic_directory(ensembles) as folder, atomic_directory(details) as beside:
        for choice in itertools.chain(declared, searched):
            measured, without = _measure(at, choice)
            write_json(folder / f"{choice.name}.json", {"members": choice.members, **measured})
            more = {"members": choice.members, "search": choice.search, "leave_one_out": without}
            write_json(beside / f"{choice.name}.json", more)
            if choice.search is None:
                _track(at, choice.name, _run_ids(at, choice.members), measured)


def _evaluated(at: stage.Stage, name: str, runs: list[str]) -> bool:
    """Whether all these runs have predictions; those that have none are named."""
    missing = [run for run in runs if not paths.predictions_dir(at.experiment, run).exists()]
    if missing:
        print(f"ensemble {name}: left out, as not evaluated here: {', '.join(missing)}", file=sys.stderr)
    return not missing


def _candidates(at: stage.Stage, search: EnsembleSearch) -> list[str]:
    return search.candidates or list(at.params.runs)


def _search(at: stage.Stage, name: str, search: EnsembleSearch) -> Choice:
    """Members chosen on images that do not report."""
    candidates = _candidates(at, search)
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
    return Choice(name, members, record, reporting)


def _measure(at: stage.Stage, choice: Choice) -> tuple[dict[str, Errors], dict[str, dict[str, Errors]]]:
    """Errors by protocol, and those without each member in turn."""
    measured, without = {}, {}
    for protocol in at.params.evaluation.protocols.chosen():
        found = _load(at, choice.members, protocol)
        if choice.reporting is not None:
            found = {name: only(each, choice.reporting) for name, each in found.items()}
        mean = average(found)
        measured[protocol] = errors(mean.probabilities, mean.labels)
        without[protocol] = leave_one_out(found)
    return measured, without


def _load(at: stage.Stage, runs: list[str], name: str) -> dict[str, Predictions]:
    return {run: Predictions.load(paths.predictions_dir(at.experiment, run) / f"{name}.npz") for run in runs}


def _track(at: stage.Stage, name: str, run_ids: dict[str, str | None], measured: dict[str, Errors]) -> None:
    """Log the errors in MLflow; where it is away, the register stage does."""
    if None in run_ids.values():
        return
    split = at.params.evaluation.split
    try:
        initialise()
        with answered():
            log_ensemble(at.experiment, name, list(run_ids), run_ids, measured, split=split)
    except ValueError as error:
        print(f"ensemble {name}: not logged, which the register stage makes up for: {error}", file=sys.stderr)


def _run_ids(at: stage.Stage, members: list[str]) -> dict[str, str | None]:
    """MLflow's identifiers of the members' runs; None where it was away."""
    files = {member: paths.predictions_dir(at.experiment, member) / paths.SUMMARY for member in members}
    return {member: read_json(file)["mlflow_run_id"] for member, file in files.items()}


if __name__ == "__main__":
    stage.main("ensemble", run, of_run=False)
