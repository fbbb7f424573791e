"""Register: each trained network and each ensemble, in the MLflow model registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import paths, stage
from pipeline.config import split_run
from pipeline.data.store import Store
from pipeline.report import Standing, standings
from pipeline.storage import read_json, write_json
from pipeline.tracking.description import About
from pipeline.tracking.evaluations import log_ensemble
from pipeline.tracking.registry import Registration, ensemble_model_name, network_model_name, register_model
from pipeline.tracking.store import initialise


def run(at: stage.Stage) -> None:
    """Register what was trained and evaluated; weights that are registered already get no second version."""
    initialise()
    params = at.params
    known = standings(at.experiment, params.runs, params.ensembles, params.report.comparable)
    registered = [_network(at, run, known) for run in params.runs]
    registered += [_ensemble(at, name, members) for name, members in params.ensembles.items()]
    write_json(paths.registry_record(at.experiment), {found.name: found.record() for found in registered})
    for found in registered:
        print(f"{found.name}  version {found.version}  {' '.join('@' + alias for alias in found.aliases)}")


def _network(at: stage.Stage, run: str, known: dict[str, Standing]) -> Registration:
    folder = paths.model_dir(at.experiment, run)
    record, summary = read_json(folder / paths.RECORD), _summary(at, run)
    return register_model(
        network_model_name(at.experiment, run),
        at.experiment,
        {run: folder},
        summary["mlflow_run_id"],
        summary["metrics"],
        at.params.evaluation,
        _about(at, known.get(split_run(run)[0], Standing()), record["provenance"]["parameters"]["training"]),
        tags=_tags(at, record),
        example=_example(at),
    )


def _ensemble(at: stage.Stage, name: str, members: list[str]) -> Registration:
    measured = read_json(paths.ensembles_dir(at.experiment) / f"{name}.json")
    errors = {protocol: measured[protocol] for protocol in at.params.evaluation.protocols.chosen()}
    run_ids = {member: _summary(at, member)["mlflow_run_id"] for member in members}
    run_id = log_ensemble(at.experiment, name, members, run_ids, errors, split=at.params.evaluation.split)
    first = read_json(paths.model_dir(at.experiment, members[0]) / paths.RECORD)
    return register_model(
        ensemble_model_name(at.experiment, name, list(at.params.ensembles)),
        at.experiment,
        {member: paths.model_dir(at.experiment, member) for member in members},
        run_id,
        errors,
        at.params.evaluation,
        _about(at, Standing(), {}),
        tags={key: value for key, value in _tags(at, first).items() if key not in ("identity", "seed")},
        example=_example(at),
    )


def _about(at: stage.Stage, standing: Standing, recipe: dict[str, Any]) -> About:
    report = at.params.report
    return About(
        title=report.dataset,
        data_digest=_store(at).digest,
        recipe=recipe,
        published=standing.published,
        verdict="; ".join(standing.verdicts) or None,
        note=report.note,
        links={"report": str(paths.results_dir(at.experiment) / "report.html"), "deviations": "docs/DEVIATIONS.md"},
    )


def _tags(at: stage.Stage, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "identity": record["identity"],
        "seed": record["seed"],
        "git.commit": record["provenance"]["git_commit"],
        "data.holdout": at.params.data.holdout.model_dump(mode="json"),
    }


def _summary(at: stage.Stage, run: str) -> dict[str, Any]:
    path: Path = paths.predictions_dir(at.experiment, run) / paths.SUMMARY
    found: dict[str, Any] = read_json(path)
    if found["mlflow_run_id"] is None:
        raise ValueError(f"{path}: MLflow was away when {run} was evaluated; run its evaluate stage again")
    return found


def _store(at: stage.Stage) -> Store:
    return Store.open(paths.data_dir(at.experiment))


def _example(at: stage.Stage) -> Any:
    return _store(at).split(at.params.evaluation.split).image(0)


if __name__ == "__main__":
    stage.main("register", run, of_run=False)
