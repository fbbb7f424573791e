"""Training with Ray Train, as seen from the driver: workers started and waited for, signals handed on to them."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.cluster.capacity import require_room
from pipeline.cluster.checkpoints import CheckpointStore, checkpoint_name, store_of
from pipeline.cluster.letters import ERROR, HEARD, KEPT, SHORTEST, STOP, STOPPED, Letters, Rows, curves_received
from pipeline.cluster.notices import termination_callback
from pipeline.cluster.pace import Pace
from pipeline.cluster.spread import resources, threads_of
from pipeline.cluster.waiting import Waiting, presence
from pipeline.cluster.worker import MODEL, WorkerSettings, train_on_worker
from pipeline.cluster_section import Cluster
from pipeline.memory import environment
from pipeline.storage import Retry
from pipeline.training.session import RunSpec

SECONDS_TO_BE_HEARD = 5.0
"""A training whose workers answer no letter for so long has none at work."""
SECONDS_AFTER_PATIENCE = 600
"""For which workers wait for the first one longer than that has patience with the store of checkpoints."""
SECONDS_OF_A_MOMENT = 1.0
HOW = {130: "interrupted", 143: "told to end (SIGTERM)"}


@contextlib.contextmanager
def train(
    spec: RunSpec, cluster: Cluster, on_checkpoint: Callable[[Rows], None], meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Train `spec` from its latest checkpoint, if any; the finished model's folder, which lasts as long as the block.

    `meanwhile` is called when the workers are being started, which takes seconds, and often from then on; an error of
    it ends the training.

    `on_checkpoint` is given the whole curve so far, once a checkpoint that holds it is kept: no point is handed on and
    then trained again. ValueError for what no new attempt cures, such as workers that cannot share the batch or do not
    fit into the cluster; RuntimeError when training fails otherwise. SIGTERM and Ctrl-C, raised by the stage as
    SystemExit and KeyboardInterrupt, have the workers keep a checkpoint first, and end in SystemExit; a second one ends
    at once.
    """
    counts = cluster.counts(spec.training.batch_size, spec.training.bn_images)
    require_room(counts[0], resources(cluster), cluster.joining_seconds)
    letters = Letters(f"{checkpoint_name(spec)}-{secrets.token_hex(4)}")
    kept_in = store_of(spec, cluster).shared(letters.box)
    with (
        tempfile.TemporaryDirectory(prefix="ray-train-") as folder,
        kept_in,
        letters,
        curves_received(letters, on_checkpoint),
    ):
        waiting = Waiting(spec.run, counts[0], resources(cluster), folder)

        def look() -> None:
            meanwhile()
            waiting.look()

        _fit(spec.run, _trainer(spec, cluster, counts, letters, folder), letters, look)
    store, retry = store_of(spec, cluster), Retry(seconds=cluster.checkpoint_patience_seconds)
    with store.fetched(_last(spec, store, retry), retry) as kept:
        yield kept / MODEL


def _last(spec: RunSpec, store: CheckpointStore, retry: Retry) -> int:
    """The last iteration, whose checkpoint holds the model; RuntimeError where it is gone."""
    if (last := spec.training.iterations) not in store.iterations(retry):
        raise RuntimeError(
            f"{spec.run}: trained to the end, but the checkpoint of iteration {last} is no longer in {store.url}: a"
            " training of the same recipe was at work there, too, or it was removed; run again, one at a time"
        )
    return last


def _trainer(spec: RunSpec, cluster: Cluster, counts: list[int], letters: Letters, folder: str) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig

    from pipeline.cluster.controller import ProcessGroup
    from pipeline.cluster.elastic import ElasticTrainer

    return ElasticTrainer(
        train_on_worker,
        counts=counts,
        letters=letters,
        train_loop_config={"spec": spec, "settings": _worker_settings(spec, cluster, letters)},
        torch_config=ProcessGroup(timeout_s=int(cluster.checkpoint_patience_seconds) + SECONDS_AFTER_PATIENCE),
        scaling_config=_scaling(cluster, counts),
        run_config=RunConfig(
            name=checkpoint_name(spec),
            storage_path=folder,  # what Ray itself keeps; checkpoints are kept by the first worker
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[termination_callback(), presence(folder)],
            worker_runtime_env={"env_vars": environment()},
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # the stub is of Tune's RunConfig
        ),
    )


def _scaling(cluster: Cluster, counts: list[int]) -> Any:
    from ray.train.v2.api.config import ScalingConfig

    return ScalingConfig(
        num_workers=(counts[0], counts[-1]) if len(counts) > 1 else counts[0],
        use_gpu=cluster.gpus_per_worker > 0,
        resources_per_worker=resources(cluster),
        elastic_resize_monitor_interval_s=cluster.resize_seconds,
    )


def _worker_settings(spec: RunSpec, cluster: Cluster, letters: Letters) -> WorkerSettings:
    return WorkerSettings(
        store=store_of(spec, cluster),
        letters=letters,
        checkpoint_every=cluster.checkpoint_every,
        patience=cluster.checkpoint_patience_seconds,
        progress_seconds=cluster.progress_seconds,
        loader_processes=cluster.loader_processes,
        threads=threads_of(cluster),
    )


def _fit(run: str, trainer: Any, letters: Letters, meanwhile: Callable[[], None]) -> None:
    """`trainer.fit()`, run beside the main thread, whose signals so stay our own; `meanwhile` is called often."""
    outcome: dict[str, BaseException] = {}
    over = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            outcome["error"] = error
        finally:
            over.set()

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    if code := _wait(over, letters, meanwhile):
        raise SystemExit(_end(run, code, letters))
    if (incurable := _found(letters, ERROR)) is not None:
        raise ValueError(incurable)
    if "error" in outcome:
        raise RuntimeError(f"{run}: training failed: {outcome['error']}") from outcome["error"]


def _wait(over: threading.Event, letters: Letters, meanwhile: Callable[[], None]) -> int:
    """Wait until it is over; the exit code of a signal that came meanwhile, upon which the workers are told, or 0.

    A second signal ends the wait, unless it is of the same moment, as where a whole group of processes is told; so do
    workers that are not there to hear. An error of `meanwhile` is raised once the workers have ended likewise; a signal
    counts more.
    """
    code, told_at, failure, pace = 0, 0.0, None, Pace(SHORTEST)
    while not over.is_set():
        try:
            if failure is None:
                meanwhile()
            over.wait(pace.seconds())  # no thread.join: in Python 3.11 a signal makes it believe that the thread ended
        except (KeyboardInterrupt, SystemExit) as signalled:
            if code and time.monotonic() - told_at > SECONDS_OF_A_MOMENT:
                raise
            code, told_at = _exit_code(signalled), _tell_to_stop(letters)
        except Exception as error:
            failure, told_at = error, _tell_to_stop(letters)
        if told_at and time.monotonic() - told_at > SECONDS_TO_BE_HEARD and not _found(letters, HEARD):
            break
    if failure is not None and not code:
        raise failure
    return code


def _tell_to_stop(letters: Letters) -> float:
    """Have the workers keep a checkpoint and end; when they were told."""
    with contextlib.suppress(Exception):  # the head may have been told to end as well
        letters.leave(STOP, True)
    return time.monotonic()


def _found(letters: Letters, name: str) -> Any:
    """A letter, now that training ends in any case; None where the head, which keeps them, is away."""
    with contextlib.suppress(Exception):
        return letters.look(name)
    return None


def _exit_code(signalled: BaseException) -> int:
    return int(signalled.code or 1) if isinstance(signalled, SystemExit) else 130


def _end(run: str, code: int, letters: Letters) -> int:
    """Say in one line how far a training that was told to end came; the exit code."""
    stopped, kept = _found(letters, STOPPED), _found(letters, KEPT)
    if stopped is not None:
        where = f"at iteration {stopped:,}, whose checkpoint is kept"
    elif kept is not None:
        where = f"after iteration {kept:,}, whose checkpoint is kept"
    else:
        where = "before its end"
    print(f"{run}: {HOW.get(code, 'ended')} {where}; run again to go on", file=sys.stderr)
    return code
