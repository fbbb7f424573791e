"""Training with Ray Train: the plain loop on its workers, checkpoints and curves on their way back."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from pipeline.cluster.capacity import require_room
from pipeline.cluster.checkpoints import checkpoint_name, storage_path
from pipeline.cluster.mailbox import Rows, leave, mailbox
from pipeline.cluster.progress import Progress
from pipeline.cluster.spread import threads_of
from pipeline.memory import reuse_freed_memory
from pipeline.schema import Cluster
from pipeline.training.checkpoints import DamagedCheckpointError
from pipeline.training.distributed import world
from pipeline.training.session import RunSpec, Session

MODEL = "model"


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs besides the run: nothing here changes a result."""

    checkpoint_every: int
    progress_seconds: float
    loader_processes: int
    threads: int


@contextlib.contextmanager
def train(spec: RunSpec, cluster: Cluster, on_checkpoint: Callable[[Rows], None]) -> Iterator[Path]:
    """Train `spec` from its latest checkpoint, if any; the finished model's folder, which lasts as long as the block.

    `on_checkpoint` is given the whole curve so far, once a checkpoint that holds it is kept: no point is handed on and
    then trained again. ValueError for more workers than the cluster could hold; RuntimeError when training fails.
    """
    with mailbox(on_checkpoint) as folder:
        result = _fit(_trainer(spec, cluster, folder))
    if result.error is not None:
        raise RuntimeError(f"{spec.run}: training failed: {result.error}") from result.error
    with result.checkpoint.as_directory() as kept:
        yield Path(kept) / MODEL


def _trainer(spec: RunSpec, cluster: Cluster, curve_folder: str) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    settings = _worker_settings(cluster)
    gpus = {"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {}
    each = {"CPU": settings.threads, **gpus}
    require_room(cluster.workers, each)
    return TorchTrainer(
        _train_on_worker,
        train_loop_config={"spec": spec, "settings": settings},
        scaling_config=ScalingConfig(num_workers=cluster.workers, use_gpu=bool(gpus), resources_per_worker=each),
        run_config=RunConfig(
            name=checkpoint_name(spec),
            storage_path=storage_path(cluster),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=cluster.checkpoints_kept),
            callbacks=[_curve_callback(curve_folder)],
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # the stub is of Tune's RunConfig
        ),
    )


def _worker_settings(cluster: Cluster) -> WorkerSettings:
    return WorkerSettings(
        checkpoint_every=cluster.checkpoint_every,
        progress_seconds=cluster.progress_seconds,
        loader_processes=cluster.loader_processes,
        threads=threads_of(cluster),
    )


def _fit(trainer: Any) -> Any:
    """The result of `trainer.fit()`, run beside the main thread, whose signals so stay our own: Ctrl-C ends at once."""
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    if "error" in outcome:
        raise RuntimeError(f"training failed: {outcome['error']}") from outcome["error"]
    return outcome["result"]


def _curve_callback(folder: str) -> Any:
    from ray.train import UserCallback

    class CurveCallback(UserCallback):
        """Leaves the curve in the driver's mailbox; it runs in Ray's controller process, on the driver's machine."""

        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            leave(folder, metrics[0]["curve"])

    return CurveCallback()


def _train_on_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker."""
    import ray.train
    from ray.train.torch import get_device

    _set_logging()
    reuse_freed_memory()
    spec, settings = config["spec"], config["settings"]
    torch.set_num_threads(settings.threads)
    session = Session(spec, device=get_device(), loader_processes=settings.loader_processes)
    kept = ray.train.get_checkpoint()
    if kept is not None:
        _restore(session, kept)
    _advance(session, settings)


def _restore(session: Session, kept: Any) -> None:
    """Continue from the newest sound checkpoint, `kept` or one before it; from nothing where all are damaged.

    Each worker decides for itself: all read the same bytes.
    """
    tell = logging.getLogger(__name__).warning if world()[0] == 0 else logging.getLogger(__name__).debug
    for checkpoint in _up_to(kept):
        try:
            with checkpoint.as_directory() as folder:
                session.restore(Path(folder))
            return
        except (DamagedCheckpointError, FileNotFoundError) as error:
            tell("%s: checkpoint passed over, as it is damaged: %s", session.spec.run, error)
    tell("%s: no sound checkpoint is left; training begins anew", session.spec.run)


def _up_to(kept: Any) -> list[Any]:
    """Ray's checkpoint `kept` and those before it, newest first; their names hold the time."""
    import ray.train
    from pyarrow.fs import FileSelector, FileType

    path = PurePosixPath(kept.path)
    found = kept.filesystem.get_file_info(FileSelector(str(path.parent)))
    names = {info.base_name for info in found if info.type == FileType.Directory} | {path.name}
    mine = sorted(name for name in names if name.startswith("checkpoint_") and name <= path.name)
    return [ray.train.Checkpoint(str(path.parent / name), kept.filesystem) for name in reversed(mine)]


def _set_logging() -> None:
    """Our warnings are shown; not every report, curve and all, whose logger Ray Train's own setting doesn't reach."""
    from ray.train.v2._internal.execution import context

    logging.getLogger("pipeline").setLevel(logging.WARNING)
    logging.getLogger(context.__file__).setLevel(logging.WARNING)


def _advance(session: Session, settings: WorkerSettings) -> None:
    trainer, recipe = session.trainer, session.spec.training
    progress = Progress(session.spec.run, recipe, settings.progress_seconds)
    for done in trainer.advance(recipe.iterations):
        progress.show(trainer)
        if done % settings.checkpoint_every == 0 and done < recipe.iterations:
            _report(session, finished=False)
    trainer.finish()
    _report(session, finished=True)


def _report(session: Session, finished: bool) -> None:
    """Keep a checkpoint, with the model once finished, and tell of the curve; all workers call it."""
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    metrics = {"curve": [asdict(point) for point in session.trainer.curve]}
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as name:
        folder = Path(name)
        session.checkpoint(folder)
        if rank:
            ray.train.report(metrics, checkpoint=None)
            return
        if finished:
            (folder / MODEL).mkdir()
            session.save_model(folder / MODEL)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
