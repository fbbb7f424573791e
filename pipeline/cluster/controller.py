"""Ray Train's controller run in the driver's own process, and without what serves Ray's data sets.

Ray gives a process of its own, which imports torch and all else anew as the workers are started, to the controller, to
a coordinator of requests for nodes, and to a place where workers meet (ours meet in torch's process group): seconds of
each training, and hundreds of MB. Ray has no public setting for this, so steps of its inside are replaced.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerStatus, state, worker_group
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2.torch.torch_trainer import TorchTrainer

from pipeline.cluster.pace import Pace

SECONDS_OF_A_LOOK = 2.0
"""For which workers that have nothing to tell leave the controller's question open."""
SHORTEST = 0.25
"""Seconds between two glances at its training meanwhile, at first."""
SECONDS_TO_ANSWER = 5.0
"""In all; then the controller turns to others, and comes back to the one that has not answered."""


class ProcessGroup(TorchConfig):
    """Torch's process group of all workers; none for one alone, whose threads would wake a hundred times a second."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Of Ray, what sets it up."""
        return _SetUp


class _SetUp(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        if len(worker_group) > 1:
            super().on_start(worker_group, backend_config)


class DriverTrainer(TorchTrainer):
    """Ray's trainer; the placement group that its workers occupy ends with the driver's job, should it be killed."""

    def _create_default_callbacks(self) -> Any:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, DatasetsCallback)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        policy = settings["scaling_policy"]
        if isinstance(policy, FixedScalingPolicy):
            settings["scaling_policy"] = _Placed(policy.scaling_config)
        controller = _Controller(**settings)
        asyncio.run(controller.run())
        return controller.get_result()


class _Answered:
    """A method of an actor that has nothing to do."""

    def remote(self, *values: Any) -> Any:
        """True, as of such a call."""
        return ray.put(True)


class _Nowhere:
    """What stands for Ray's actor at which workers meet, without a process; no worker of ours calls it."""

    set_required_ranks = reset = _Answered()

    @classmethod
    def options(cls, **settings: Any) -> type[_Nowhere]:
        """As an actor's class has it."""
        return cls

    @classmethod
    def remote(cls, **settings: Any) -> _Nowhere:
        """As an actor's class has it."""
        return cls()


worker_group.SynchronizationActor = _Nowhere  # type: ignore[assignment,misc]
state._shutdown_sync_actor = lambda sync_actor: None


class _Placed(FixedScalingPolicy):
    """A number of workers that is asked for by their placement group alone, which Ray's autoscaler heeds too."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing: Ray would start its coordinator of requests."""

    def _maybe_send_resource_request(self) -> None:
        pass


class PatientRayTrainWorker(RayTrainWorker):
    """A worker that tells how its training fares as soon as that is over, or after a while.

    Till then its main thread sleeps. With no question to answer it wakes a hundred times a second to see whether a
    signal has come, and asks each time for Python's lock and for a core that trains. Signals reach it here, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace(SHORTEST)

    def poll_status(self) -> WorkerStatus:
        """Ray's answer."""
        latest = time.monotonic() + SECONDS_OF_A_LOOK
        while (status := super().poll_status()).running and not (status.error or status.training_report):
            if (left := latest - time.monotonic()) <= 0:
                break
            time.sleep(min(self._pace.seconds(), left))
        return status


class _Workers(WorkerGroup):
    """Workers whose context has no handle to a controller's actor, which serves to list reported checkpoints alone.

    Nor one to the actor at which they would meet.
    """

    _worker_cls = PatientRayTrainWorker

    def poll_status(self, timeout: float | None = None) -> Any:
        """As Ray has it, with time enough for all to answer; one that dies answers by that."""
        return super().poll_status(SECONDS_TO_ANSWER)

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=None,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[number] for name, values in train_context_args.items()},
            )
            for number, worker in enumerate(workers)
        ]
        ray.get(begun)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    worker_group_cls = _Workers
