"""Errors of trained networks and of ensembles, on their MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import RunTag

from pipeline.provenance import digest_of
from pipeline.tracking import store
from pipeline.tracking.finding import find_run, living_run
from pipeline.tracking.names import as_tags, evaluation_metrics, source_tags
from pipeline.tracking.runs import log_figures

Metrics = Mapping[str, Mapping[str, float]]


def log_evaluation(
    experiment: str,
    run: str,
    run_id: str | None,
    metrics: Metrics,
    *,
    iterations: int,
    split: str = "test",
    identity: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Log errors by protocol on the training's run, at its last iteration; the run's identifier.

    Without `run_id` the run is found by `identity`. Figures that are there already are not logged again.
    ValueError if there is no such run.
    """
    client = store.client()
    run_id = run_id or _training_run(client, experiment, run, identity)
    log_figures(client, run_id, evaluation_metrics(metrics, split), iterations)
    if tags:
        _set_tags(client, run_id, as_tags(tags))
    return run_id


def log_ensemble(
    experiment: str,
    name: str,
    members: Sequence[str],
    member_run_ids: Mapping[str, str | None],
    metrics: Metrics,
    *,
    split: str = "test",
    tags: Mapping[str, Any] | None = None,
) -> str:
    """Log an ensemble's errors on a run of its own that names and links its members; the run's identifier.

    The same members (by run identifier) come to the same run again. ValueError for fewer than two members, and for
    identifiers of runs that this store does not have.
    """
    if len(members) < 2:
        raise ValueError(f"ensemble {name}: {list(members)} is not an ensemble: name at least two runs")
    client, experiment_id = store.client(), store.experiment_id(experiment)
    if lost := [member for member in members if not _is_there(client, member_run_ids.get(member))]:
        raise ValueError(f"ensemble {name}: MLflow at {store.shown_uri()} has no runs of {', '.join(lost)}")
    identity = digest_of([name, [[member, member_run_ids.get(member)] for member in members]])
    described = _ensemble_tags(experiment, experiment_id, name, members, member_run_ids) | as_tags(tags or {})
    figures = evaluation_metrics(metrics, split)
    return log_own_run(client, experiment_id, name, identity, f"ensemble-{name}", described, figures)


def log_own_run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    identity: str,
    title: str,
    tags: Mapping[str, str],
    figures: Mapping[str, float],
) -> str:
    """Log figures on a finished run that is no training's: the one of this name and identity, or a new one; its id."""
    found = find_run(client, experiment_id, name, identity)
    if found is None:
        all_tags = {**tags, "identity": identity, **source_tags()}
        found = client.create_run(experiment_id, tags=all_tags, run_name=title)
    else:
        _set_tags(client, found.info.run_id, tags)
    log_figures(client, found.info.run_id, figures, 0)
    if found.info.status != "FINISHED":
        client.set_terminated(found.info.run_id)
    return str(found.info.run_id)


def run_link(experiment_id: str, run_id: str) -> str:
    """Where the UI shows a run: a full address for a server, else relative to the UI's own."""
    base = store.pages(mlflow.get_tracking_uri())
    return f"{base + '/' if base else ''}#/experiments/{experiment_id}/runs/{run_id}"


def artifact_link(experiment: str, run_id: str, artifact: str) -> str:
    """Where the UI shows a file of a run."""
    return f"{run_link(store.experiment_id(experiment), run_id)}/artifacts/{artifact}"


def _training_run(client: MlflowClient, experiment: str, run: str, identity: str | None) -> str:
    found = find_run(client, store.experiment_id(experiment), run, identity) if identity else None
    if found is None:
        raise ValueError(
            f"{experiment}/{run}: MLflow at {store.shown_uri()} has no run of identity {identity}; "
            "send its history first (pipeline.tracking.runs.send_history)"
        )
    return str(found.info.run_id)


def _is_there(client: MlflowClient, run_id: str | None) -> bool:
    """Whether a run can be linked; none is linked where there is no identifier."""
    return run_id is None or living_run(client, run_id) is not None


def _set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _ensemble_tags(
    experiment: str, experiment_id: str, name: str, members: Sequence[str], run_ids: Mapping[str, str | None]
) -> dict[str, str]:
    lines = [_member_line(experiment_id, member, run_ids.get(member)) for member in members]
    note = f"Ensemble **{name}**: the average of its members' probabilities.\n\n" + "\n".join(lines)
    linked = {f"member.{member}": run_ids.get(member) for member in members}
    return as_tags(
        {"kind": "ensemble", "experiment": experiment, "run": name, "members": ", ".join(members), **linked}
        | {"mlflow.note.content": note}
    )


def _member_line(experiment_id: str, member: str, run_id: str | None) -> str:
    return f"- [{member}]({run_link(experiment_id, run_id)})" if run_id else f"- {member}"
