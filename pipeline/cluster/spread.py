"""A function of a shared value and many items, spread over the cluster's workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.cluster.ray_session import cores, session
from pipeline.schema import Cluster

Spread = Callable[[Callable[[Any, Any], Any], Any, Sequence[Any]], Iterator[tuple[Any, Any]]]
"""From a function, the value that all its calls share and the items to pairs of item and result, as they are ready."""


@contextlib.contextmanager
def spreading(cluster: Cluster) -> Iterator[Spread | None]:
    """What spreads work over Ray for the length of the block; None where there is one worker, in this process."""
    if cluster.workers == 1 and not (os.environ.get("RAY_ADDRESS") or cluster.address):
        yield None
        return
    with session(cluster):

        def spread(function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
            return _spread(function, shared, items, cluster)

        yield spread


def threads_of(cluster: Cluster) -> int:
    """CPUs, and threads, of a worker."""
    return cluster.cpus_per_worker or max(1, cores() // cluster.workers)


def _spread(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], cluster: Cluster
) -> Iterator[tuple[Any, Any]]:
    """As many tasks at once as there are workers; one whose process or machine dies is run again."""
    import ray

    kept = ray.put(shared)
    resources = ray.remote(
        max_retries=cluster.max_failures, num_cpus=threads_of(cluster), num_gpus=cluster.gpus_per_worker
    )
    task: Any = resources(function)
    left = iter(items)
    running: dict[Any, Any] = {}
    while True:
        while len(running) < cluster.workers and (item := next(left, None)) is not None:
            running[task.remote(kept, item)] = item
        if not running:
            return
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), ray.get(done)
