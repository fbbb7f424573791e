"""What each of a training's workers does: go on from the newest checkpoint, train, keep checkpoints, heed notices."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from pipeline.cluster.checkpoints import CheckpointStore
from pipeline.cluster.keeper import CheckpointsLostError, Keeper
from pipeline.cluster.letters import CURVE, ERROR, KEPT, READY, STOPPED, Letters, Rows
from pipeline.cluster.notices import Notice, Notices, at_work
from pipeline.cluster.progress import Progress
from pipeline.memory import reuse_freed_memory
from pipeline.storage import Retry
from pipeline.training.checkpoints import DamagedCheckpointError
from pipeline.training.distributed import any_worker, world
from pipeline.training.loop import DivergedError
from pipeline.training.session import RunSpec, Session

MODEL = "model"
STAGED = "staged-checkpoint-"
"""How folders of checkpoints that wait to be kept begin; the process that staged them follows."""
INCURABLE = (ValueError, DivergedError, CheckpointsLostError)
"""Errors that trying again does not cure."""
REASONS = {
    Notice.SAVE: "a node is being taken away",
    Notice.RESIZE: "there is room for another number of workers",
    Notice.LEAVE: "a worker was sent SIGTERM",
}

_log = logging.getLogger(__name__)


class PreemptedError(RuntimeError):
    """A worker was sent SIGTERM; the checkpoint of this iteration is kept."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs besides the run: nothing here changes a result."""

    store: CheckpointStore
    letters: Letters
    checkpoint_every: int
    patience: float
    progress_seconds: float
    loader_processes: int
    threads: int


def train_on_worker(config: dict[str, Any]) -> None:
    """The loop of one Ray Train worker.

    Ray starts the workers again after any error. One that this does not cure is left as a letter for the driver, and
    the workers started again do nothing.
    """
    spec, settings = config["spec"], config["settings"]
    if settings.letters.look(ERROR):
        return
    for name in ("pipeline", "aiobotocore"):  # our warnings are shown; not, at each start, where keys were found
        logging.getLogger(name).setLevel(logging.WARNING)
    reuse_freed_memory()
    torch.set_num_threads(settings.threads)
    try:
        with at_work():
            _train(spec, settings)
    except INCURABLE as error:
        settings.letters.leave(ERROR, str(error))
        raise


def _train(spec: RunSpec, settings: WorkerSettings) -> None:
    from ray.train.torch import get_device

    session = Session(spec, device=get_device(), loader_processes=settings.loader_processes)
    _clear_staged()
    part = _Part(session, settings)
    part.restore()
    if session.trainer.iteration < spec.training.iterations:  # the last one's checkpoint holds the model
        part.advance()


def _clear_staged() -> None:
    """Remove what workers staged on this machine that were killed before it was kept."""
    for folder in Path(tempfile.gettempdir()).glob(f"{STAGED}*-*"):
        process = folder.name.removeprefix(STAGED).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


class _Part:
    """One worker's part in a training; the first worker writes."""

    def __init__(self, session: Session, settings: WorkerSettings) -> None:
        self._session, self._settings = session, settings
        self._trainer, self._run = session.trainer, session.spec.run
        self._notices = Notices(settings.letters, session.device)
        self._keeper: Keeper | None = None
        if world()[0] == 0:
            settings.store.require_shared(settings.letters.box)
            self._keeper = Keeper(self._run, settings.store, settings.patience)
        self._level = logging.WARNING if self._keeper else logging.DEBUG
        self._retry = Retry(seconds=settings.patience, level=self._level)

    def restore(self) -> None:
        """Continue from the newest checkpoint that is sound for all workers; from nothing where there is none."""
        store = self._settings.store
        found = self._from_first(store.iterations(self._retry) if self._keeper else [])
        for iteration in found:
            with contextlib.ExitStack() as stack:
                folder = self._fetch(stack, iteration)
                if not any_worker(folder is None, self._session.device):
                    assert folder is not None
                    self._session.restore(folder)
                    self._tell_curve(iteration, self._curve())
                    return
                if folder is not None:
                    self._warn("checkpoint of iteration %d passed over: not every worker can read it", iteration)
        if found:
            self._warn("no sound checkpoint is left; training begins anew")

    def advance(self) -> None:
        """Train to the end, or until a notice comes."""
        trainer, recipe, settings = self._trainer, self._session.spec.training, self._settings
        progress = Progress(self._run, recipe, settings.progress_seconds)
        for done in trainer.advance(recipe.iterations):
            progress.show(trainer)
            if self._keeper:
                self._keeper.check()
            notice = self._notices.agreed()
            if done == recipe.iterations:
                break
            if notice is not Notice.GO_ON or done % settings.checkpoint_every == 0:
                self._keep()
            if notice is not Notice.GO_ON and self._heed(notice):
                return
        trainer.finish()
        self._keep(finished=True)
        self._flush()

    def _from_first(self, numbers: list[int]) -> list[int]:
        """The first worker's numbers; all call it."""
        box = [numbers]
        if world()[1] > 1:
            dist.broadcast_object_list(box, src=0, device=self._session.device)
        return box[0]

    def _fetch(self, stack: contextlib.ExitStack, iteration: int) -> Path | None:
        """The checkpoint's folder, which lasts as long as `stack`; None where it is damaged."""
        try:
            return stack.enter_context(self._settings.store.fetched(iteration, self._retry))
        except DamagedCheckpointError as error:
            self._warn("checkpoint of iteration %d passed over, as it is damaged: %s", iteration, error)
            return None

    def _heed(self, notice: Notice) -> bool:
        """Whether training ends here; PreemptedError where it is to go on with other workers."""
        self._flush()
        done = self._trainer.iteration
        if notice is Notice.STOP:
            if self._keeper:
                self._settings.letters.leave(STOPPED, done)
            return True
        if notice is Notice.RESIZE and self._keeper:
            self._settings.letters.leave(READY, done)
        what = REASONS[notice]
        self._warn("%s: the checkpoint of iteration %d is kept, and training goes on from it", what, done)
        if notice is Notice.LEAVE:
            logging.getLogger("ray.train.v2._internal.util").setLevel(logging.CRITICAL)  # it would print a stack
            raise PreemptedError(f"{self._run}: {what}; the checkpoint of iteration {done} is kept")
        return False

    def _keep(self, finished: bool = False) -> None:
        """Hand the state over as a checkpoint, with the model once finished; all workers call it.

        DivergedError for weights that are none any more: checkpoints of them would take the sound ones' places.
        """
        if not all(weights.isfinite().all() for weights in self._trainer.network.parameters()):
            raise DivergedError(
                f"the weights are not finite by iteration {self._trainer.iteration}: lower"
                " training.optimizer.learning_rate or set training.warmup"
            )
        if self._keeper is None:
            self._trainer.state()
            return
        folder = Path(tempfile.mkdtemp(prefix=f"{STAGED}{os.getpid()}-"))
        self._session.checkpoint(folder)
        if finished:
            (folder / MODEL).mkdir()
            self._session.save_model(folder / MODEL)
        done = self._trainer.iteration
        self._keeper.keep(folder, done, partial(self._tell_curve, done, self._curve()))

    def _flush(self) -> None:
        """Wait until the first worker's checkpoints are kept."""
        if self._keeper:
            self._keeper.flush()
        any_worker(False, self._session.device)

    def _curve(self) -> Rows:
        return [asdict(point) for point in self._trainer.curve]

    def _tell_curve(self, iteration: int, curve: Rows) -> None:
        if self._keeper:
            self._settings.letters.leave(CURVE, curve)
            self._settings.letters.leave(KEPT, iteration)

    def _warn(self, message: str, *values: object) -> None:
        _log.log(self._level, f"%s: {message}", self._run, *values)
