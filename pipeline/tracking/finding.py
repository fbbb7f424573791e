"""Which of MLflow's runs is a training's: the one that it noted, or the one that its tags say is its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipeline.tracking.names import CURVES, last_iteration
from pipeline.tracking.surroundings import CHECKPOINTS

_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second where it can't be an identifier
UNFINISHED = ("RUNNING", "SCHEDULED", "FAILED", "KILLED")


def to_continue(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], anew: bool, run_id: str | None
) -> Run | None:
    """The run that a training of these tags goes on in; None where it is to have a new one."""
    noted = living_run(client, run_id) if run_id else None
    if noted is not None and _same_training(noted, tags):
        return noted
    statuses, checkpoints = UNFINISHED if anew else None, tags.get(CHECKPOINTS)
    found = find_run(client, experiment_id, tags["run"], tags["identity"], statuses, checkpoints)
    return None if found is not None and anew and last_step(client, found) >= 0 else found


def find_run(
    client: MlflowClient,
    experiment_id: str,
    run: str,
    identity: str,
    statuses: Sequence[str] | None = None,
    checkpoints: str | None = None,
) -> Run | None:
    """The newest run of this name and identity, unfinished ones first, in one of `statuses`; None if there is none.

    Runs whose tag says that their checkpoints lie elsewhere than in `checkpoints` are none of these.
    """
    wanted = f"tags.run = '{run}' and tags.identity = '{identity}'"
    runs = client.search_runs([experiment_id], wanted, order_by=["attributes.start_time DESC"])
    candidates = [found for found in runs if statuses is None or found.info.status in statuses]
    if checkpoints is not None:
        candidates = [each for each in candidates if each.data.tags.get(CHECKPOINTS, checkpoints) == checkpoints]
    unfinished = [found for found in candidates if found.info.status in UNFINISHED]
    return next(iter(unfinished or candidates), None)


def known_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run of an identifier, be it deleted; None where the store has none."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in _UNKNOWN:
            raise
        return None


def living_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run of an identifier; None where the store has none, or it was deleted."""
    found = known_run(client, run_id)
    return found if found is not None and found.info.lifecycle_stage == "active" else None


def last_step(client: MlflowClient, run: Run) -> int:
    """The last iteration of which a run has a point of its curves; -1 where it has none."""
    logged = [name for name in CURVES.values() if name in run.data.metrics]
    steps = [metric.step for name in logged for metric in client.get_metric_history(run.info.run_id, name)]
    return last_iteration(steps)


def _same_training(run: Run, tags: Mapping[str, str]) -> bool:
    return all(run.data.tags.get(key) == tags[key] for key in ("experiment", "run", "identity"))
