"""Ray Train's controller run in the driver's own process, and without what serves Ray's data sets.

Ray gives the controller a process of its own, which imports torch and all else anew before the workers are started:
seconds of each training, and hundreds of MB. Ray has no public setting for this, so steps of its inside are replaced.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.torch.torch_trainer import TorchTrainer


class DriverTrainer(TorchTrainer):
    """Ray's trainer; the placement group that its workers occupy ends with the driver's job, should it be killed."""

    def _create_default_callbacks(self) -> Any:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, DatasetsCallback)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        controller = _Controller(**settings)
        asyncio.run(controller.run())
        return controller.get_result()


class _Workers(WorkerGroup):
    """Workers whose context has no handle to a controller's actor, which serves to list reported checkpoints alone."""

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
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
