"""Ray for the length of a stage: a cluster to join or one started here, and tasks over items."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.cluster import output
from pipeline.cluster.capacity import require_room
from pipeline.cluster.waiting import tell_obstacle
from pipeline.cluster_section import Cluster
from pipeline.storage import StorageError

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05",  # between an answer of workers, which take their time, and a question
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that a signal left behind must not start another Ray
    "RAY_worker_niceness": "0",  # Ray's 15 starves training beside anything else that computes
    # A driver's own figures, which no dashboard shows: gathering them has crashed it (Ray 2.60) by a segmentation
    # fault in OpenTelemetry, whose thread runs even where no figures are collected.
    "RAY_enable_metrics_collection": "0",
    "RAY_enable_open_telemetry": "0",
}
OF_OUR_OWN = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_memory_monitor_refresh_ms": "1000",
    # Figures for a dashboard, of which there is none.
    "RAY_metrics_report_interval_ms": "60000",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    # Nor are tasks' states, and how long Ray's own threads take to come to something, shown anywhere.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_io_context_monitor_probe_interval_ms": "60000",
    "RAY_io_context_event_loop_lag_collection_interval_ms": "60000",
    # What is looked at up to ten times a second for the sake of other nodes and of the object store, here unused.
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "5000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_free_objects_period_milliseconds": "5000",
    "RAY_report_worker_backlog_interval_ms": "5000",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "5000",
}
"""Settings of a Ray that is started here, whose processes take what they need from those that train."""
SECONDS_TO_ANSWER = 5.0
LOGS = "RESNET_RAY_LOGS"
"""The environment's variable that tells child processes where the Ray started here, which they join, keeps its logs."""
TASK = {"CPU": 1.0}
"""What one of the tasks takes of a node, in Ray's names."""


class NoClusterError(ValueError):
    """No Ray cluster is there to be joined; the message says what to set or start."""


def address_of(cluster: Cluster) -> str | None:
    """The Ray cluster to join: RAY_ADDRESS, else `cluster.address`; None where one is started on this machine."""
    return os.environ.get("RAY_ADDRESS") or cluster.address


@contextlib.contextmanager
def session(cluster: Cluster) -> Iterator[str]:
    """Ray for the length of the block: the cluster at RAY_ADDRESS or `cluster.address`, else one started here.

    Gives the cluster's address, with which child processes join it. Ray listens on all interfaces whatever it is told,
    so a cluster started here takes only calls with a token that lives as long as it does. NoClusterError where nothing
    answers at the address.
    """
    address = address_of(cluster)
    for key, value in (SETTINGS if address else SETTINGS | OF_OUR_OWN).items():
        os.environ.setdefault(key, value)
    if not address:
        _require_token()
    else:
        _require_answer(address)
    import ray

    local: dict[str, Any] = {} if address else {"num_cpus": cores(), "include_dashboard": False}
    ours = not address or LOGS in os.environ
    with _root_logger_kept(), _termination_kept(), contextlib.nullcontext() if address else _by_itself():
        try:
            logging_config = ray.LoggingConfig(log_level="ERROR")
            ray.init(address=address or "local", logging_config=logging_config, log_to_driver=not ours, **local)
        except ConnectionError as error:
            raise _no_cluster(address or "local", error) from None
    try:
        with _output_shown(joined=bool(address)) if ours else contextlib.nullcontext():
            yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _output_shown(joined: bool) -> Iterator[None]:
    """Show what this process's workers print; child processes, which may join a Ray started here, do likewise."""
    import ray

    node: Any = ray._private.worker._global_node
    if not joined:
        os.environ[LOGS] = node.get_logs_dir_path()
    try:
        with output.shown(Path(os.environ[LOGS]), job_id()):
            yield
    finally:
        if not joined:
            del os.environ[LOGS]


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """A Ray that is started in the block has no autoscaler, reader of logs or dashboard, nor an agent that serves one.

    Ray starts them even where it includes no dashboard, and has no public setting for this.
    """
    from ray._private import utils
    from ray._private.node import Node

    without: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (Node, "start_monitor", _nothing),
        (Node, "start_log_monitor", _nothing),
        (Node, "start_api_server", _no_dashboard),
        (utils, "get_dashboard_dependency_error", _no_packages_for_it),
    )
    as_it_was = [(owner, name, getattr(owner, name)) for owner, name, _ in without]
    try:
        for owner, name, function in without:
            setattr(owner, name, function)
        yield
    finally:
        for owner, name, function in as_it_was:
            setattr(owner, name, function)


def _nothing(node: Any) -> None:
    pass


def _no_packages_for_it() -> ImportError:
    return ImportError("a dashboard is not wanted")


def _no_dashboard(node: Any, **settings: Any) -> None:
    """Note an address at which nobody listens: Ray's agents, which report to it, look for one each second till then."""
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD

    node.get_gcs_client().internal_kv_put(DASHBOARD_ADDRESS.encode(), b"127.0.0.1:0", True, KV_NAMESPACE_DASHBOARD)


def _require_answer(address: str) -> None:
    """NoClusterError where nothing listens there, which Ray would take the better part of a minute to find out."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: OSError) -> NoClusterError:
    return NoClusterError(
        f"no Ray cluster answers at {address} ({error}); start it, or set RAY_ADDRESS, or cluster.address, to one"
        " that runs, or neither to use this machine alone"
    )


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


@contextlib.contextmanager
def _termination_kept() -> Iterator[None]:
    """Ray takes SIGTERM over from this process, to print a stack and abort it three seconds later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


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


@contextlib.contextmanager
def mapping(cluster: Cluster) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]]:
    """A `map` whose calls are Ray's tasks, for the length of the block; Ray is started with the first of them.

    Its call raises ValueError where no node could hold a task.
    """
    with contextlib.ExitStack() as begun:
        addresses: list[str] = []

        def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            if not addresses:
                addresses.append(begun.enter_context(session(cluster)))
                require_room(1, TASK, cluster.joining_seconds)
                tell_obstacle(1, TASK)
            return map_tasks(function, items)

        yield run


def map_tasks(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`function` of each item, as Ray tasks of one CPU each, in the items' order; the first error is raised."""
    import ray

    task = ray.remote(num_cpus=TASK["CPU"])(function)
    for reference in [task.remote(item) for item in items]:
        yield result_of(reference)


def result_of(reference: Any) -> Any:
    """What a task returned. Errors that name what is at fault are raised as they were, without a trace of Ray's."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError | FileNotFoundError | StorageError):
            raise error.cause from None
        raise
