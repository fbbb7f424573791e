"""Ray for the length of a stage: a cluster to join or one started here, and tasks over items."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.schema import Cluster

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 starves training beside anything else that computes
}


@contextlib.contextmanager
def session(cluster: Cluster) -> Iterator[str]:
    """Ray for the length of the block: the cluster at RAY_ADDRESS or `cluster.address`, else one started here.

    Gives the cluster's address, with which child processes join it. Ray listens on all interfaces whatever it is told,
    so a cluster started here takes only calls with a token that lives as long as it does.
    """
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    if not address:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        _require_token()
    import ray

    local: dict[str, Any] = {} if address else {"num_cpus": cores(), "include_dashboard": False}
    with _root_logger_kept():
        ray.init(address=address or "local", logging_config=ray.LoggingConfig(log_level="ERROR"), **local)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def job_id() -> str:
    """Ray's identifier of this process's job, within a session."""
    import ray

    return str(ray.get_runtime_context().get_job_id())


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """The logging that Ray sets for its workers it sets for this process too, whose warnings would be lost."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def _require_token() -> None:
    """Have Ray ask for a token of this process's own; too late once ray is imported, which then keeps its mode."""
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def cores() -> int:
    """CPUs that this process may use: RESNET_CORES, a launcher's share for each of several stages, or what there is."""
    if share := os.environ.get("RESNET_CORES"):
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_tasks(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`function` of each item, as Ray tasks of one CPU each, in the items' order; the first error is raised."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    for reference in [task.remote(item) for item in items]:
        yield ray.get(reference)
