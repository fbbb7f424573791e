"""A folder in which the real stages run on a small experiment, and the processes of whatever runs there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.images import DATA_VARIABLE
from benchmarks.ours import PRESETS, preset

MARK = "RESNET_BENCHMARK"
"""In the environment of the processes of one benchmark, Ray's among them, whoever started them."""
OF_A_CLUSTER = ("RAY_", "MLFLOW_", "AWS_", "RESNET_")
"""How the names of variables begin that would have a stage use another Ray, S3, MLflow or cache than its own."""
SECONDS_BETWEEN_SAMPLES = 0.5


def local_cluster() -> dict[str, Any]:
    """The preset for one machine."""
    tree = yaml.safe_load((PRESETS.parent / "cluster" / "local.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def write_params(folder: Path, experiment: str, runs: dict[str, Any], changes: dict[str, Any]) -> None:
    """`folder`/params.yaml: a preset with other runs and without ensembles' search, `changes` by section laid over."""
    tree = {**preset(experiment), "cluster": local_cluster(), "runs": runs, "ensemble_searches": {}}
    for section, values in changes.items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) and section != "ensembles" else values
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


@contextmanager
def by_itself() -> Iterator[None]:
    """Without the variables of a cluster, an MLflow or a cache that the shell uses; Python finds the repository."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(OF_A_CLUSTER) and name != DATA_VARIABLE:
            del os.environ[name]
    root = str(PRESETS.parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (root, before.get("PYTHONPATH", "")) if path)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def marked() -> Iterator[dict[str, str]]:
    """An environment for processes in another folder than the repository's, by which they are known."""
    with by_itself():
        os.environ[MARK] = secrets.token_hex(8)
        yield dict(os.environ)


def run_stage(
    folder: Path, environment: dict[str, str], *words: str, watch: Callable[[list[psutil.Process]], None] | None = None
) -> None:
    """`python -m stages.<words>` in `folder`; `watch` is given its processes and Ray's now and then.

    RuntimeError with its output if it fails.
    """
    with open(folder / f"{words[0]}.log", "w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", f"stages.{words[0]}", *words[1:]]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        over = threading.Event()
        while watch is not None and process.poll() is None:
            watch(processes(environment[MARK]))
            over.wait(SECONDS_BETWEEN_SAMPLES)
        if process.wait():
            log.seek(0)
            raise RuntimeError(f"stages.{' '.join(words)} failed:\n{log.read()}")


def processes(mark: str) -> list[psutil.Process]:
    """All processes in whose environment the mark stands, but this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
