"""Whether the cluster could ever hold the workers that are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping


def require_room(workers: int, each: Mapping[str, float], patience: float | None) -> None:
    """Refuse, after `patience` seconds, workers that the cluster's nodes could not hold even if they were idle.

    `each` are the resources of one worker. ValueError names what is asked for and what there is. With None nothing is
    refused: a cluster that adds nodes by itself adds them for work that waits, which there is only after this.
    """
    if patience is None:
        return
    deadline = time.monotonic() + patience
    while places(living_nodes(), each) < workers:
        if time.monotonic() >= deadline:
            raise ValueError(_refusal(workers, each, living_nodes()))
        time.sleep(min(1.0, patience))


def living_nodes() -> list[dict[str, float]]:
    """The resources of the nodes that live, in use or not."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def places(nodes: Iterable[Mapping[str, float]], each: Mapping[str, float]) -> int:
    """How many workers of the resources `each` (not all zero) the nodes hold; a worker lies on one node."""
    needed = {name: amount for name, amount in each.items() if amount}
    return sum(int(min((node.get(name, 0.0) + 1e-6) // amount for name, amount in needed.items())) for node in nodes)


def _refusal(workers: int, each: Mapping[str, float], nodes: list[dict[str, float]]) -> str:
    held = "; ".join(listed({name: node.get(name, 0.0) for name in each}) for node in nodes)
    return (
        f"cluster.workers: {workers} of {listed(each)} each do not fit into the Ray cluster, which has"
        f" {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'} ({held}), room for {places(nodes, each)}: lower"
        " cluster.workers, cluster.cpus_per_worker or cluster.gpus_per_worker, or add nodes (where the cluster adds"
        " them by itself, set cluster.joining_seconds to null)"
    )


def listed(resources: Mapping[str, float]) -> str:
    """The resources in words: '8 CPU, 1 GPU'."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
