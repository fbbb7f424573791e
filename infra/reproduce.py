"""Reproduce an experiment: check the parameters, run `dvc repro`, show what came out."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.arguments import at_least_one
from infra.parallel import DVC, plan, run_stages
from pipeline.cluster import OWN_RAY, NoClusterError, address_of, cores, session
from pipeline.cluster_section import Cluster
from pipeline.config import check_networks, load_params
from pipeline.report import print_summary

PR_SET_PDEATHSIG = 1
STAGE_OPTIONS = ("-f", "--force", "--pull", "--allow-missing", "--no-run-cache", "--no-commit")


def main(arguments: list[str]) -> int:
    """Run `dvc repro` with `arguments`; its exit code, or 2 when the parameters, or the cluster's address, are refused.

    `-j N` runs up to N stages at once, each by a `dvc repro -s` of its own; a failure holds up only what depends on it.
    """
    choices, rest = _parse(arguments)
    try:
        params = load_params()
        check_networks(params)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    _end_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _wait_for_others()
        code = (
            _repro(params.cluster, rest) if choices.jobs == 1 else _repro_parallel(params.cluster, choices.jobs, rest)
        )
    except NoClusterError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on", file=sys.stderr)
        return 130
    if code == 0 and not rest:
        print_summary(params.experiment, where={"MLflow": "make ui", "curves": "make plots"})
    return code


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m infra.reproduce", allow_abbrev=False, epilog=main.__doc__)
    parser.add_argument("-j", "--jobs", type=at_least_one, default=1, metavar="N", help="stages at once")
    return parser.parse_known_args(arguments)


def _repro(cluster: Cluster, arguments: list[str]) -> int:
    """`dvc repro`, its stages on one Ray that lives as long as it does; none is started when nothing is to be done."""
    if subprocess.run([*DVC, "status", "--quiet"], check=False).returncode == 0 and not arguments:
        return subprocess.run([*DVC, "repro"], check=False).returncode
    ours = {} if address_of(cluster) else {OWN_RAY: "1"}
    with session(cluster) as address:
        environment = {**os.environ, "RAY_ADDRESS": address, **ours}
        return _run_to_its_end([*DVC, "repro", *arguments], environment)


def _run_to_its_end(command: list[str], environment: dict[str, str]) -> int:
    """Its exit code. A signal is handed on to the stage at work and its end waited for: training keeps a checkpoint."""
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except (KeyboardInterrupt, SystemExit):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended in this moment
            for stage in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    stage.terminate()
        process.wait()
        raise


def _repro_parallel(cluster: Cluster, jobs: int, arguments: list[str]) -> int:
    """The same, `jobs` stages at once on that one Ray, in whose scheduler trainings wait for their resources."""
    options = [word for word in arguments if word.startswith("-")]
    targets = [word for word in arguments if not word.startswith("-")]
    if refused := set(options) - set(STAGE_OPTIONS):
        print(f"with -j, {' '.join(sorted(refused))} is not passed on; {' '.join(STAGE_OPTIONS)} are", file=sys.stderr)
        return 2
    try:
        needs = plan(targets, force=bool({"-f", "--force"} & set(options)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not needs:
        print("Data and pipelines are up to date.")
        return 0
    ours = {} if address_of(cluster) else _share(jobs)
    with session(cluster) as address:
        outcome = run_stages(needs, jobs, {"RAY_ADDRESS": address, **ours}, options)
    if outcome.failed:
        skipped = f"; not run for it: {' '.join(outcome.skipped)}" if outcome.skipped else ""
        print(f"failed: {' '.join(outcome.failed)}{skipped}", file=sys.stderr)
    return outcome.code


def _share(jobs: int) -> dict[str, str]:
    """A stage's share of this machine: without it each would ask Ray for all cores, and wait for the one before."""
    share = str(max(1, cores() // jobs))
    return {"RESNET_CORES": share, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", share)}


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


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
