"""Workers that come and go: Ray Train's elastic scaling, held to numbers that share the mini-batch evenly.

Ray has no public setting for this, so steps of its inside are replaced. Should another release of Ray not take them, a
number of workers that shares unevenly is refused by the training loop: it fails, and no result differs.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import ray
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)
from ray.train.v2.torch.torch_trainer import TorchTrainer

from pipeline.cluster.controller import DriverTrainer
from pipeline.cluster.letters import READY, RESIZE, Letters

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_LOOK = 5.0
SECONDS_FOR_A_CHECKPOINT = 120.0
"""That workers have before they are ended for another number of them."""
START_SECONDS = "20"
"""After which workers that got no place are planned anew: Ray's 60 would keep training from the nodes that are left."""


class EvenScalingPolicy(ElasticScalingPolicy):
    """As many workers as there is room for, rounded down to one of `counts`.

    Workers at work are told by a letter before Ray ends them for another number, and given time to keep a checkpoint.
    """

    def __init__(self, scaling_config: Any, counts: list[int], letters: Letters) -> None:
        super().__init__(scaling_config)
        self._counts, self._letters = counts, letters
        self._announced: _Announced | None = None

    def make_decision_for_running_worker_group(self, *states: Any, **more: Any) -> ScalingDecision:
        """Ray's decision; another number of workers not before a checkpoint has been kept, or after a while."""
        if self._announced is None:
            decision = super().make_decision_for_running_worker_group(*states, **more)
            if isinstance(decision, ResizeDecision):
                self._announced = _Announced(decision, self._letters)
                return NoopDecision()
            return decision
        if not self._announced.is_due():
            return NoopDecision()
        decision, self._announced = self._announced.decision, None
        return decision

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Ray's decision; without one it would ask again at once, and keep a core busy with it."""
        self._announced = None
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return decision

    def _get_reserved_resources(self) -> Any:
        """What nodes have for this training, by the nodes of this moment: Ray looks at them every 20 s.

        Where the coordinator does not answer, training goes on with the workers that it has, as Ray itself has it.
        """
        with contextlib.suppress(Exception):
            looked = self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)
            ray.get(looked, timeout=SECONDS_TO_LOOK)
        return super()._get_reserved_resources()

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        room = super()._count_possible_workers(reserved_resources)
        return max((count for count in self._counts if count <= room), default=0)


class _Announced:
    """A number of workers that those at work have been told of."""

    def __init__(self, decision: ResizeDecision, letters: Letters) -> None:
        self.decision, self._letters = decision, letters
        self._latest = time.monotonic() + SECONDS_FOR_A_CHECKPOINT
        with contextlib.suppress(Exception):  # the head may be away; the time will pass
            letters.leave(READY, None)
            letters.leave(RESIZE, True)

    def is_due(self) -> bool:
        """Whether a checkpoint has been kept for it, or none comes."""
        with contextlib.suppress(Exception):
            if self._letters.look(READY) is not None:
                return True
        return time.monotonic() > self._latest


class ElasticTrainer(DriverTrainer):
    """Ray's trainer, with that policy where it is elastic; `counts` are the numbers of workers it may choose from."""

    def __init__(self, *arguments: Any, counts: list[int], letters: Letters, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._counts, self._letters = counts, letters

    def _create_default_callbacks(self) -> Any:
        """Ray's own, but the one that would free the workers' places should this process be killed.

        Ray frees them anyway. That callback asks whichever Ray it finds on the machine: with two of them it gives up
        with a traceback, and asking the wrong one it takes a living training's places away.
        """
        return [
            one for one in super()._create_default_callbacks() if not isinstance(one, PlacementGroupCleanerCallback)
        ]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if len(self._counts) == 1:
            return super()._initialize_and_run_controller(**settings)
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_SECONDS)
        settings["scaling_policy"] = EvenScalingPolicy(self.scaling_config, self._counts, self._letters)
        return TorchTrainer._initialize_and_run_controller(self, **settings)
