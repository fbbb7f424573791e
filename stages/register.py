"""Register: each trained network and each ensemble, in the MLflow model registry; and commands about what is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import paths, stage
from pipeline.config import split_run
from pipeline.data.store import Store
from pipeline.models.saved import WEIGHTS
from pipeline.report import Standing, ensemble_standing, standings
from pipeline.storage import read_json, sha256_file, write_json
from pipeline.tracking import commands
from pipeline.tracking.aliases import REPORT_TAG
from pipeline.tracking.attachments import attach, error_plot
from pipeline.tracking.description import About
from pipeline.tracking.evaluations import artifact_link, log_ensemble
from pipeline.tracking.registry import (
    Registered,
    ensemble_model_name,
    network_model_name,
    records,
    register_model,
    settle_models,
)
from pipeline.tracking.results import read_history, send_report, send_results
from pipeline.tracking.store import answered, initialise
from pipeline.tracking.surroundings import locked_output

METRICS, PAGE = "metrics.json", "report.html"
DEVIATIONS = Path("docs/DEVIATIONS.md")
NO_FIGURE = "The paper has no figure for this model on these data."


def run(at: stage.Stage) -> None:
    """Bring MLflow up to the results, and register the models; what is there already stays as it is.

    Runs that were not trained and evaluated here, as when an experiment's are trained one by one, are left out with
    their ensembles, and named.
    """
    at = of_what_is_there(at)
    initialise()
    with answered():
        run_ids = {run: _send(at, run) for run in at.params.runs}
        run_ids |= {name: _send_ensemble(at, name, run_ids) for name in at.params.ensembles}
        links = _links(at, _send_report(at, run_ids))
        found = records(settle_models(list(_register(at, run_ids, links))))
    write_json(paths.registry_record(at.experiment), found)
    for name, entry in found.items():
        print(f"{name}  version {entry['version']}  {' '.join('@' + alias for alias in entry['aliases'])}")


def of_what_is_there(at: stage.Stage) -> stage.Stage:
    """The stage with the runs of which there are weights and errors, and their ensembles; ValueError where none is."""
    params = at.params
    runs = {run: settings for run, settings in params.runs.items() if _is_there(at, run)}
    ensembles = {
        name: members
        for name, members in params.ensembles.items()
        if runs.keys() >= set(members) and (paths.ensembles_dir(at.experiment) / f"{name}.json").is_file()
    }
    left = [name for name in (*params.runs, *params.ensembles) if name not in runs and name not in ensembles]
    if not runs:
        raise ValueError(f"{at.experiment}: no run was trained and evaluated here; run `dvc repro`, or `dvc pull`")
    if left:
        print(f"register: left out, as not trained and evaluated here: {', '.join(left)}", file=sys.stderr)
    return replace(at, params=params.model_copy(update={"runs": runs, "ensembles": ensembles}))


def _is_there(at: stage.Stage, run: str) -> bool:
    weights = paths.model_dir(at.experiment, run) / WEIGHTS
    return weights.is_file() and (paths.predictions_dir(at.experiment, run) / paths.SUMMARY).is_file()


def _send(at: stage.Stage, run: str) -> str:
    """A run's training and errors, with its card and curves; MLflow's identifier."""
    folder, data = paths.model_dir(at.experiment, run), at.params.data
    origin = (_store(at).digest, data.url or data.source)
    metrics = read_json(paths.predictions_dir(at.experiment, run) / paths.SUMMARY)["metrics"]
    run_id = send_results(at.experiment, run, folder, metrics, origin, split=at.params.evaluation.split)
    plot = error_plot(f"{at.experiment}, {run}", read_history(folder))
    attach(run_id, {"plots/error.png": plot, "model.json": (folder / "model.json").read_bytes()})
    return run_id


def _send_ensemble(at: stage.Stage, name: str, run_ids: dict[str, str]) -> str:
    members = at.params.ensembles[name]
    known = {member: run_ids[member] for member in members}
    return log_ensemble(at.experiment, name, members, known, _errors_of(at, name), split=at.params.evaluation.split)


def _send_report(at: stage.Stage, run_ids: dict[str, str]) -> str | None:
    """The report's pages on a run of its own; None where there is no report."""
    folder = paths.results_dir(at.experiment)
    if not (folder / METRICS).is_file():
        return None
    pages = [PAGE, "report.md", METRICS, "curves.csv"]
    found = {name: folder / name for name in pages} | {f"figures/{p.name}": p for p in folder.glob("figures/*.svg")}
    found |= {DEVIATIONS.name: DEVIATIONS}
    files = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    return send_report(at.experiment, read_json(folder / METRICS), run_ids, files, split=at.params.evaluation.split)


def _links(at: stage.Stage, report: str | None) -> dict[str, str]:
    if report is None:
        return {}
    pages = {"the report": PAGE, "deviations from the paper": DEVIATIONS.name}
    return {words: artifact_link(at.experiment, report, name) for words, name in pages.items()}


def _register(at: stage.Stage, run_ids: dict[str, str], links: dict[str, str]) -> Iterator[Registered]:
    params = at.params
    known = standings(at.experiment, params.runs, params.ensembles, params.report.comparable)
    for run in params.runs:
        yield _network(at, run, run_ids[run], known.get(split_run(run)[0], Standing()), links)
    for name in params.ensembles:
        yield _ensemble(at, name, run_ids[name], links)


def _network(at: stage.Stage, run: str, run_id: str, standing: Standing, links: dict[str, str]) -> Registered:
    folder = paths.model_dir(at.experiment, run)
    record = read_json(folder / paths.RECORD)
    return register_model(
        network_model_name(at.experiment, run),
        at.experiment,
        {run: folder},
        run_id,
        read_json(paths.predictions_dir(at.experiment, run) / paths.SUMMARY)["metrics"],
        at.params.evaluation,
        _about(at, standing, record["provenance"]["parameters"]["training"], links),
        tags={**_tags(at, record), **locked_output(folder), "identity": record["identity"], "seed": record["seed"]},
        example=_example(at),
    )


def _ensemble(at: stage.Stage, name: str, run_id: str, links: dict[str, str]) -> Registered:
    members = at.params.ensembles[name]
    return register_model(
        ensemble_model_name(at.experiment, name),
        at.experiment,
        {member: paths.model_dir(at.experiment, member) for member in members},
        run_id,
        _errors_of(at, name),
        at.params.evaluation,
        _about(at, ensemble_standing(members, at.params.report.comparable), {}, links),
        tags=_tags(at, read_json(paths.model_dir(at.experiment, members[0]) / paths.RECORD)),
        example=_example(at),
    )


def _about(at: stage.Stage, standing: Standing, recipe: dict[str, Any], links: dict[str, str]) -> About:
    report = at.params.report
    return About(
        title=report.dataset,
        data_digest=_store(at).digest,
        recipe=recipe,
        published=standing.published,
        verdict="; ".join(standing.verdicts) or None,
        note=report.note or (None if standing.published else NO_FIGURE),
        links=links,
    )


def _tags(at: stage.Stage, record: dict[str, Any]) -> dict[str, Any]:
    report = paths.results_dir(at.experiment) / METRICS
    commit = record["provenance"]["git_commit"]
    return {
        "git.commit": commit,
        "dvc.rev": commit,
        "data.holdout": at.params.data.holdout.model_dump(mode="json"),
        REPORT_TAG: sha256_file(report) if report.is_file() else None,
    }


def _errors_of(at: stage.Stage, ensemble: str) -> dict[str, Any]:
    measured = read_json(paths.ensembles_dir(at.experiment) / f"{ensemble}.json")
    return {protocol: measured[protocol] for protocol in at.params.evaluation.protocols.chosen()}


def _store(at: stage.Stage) -> Store:
    return Store.open(paths.data_dir(at.experiment))


def _example(at: stage.Stage) -> Any:
    return _store(at).split(at.params.evaluation.split).image(0)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in commands.NAMES:
        raise SystemExit(commands.main(sys.argv[1:]))
    stage.main("register", run, of_run=False)
