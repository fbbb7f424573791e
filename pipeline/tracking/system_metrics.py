"""The load of the machine that a run is driven from: processors, memory, disk, network, GPUs; sampled by a thread."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

PREFIX = "system/"
"""By which MLflow's pages know them."""
EVERY = 10.0
"""Seconds between samples."""
_log = logging.getLogger(__name__)
_SWITCH, _INTERVAL = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"


class SystemMetrics:
    """Hands on a sample, {"system/cpu_utilization_percentage": 93.1, …}, every so many seconds until stopped.

    MLflow's variables hold: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false takes none,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL changes the seconds, where it is a number of them.
    """

    def __init__(self, hand_on: Callable[[dict[str, float]], None], every: float | None = None) -> None:
        self._hand_on = hand_on
        self._every = every or _interval()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system metrics", daemon=True)
        if os.environ.get(_SWITCH, "true").lower() not in ("false", "0"):
            self._thread.start()

    def stop(self) -> None:
        """Take no further samples."""
        self._stopped.set()

    def _work(self) -> None:
        monitors = _monitors()
        while not self._stopped.wait(self._every):
            self._hand_on(
                {f"{PREFIX}{name}": value for monitor in monitors for name, value in _sample(monitor).items()}
            )


def _interval() -> float:
    try:
        seconds = float(os.environ.get(_INTERVAL) or EVERY)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds
    _log.warning("%s=%s is no number of seconds; %g is taken", _INTERVAL, os.environ[_INTERVAL], EVERY)
    return EVERY


def _monitors() -> list[BaseMetricsMonitor]:
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # without nvidia-ml-py, or without a card, in several ways
        monitors.append(GPUMonitor())
    return monitors


def _sample(monitor: BaseMetricsMonitor) -> dict[str, float]:
    try:
        monitor.collect_metrics()
        return {name: float(value) for name, value in monitor.aggregate_metrics().items()}
    except Exception:  # a card that drops off the bus is not the training's concern
        return {}
    finally:
        monitor.clear_metrics()
