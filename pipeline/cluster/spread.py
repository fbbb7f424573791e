"""A function of a shared value and many items, spread over the cluster's workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.cluster.capacity import living_nodes, require_room
from pipeline.cluster.ray_session import address_of, cores, result_of, session
from pipeline.cluster.waiting import tell_obstacle
from pipeline.cluster_section import Cluster

Spread = Callable[[Callable[[Any, Any], Any], Any, Sequence[Any]], Iterator[tuple[Any, Any]]]
"""From a function, the value that all its calls share and the items to pairs of item and result, as they are ready."""

OWN_RAY = "RESNET_OWN_RAY"
"""Set by a launcher that keeps a Ray on this machine for its stages alone, one at a time."""


@contextlib.contextmanager
def spreading(cluster: Cluster) -> Iterator[Spread | None]:
    """What spreads work over Ray for the length of the block; None where there is one worker, in this process.

    One worker on a cluster that others use, too, is a task of Ray's, and waits for its turn there.
    """
    shared = address_of(cluster) and not os.environ.get(OWN_RAY)
    if cluster.most_workers == 1 and not shared:
        yield None
        return
    with session(cluster):

        def spread(function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
            return _spread(function, shared, items, cluster)

        yield spread


def threads_of(cluster: Cluster) -> int:
    """CPUs, and threads, of a worker: where none are set, its part of this machine's, but no more than a node has."""
    return cluster.cpus_per_worker or min(max(1, cores() // cluster.most_workers), _cores_of_largest_node())


def _cores_of_largest_node() -> int:
    """Of the Ray cluster at hand; of this machine where there is none, or none that has cores yet."""
    import ray

    largest = max((node.get("CPU", 0.0) for node in living_nodes()), default=0.0) if ray.is_initialized() else 0.0
    return int(largest) or cores()


def resources(cluster: Cluster) -> dict[str, float]:
    """What one worker takes of a node, in Ray's names."""
    gpus = {"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {}
    return {"CPU": threads_of(cluster), **gpus}


def _spread(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], cluster: Cluster
) -> Iterator[tuple[Any, Any]]:
    """As many tasks at once as there are workers; one whose process or machine dies is run again.

    ValueError when no node could hold a worker.
    """
    import ray

    require_room(1, resources(cluster), cluster.joining_seconds)
    tell_obstacle(1, resources(cluster))
    kept = ray.put(shared)
    remote = ray.remote(
        max_retries=cluster.max_failures, num_cpus=threads_of(cluster), num_gpus=cluster.gpus_per_worker
    )
    task: Any = remote(function)
    left = iter(items)
    running: dict[Any, Any] = {}
    while True:
        while len(running) < cluster.most_workers and (item := next(left, None)) is not None:
            running[task.remote(kept, item)] = item
        if not running:
            return
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), result_of(done)
