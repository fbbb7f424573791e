"""One MLflow run a training, continued by whoever resumes it; the training neither waits nor fails for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made when imported
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag

from pipeline.tracking import store
from pipeline.tracking.names import CURVES, as_tags, curve_metrics, flatten, last_iteration, run_tags, source_tags
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.secrets import hide
from pipeline.tracking.surroundings import git_patch, installed_packages, surrounding_tags
from pipeline.tracking.system_metrics import SystemMetrics

UNFINISHED = ("RUNNING", "SCHEDULED", "FAILED", "KILLED")
_METRICS_A_BATCH = 900
_PARAMETERS_A_BATCH = 100
_LONGEST_PARAMETER = 6000
_DIGEST_LENGTH = 36


class TrainingRun:
    """The MLflow run of one training (a run and the identity of what it trains).

    All talk with the server happens on a thread, in order; while the server is away everything is kept, and sent when
    it is back. Errors reach the log, never the caller.
    """

    def __init__(self, name: str, longest_wait: float = 30.0) -> None:
        self._outbox = Outbox(name, longest_wait=longest_wait)
        self._known = threading.Event()
        self._run_id: str | None = None
        self._last = -1
        self._began = _now()
        self._over = False
        self._system: SystemMetrics | None = None

    @classmethod
    def start_or_continue(
        cls,
        experiment: str,
        run: str,
        identity: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, Any],
        *,
        anew: bool = False,
        dataset: tuple[str, str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        longest_wait: float = 30.0,
    ) -> TrainingRun:
        """Continue the run of this identity, or begin one.

        A run left RUNNING, FAILED or KILLED is continued. A FINISHED one is too, unless `anew` says that training
        really starts again: then a new run begins. `parameters` is a nested tree, logged flattened and as
        parameters.json; `dataset` is name, digest and where it lies; `provenance` is logged as provenance.json.
        Secrets in any of them are hidden. `longest_wait` bounds the seconds between two attempts to reach the server.
        """
        self = cls(f"{experiment}/{run}", longest_wait)
        all_tags = {**run_tags(experiment, run, identity), **surrounding_tags(), **as_tags(hide(dict(tags)))}
        documents = {"parameters.json": hide(dict(parameters))}
        if provenance is not None:
            documents["provenance.json"] = hide(dict(provenance))
        self._outbox.put(lambda: self._start(experiment, run, all_tags, anew))
        self._outbox.put(lambda: _log_parameters(store.client(), self._identifier(), flatten(hide(dict(parameters)))))
        if dataset is not None:
            self._outbox.put(lambda: log_dataset(store.client(), self._identifier(), *hide(dataset)))
        for name, content in documents.items():
            self._outbox.put(lambda name=name, content=content: self._log_document(content, name))  # type: ignore[misc]
        return self

    def log_surroundings(self) -> None:
        """Log what the run happens in: packages.txt, code.patch where the code differs from its commit, and from now
        on the machine's load.
        """
        patch = git_patch()  # now: what is edited later is not what runs
        texts = {"packages.txt": installed_packages(), **({"code.patch": patch} if patch else {})}
        for name, text in texts.items():
            self._outbox.put(lambda name=name, text=text: self._log_text(text, name))  # type: ignore[misc]
        self._system = SystemMetrics(self._log_system)

    @property
    def run_id(self) -> str | None:
        """MLflow's identifier of the run; None until the server has given one."""
        return self._run_id

    def wait_for_run_id(self, limit: float) -> str | None:
        """The identifier once it is known, for which it waits up to `limit` seconds; else None."""
        self._known.wait(limit)
        return self._run_id

    def log_curves(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of history.csv as metrics by iteration, leaving out iterations that the run already has."""
        stamped = [(int(row["iteration"]), curve_metrics(row)) for row in rows]
        milliseconds = _now()
        if stamped:
            self._outbox.put(lambda: self._send_rows(stamped, milliseconds))

    def finish(self, status: str = "FINISHED", limit: float = 30.0) -> bool:
        """End the run as FINISHED, FAILED or KILLED; whether the server has everything within `limit` seconds.

        What could not be sent is in history.csv: `send_history` sends it later.
        """
        if self._system is not None:
            self._system.stop()
        self._outbox.put(lambda: self._terminate(status))
        return self._outbox.close(limit)

    def _start(self, experiment: str, run: str, tags: Mapping[str, str], anew: bool) -> None:
        client = store.client()
        experiment_id = store.experiment_id(experiment)
        found = find_run(client, experiment_id, tags["run"], tags["identity"], UNFINISHED if anew else None)
        if found is None:
            self._run_id = client.create_run(experiment_id, tags=dict(tags), run_name=run).info.run_id
        else:
            self._run_id, self._began = found.info.run_id, found.info.start_time
            self._last = _last_step(client, found)
            self._over = found.info.status == "FINISHED"
            _reopen(client, found, tags)
        self._known.set()

    def _terminate(self, status: str) -> None:
        if not (self._over and status == "FINISHED"):
            store.client().set_terminated(self._identifier(), status)

    def _identifier(self) -> str:
        assert self._run_id is not None, "messages are sent in order, the first of which sets it"
        return self._run_id

    def _log_document(self, content: dict[str, Any], name: str) -> None:
        store.client().log_dict(self._identifier(), content, name)

    def _log_text(self, text: str, name: str) -> None:
        store.client().log_text(self._identifier(), text, name)

    def _log_system(self, sample: Mapping[str, float]) -> None:
        """Send a sample, its step the second of the run: so they go on rising when the run is continued."""
        now = _now()

        def send() -> None:
            step = (now - self._began) // 1000
            metrics = [Metric(name, value, now, step) for name, value in sample.items()]
            store.client().log_batch(self._identifier(), metrics=metrics)

        self._outbox.put(send)

    def _send_rows(self, rows: Sequence[tuple[int, Mapping[str, float]]], milliseconds: int) -> None:
        for batch in _batches([row for row in rows if row[0] > self._last]):
            metrics = [
                Metric(name, value, milliseconds, step) for step, named in batch for name, value in named.items()
            ]
            store.client().log_batch(self._identifier(), metrics=metrics)
            self._last = last_iteration(step for step, _ in batch)


def send_history(
    experiment: str,
    run: str,
    identity: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    dataset: tuple[str, str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    limit: float = 60.0,
) -> str | None:
    """Make sure that a finished training's run is complete, as after an absence of the server; its identifier.

    Sends nothing twice. None if the server could not be told everything within `limit` seconds.
    """
    training = TrainingRun.start_or_continue(
        experiment, run, identity, parameters, tags, dataset=dataset, provenance=provenance
    )
    training.log_curves(rows)
    return training.run_id if training.finish("FINISHED", limit) else None


def find_run(
    client: MlflowClient, experiment_id: str, run: str, identity: str, statuses: Sequence[str] | None = None
) -> Run | None:
    """The newest run of this name and identity, unfinished ones first, in one of `statuses`; None if there is none."""
    wanted = f"tags.run = '{run}' and tags.identity = '{identity}'"
    runs = client.search_runs([experiment_id], wanted, order_by=["attributes.start_time DESC"])
    candidates = [found for found in runs if statuses is None or found.info.status in statuses]
    unfinished = [found for found in candidates if found.info.status in UNFINISHED]
    return next(iter(unfinished or candidates), None)


def log_dataset(
    client: MlflowClient, run_id: str, name: str, digest: str, source: str, context: str = "training"
) -> None:
    """Note the data of a run; `digest` is the manifest's SHA-256, of which MLflow keeps 36 digits here."""
    where = resolve_dataset_source(source) if "://" in source else LocalArtifactDatasetSource(source)
    described = MetaDataset(where, name=name, digest=digest[:_DIGEST_LENGTH])  # type: ignore[abstract]
    entity = Dataset(**described.to_dict())
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])


def log_figures(client: MlflowClient, run_id: str, figures: Mapping[str, float], step: int) -> None:
    """Log metrics by name at one step, without those whose last value is the same already."""
    logged = client.get_run(run_id).data.metrics
    new = [Metric(name, value, _now(), step) for name, value in figures.items() if logged.get(name) != value]
    if new:
        client.log_batch(run_id, metrics=new)


def _log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, str]) -> None:
    """Log what the run hasn't got; MLflow's parameters are for good, so what has changed since becomes a tag."""
    logged = client.get_run(run_id).data.params
    short = {name: _shortened(value) for name, value in parameters.items()}
    new = [Param(name, value) for name, value in short.items() if name not in logged]
    for start in range(0, len(new), _PARAMETERS_A_BATCH):
        client.log_batch(run_id, params=new[start : start + _PARAMETERS_A_BATCH])
    changed = {name: value for name, value in short.items() if logged.get(name, value) != value}
    if changed:
        client.log_batch(
            run_id, tags=[RunTag(key, value) for key, value in as_tags({"parameters.changed": changed}).items()]
        )


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST_PARAMETER else "(long: see parameters.json)"


def _reopen(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    if run.info.status != "FINISHED":
        client.update_run(run.info.run_id, status="RUNNING")
    kept = {*source_tags(), *surrounding_tags()}  # of the process that began it
    new = {key: value for key, value in tags.items() if key not in kept or key not in run.data.tags}
    client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in new.items()])


def _last_step(client: MlflowClient, run: Run) -> int:
    logged = [name for name in CURVES.values() if name in run.data.metrics]
    steps = [metric.step for name in logged for metric in client.get_metric_history(run.info.run_id, name)]
    return last_iteration(steps)


def _batches(rows: Sequence[tuple[int, Mapping[str, float]]]) -> Iterator[list[tuple[int, Mapping[str, float]]]]:
    size = _METRICS_A_BATCH // len(CURVES)
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def _now() -> int:
    return time.time_ns() // 1_000_000
