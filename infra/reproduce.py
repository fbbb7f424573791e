"""Reproduce an experiment: check the parameters, run `dvc repro`, show what came out."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pipeline.cluster import session
from pipeline.config import check_networks, load_params
from pipeline.report import print_summary
from pipeline.schema import Cluster

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run `dvc repro` with `arguments`; its exit code, or 2 when the parameters are refused."""
    try:
        params = load_params()
        check_networks(params)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    _end_with_parent()
    signal.signal(signal.SIGTERM, _end_children)
    try:
        _wait_for_others()
        code = _repro(params.cluster, arguments)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on", file=sys.stderr)
        return 130
    if code == 0 and not arguments:
        print_summary(params.experiment, where={"MLflow": "make ui", "curves": "make plots"})
    return code


def _repro(cluster: Cluster, arguments: list[str]) -> int:
    """`dvc repro`, its stages on one Ray that lives as long as it does; none is started when nothing is to be done."""
    dvc = [sys.executable, "-m", "dvc"]
    if subprocess.run([*dvc, "status", "--quiet"], check=False).returncode == 0 and not arguments:
        return subprocess.run([*dvc, "repro"], check=False).returncode
    with session(cluster) as address:
        environment = {**os.environ, "RAY_ADDRESS": address}
        return subprocess.run([*dvc, "repro", *arguments], env=environment, check=False).returncode


def _wait_for_others() -> None:
    """Wait for a `dvc repro` that a killed launcher left at work in this clone."""
    told: set[int] = set()
    while others := _others():
        for pid in others - told:
            print(f"`dvc repro` (process {pid}) is at work in this clone; waiting for it to end", flush=True)
        told |= others
        time.sleep(1)


def _others() -> set[int]:
    here, found = Path.cwd(), set()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        is_repro = "repro" in words and any(Path(word).name == "dvc" for word in words)
        if is_repro and process.info["cwd"] == str(here):
            found.add(process.pid)
    return found


def _end_with_parent() -> None:
    """Be told to end when `make` is killed; on Linux alone, elsewhere the next start waits for what is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_children(signum: int, frame: object) -> None:
    for child in psutil.Process().children(recursive=True):
        child.terminate()
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
