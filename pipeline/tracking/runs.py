"""One MLflow run a training, continued by whoever resumes it; the training neither waits nor fails for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made when imported
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from pipeline.tracking import store
from pipeline.tracking.attachments import attach
from pipeline.tracking.finding import last_step, to_continue
from pipeline.tracking.names import CURVES, as_tags, curve_metrics, flatten, last_iteration, run_tags
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.secrets import hide
from pipeline.tracking.surroundings import Surroundings, surrounding_tags
from pipeline.tracking.system_metrics import SystemMetrics

_METRICS_A_BATCH = 900
_PARAMETERS_A_BATCH = 100
_SAMPLES_A_BATCH = 6
"""Of the machine's load: a minute's, by default."""
_LONGEST_PARAMETER = 6000
_DIGEST_LENGTH = 36


class TrainingRun:
    """The MLflow run of one training (a run and the identity of what it trains).

    All talk with the server happens on a thread, in order; while the server is away everything is kept, and sent when
    it is back. Errors reach the log, never the caller.
    """

    def __init__(self, name: str, longest_wait: float = 30.0) -> None:
        self._uri = mlflow.get_tracking_uri()
        self._outbox = Outbox(name, longest_wait=longest_wait)
        self._known = threading.Event()
        self._run_id: str | None = None
        self._last = -1
        self._began = _now()
        self._over = False
        self._system: SystemMetrics | None = None
        self._loads: list[Metric] = []
        self._sampled = threading.Lock()

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
        surroundings: Surroundings | None = None,
        run_id: str | None = None,
        longest_wait: float = 30.0,
    ) -> TrainingRun:
        """Continue the run `run_id` where it is there and this training's, else one of this identity, or begin one.

        A run left RUNNING, FAILED or KILLED is continued. A FINISHED one is too, unless `anew` says that training
        really starts again: then a new run begins, as it does where the unfinished one has a curve already. Runs whose
        checkpoints lie elsewhere are another clone's, and left alone. `parameters` is a nested tree, logged flattened
        and as parameters.json; `dataset` is name, digest and where it lies; `provenance` is logged as
        provenance.json, `surroundings` (by default this process's tags alone) as tags and files. Secrets in any of
        them are hidden. `longest_wait` bounds the seconds between two attempts to reach the server.
        """
        self = cls(f"{experiment}/{run}", longest_wait)
        where = surroundings or Surroundings(surrounding_tags())
        all_tags = {**run_tags(experiment, run, identity), **where.tags, **as_tags(hide(dict(tags)))}
        parameters = hide(dict(parameters))
        documents: dict[str, Any] = {"parameters.json": parameters}
        if provenance is not None:
            documents["provenance.json"] = hide(dict(provenance))
        self._outbox.put(lambda: self._start(all_tags, where.tags, anew, run_id))
        self._outbox.put(lambda: _log_parameters(self._client(), self._identifier(), flatten(parameters)))
        if dataset is not None:
            self._outbox.put(lambda: log_dataset(self._client(), self._identifier(), *hide(dataset)))
        for name, content in documents.items():
            self._outbox.put(lambda name=name, content=content: self._log_document(content, name))  # type: ignore[misc]
        if where.files:
            self._outbox.put(lambda: attach(self._identifier(), where.files, self._client()))
        return self

    def log_load(self) -> None:
        """Log the machine's load from now on."""
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
            self._send_loads()
        self._outbox.put(lambda: self._terminate(status))
        return self._outbox.close(limit)

    def _client(self) -> MlflowClient:
        return store.client(self._uri)

    def _start(self, tags: Mapping[str, str], kept: Mapping[str, str], anew: bool, run_id: str | None) -> None:
        client = self._client()
        experiment_id = store.experiment_id(tags["experiment"], self._uri)
        found = to_continue(client, experiment_id, tags, anew, run_id)
        if found is None:
            made = client.create_run(experiment_id, start_time=self._began, tags=dict(tags), run_name=tags["run"])
            self._run_id = made.info.run_id
        else:
            self._run_id, self._began = found.info.run_id, found.info.start_time
            self._last = last_step(client, found)
            self._over = found.info.status == "FINISHED"
            _reopen(client, found, tags, kept)
        self._known.set()

    def _terminate(self, status: str) -> None:
        if not (self._over and status == "FINISHED"):
            self._client().set_terminated(self._identifier(), status)

    def _identifier(self) -> str:
        assert self._run_id is not None, "messages are sent in order, the first of which sets it"
        return self._run_id

    def _log_document(self, content: dict[str, Any], name: str) -> None:
        self._client().log_dict(self._identifier(), content, name)

    def _log_system(self, sample: Mapping[str, float]) -> None:
        """Keep a sample, or send those kept: sending one takes as long, from cores that train, as sending six."""
        now = _now()
        with self._sampled:
            self._loads += [Metric(name, value, now, 0) for name, value in sample.items()]
            full = len(self._loads) >= _SAMPLES_A_BATCH * len(sample)
        if full:
            self._send_loads()

    def _send_loads(self) -> None:
        """Send what samples are kept, their steps the seconds of the run: so they go on rising when it is continued."""
        with self._sampled:
            loads, self._loads = self._loads, []

        def send() -> None:
            steps = [(one.timestamp - self._began) // 1000 for one in loads]
            stamped = [Metric(one.key, one.value, one.timestamp, step) for one, step in zip(loads, steps, strict=True)]
            self._client().log_batch(self._identifier(), metrics=stamped)

        if loads:
            self._outbox.put(send)

    def _send_rows(self, rows: Sequence[tuple[int, Mapping[str, float]]], milliseconds: int) -> None:
        for batch in _batches([row for row in rows if row[0] > self._last]):
            metrics = [
                Metric(name, value, milliseconds, step) for step, named in batch for name, value in named.items()
            ]
            self._client().log_batch(self._identifier(), metrics=metrics)
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
    surroundings: Surroundings | None = None,
    run_id: str | None = None,
    limit: float = 60.0,
) -> str | None:
    """Make sure that a finished training's run is complete, as after an absence of the server; its identifier.

    `run_id` is the one that the training noted, `surroundings` those that it happened in. Sends nothing twice. None if
    the server could not be told everything within `limit` seconds.
    """
    training = TrainingRun.start_or_continue(
        experiment,
        run,
        identity,
        parameters,
        tags,
        dataset=dataset,
        provenance=provenance,
        surroundings=surroundings,
        run_id=run_id,
    )
    training.log_curves(rows)
    return training.run_id if training.finish("FINISHED", limit) else None


def log_dataset(
    client: MlflowClient, run_id: str, name: str, digest: str, source: str, context: str = "training"
) -> None:
    """Note the data of a run; `digest` is the manifest's SHA-256, of which MLflow keeps 36 digits here."""
    described = MetaDataset(_dataset_source(source), name=name, digest=digest[:_DIGEST_LENGTH])  # type: ignore[abstract]
    entity = Dataset(**described.to_dict())
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", context)])])


def _dataset_source(source: str) -> DatasetSource:
    if "://" in source:
        with contextlib.suppress(MlflowException):  # of a kind that MLflow has no loader for, such as hf://
            return resolve_dataset_source(source)
    return LocalArtifactDatasetSource(source)


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


def _reopen(client: MlflowClient, run: Run, tags: Mapping[str, str], kept: Mapping[str, str]) -> None:
    """Set the tags, but for those in `kept`, which stay of the process that began the run."""
    if run.info.status != "FINISHED":
        client.update_run(run.info.run_id, status="RUNNING")
    new = {key: value for key, value in tags.items() if key not in kept or key not in run.data.tags}
    client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in new.items()])


def _batches(rows: Sequence[tuple[int, Mapping[str, float]]]) -> Iterator[list[tuple[int, Mapping[str, float]]]]:
    size = _METRICS_A_BATCH // len(CURVES)
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def _now() -> int:
    return time.time_ns() // 1_000_000
