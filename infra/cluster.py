"""The cluster's real parts on one machine: an S3 server, MLflow and Ray nodes, as processes on loopback.

`python -m infra.cluster up|down|status`; everything about it lies in .cluster/, readable by its owner alone.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

from filelock import FileLock

from infra.arguments import at_least_one
from infra.local_parts import USUAL_CPUS, USUAL_NODES, LocalCluster
from infra.processes import StartError

FOLDER = ".cluster"


def main(arguments: list[str]) -> int:
    """Do as the command line says; 0 when the parts are as asked for, 1 when one did not start or is not there."""
    options = _parse(arguments)
    folder = Path(options.folder).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        cluster = LocalCluster.load(folder)
        if options.command == "up":
            return _up(cluster, options)
        return _down(cluster, options.remove_data) if options.command == "down" else _status(cluster)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.cluster", description=__doc__)
    parser.add_argument("--folder", default=FOLDER, help="where its secrets, logs and data lie (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start what is not running")
    nodes, cpus = (f"(default: as before, else {usual})" for usual in (USUAL_NODES, USUAL_CPUS))
    up.add_argument("--nodes", type=at_least_one, help=f"Ray nodes besides the head {nodes}")
    up.add_argument("--cpus", type=at_least_one, help=f"CPUs of each {cpus}")
    for name, usual in LocalCluster.USUAL_PORTS.items():
        note = f"0: {usual}, or any free one where that is taken"
        up.add_argument(f"--{name}-port", type=int, default=0, metavar="PORT", help=note)
    down = commands.add_parser("down", help="stop what `up` started")
    down.add_argument("--remove-data", action="store_true", help="and remove what is kept in S3 and in MLflow")
    commands.add_parser("status", help="say which parts are running, and where")
    return parser.parse_args(arguments)


def _up(cluster: LocalCluster, options: argparse.Namespace) -> int:
    started = time.monotonic()
    ports = {name: getattr(options, f"{name}_port") for name in LocalCluster.USUAL_PORTS}
    try:
        if not cluster.start(options.nodes, options.cpus, ports):
            print("already running:")
            return _status(cluster)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    _status(cluster)
    print(f"\nup in {time.monotonic() - started:.0f} s; for this shell:  source {_shown(cluster.folder / 'env')}")
    return 0


def _status(cluster: LocalCluster) -> int:
    running = cluster.running()
    if not running:
        print("nothing was started; `make cluster` does")
        return 1
    answering = cluster.answering()
    for name, lives in running.items():
        state = "running" if answering[name] else "NOT ANSWERING" if lives else "NOT RUNNING"
        print(f"{name:<14} {state:<14} {cluster.where(name)}")
    print(f"{'logs':<14} {_shown(cluster.folder / 'logs')}")
    return 0 if all(answering.values()) else 1


def _down(cluster: LocalCluster, remove_data: bool) -> int:
    stopped = cluster.stop()
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    if remove_data:
        for name in ("s3", "mlflow.db", "state.json", "secrets.json"):
            path = cluster.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return 0


def _shown(path: Path) -> str:
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
