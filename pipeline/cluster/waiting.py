"""Workers that get no place yet: a line that says what they wait for, now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cluster.capacity import listed, living_nodes, places

FIRST_SECONDS = 5.0
REPEATED_SECONDS = 60.0
RUNNING = "workers-running"
"""In the mailbox's folder while there are workers."""


class Waiting:
    """Prints, a few seconds after `workers` of the resources `each` began to wait, what keeps them from starting."""

    def __init__(self, run: str, workers: int, each: Mapping[str, float], folder: str) -> None:
        self._run, self._workers, self._each = run, workers, each
        self._running = Path(folder) / RUNNING
        self._next: float | None = None

    def look(self) -> None:
        """Print a line if it is time; once in a while while workers wait, as often as one likes to call."""
        now = time.monotonic()
        if self._running.exists():
            self._next = None
        elif self._next is None:
            self._next = now + FIRST_SECONDS
        elif now >= self._next:
            with contextlib.suppress(Exception):  # Ray that does not answer is for the training to tell
                self._tell(now)

    def _tell(self, now: float) -> None:
        if (reason := obstacle(self._workers, self._each)) and not _placed(self._each):
            print(f"{self._run}  {reason}", flush=True)
            self._next = now + REPEATED_SECONDS


def obstacle(workers: int, each: Mapping[str, float]) -> str | None:
    """What the workers wait for: nodes, or those who occupy them; None where there is room."""
    from ray._private.state import available_resources_per_node

    one = workers == 1
    wanted = (
        f"waiting for a worker of {listed(each)}" if one else f"waiting for {workers} workers of {listed(each)} each"
    )
    room = places(living_nodes(), each)
    if room < workers:
        return f"{wanted}; the cluster has room for {room}"
    if places(available_resources_per_node().values(), each) < workers:
        return f"{wanted}; others occupy {'it' if one else 'them'}"
    return None


def _placed(each: Mapping[str, float]) -> bool:
    """Whether workers of this job have their places already, and take their time to start."""
    import ray
    from ray.util import placement_group_table

    job = ray.get_runtime_context().get_job_id()  # with which the ids of its groups end
    return any(
        name.endswith(job) and group["state"] == "CREATED" and all(one == each for one in group["bundles"].values())
        for name, group in placement_group_table().items()
    )


def tell_obstacle(workers: int, each: Mapping[str, float]) -> None:
    """Print what keeps the workers from starting, where it still does after a few seconds."""
    deadline = time.monotonic() + FIRST_SECONDS
    while reason := obstacle(workers, each):
        if time.monotonic() >= deadline:
            print(reason, flush=True)
            return
        time.sleep(0.5)


def presence(folder: str) -> Any:
    """Ray's callback, run by its controller on the driver's machine, that tells when there are workers."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Presence(WorkerGroupCallback):
        """Keeps a file while a group of workers is there."""

        def after_worker_group_start(self, worker_group: Any) -> None:
            (Path(folder) / RUNNING).touch()

        def before_worker_group_shutdown(self, worker_group: Any) -> None:
            (Path(folder) / RUNNING).unlink(missing_ok=True)

    return Presence()
