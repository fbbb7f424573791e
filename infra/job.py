"""An experiment as one job of a Ray cluster: `python -m infra.job`, the command that is submitted.

It works in a folder of its own: DVC without git, with remote and checkpoints under RESNET_S3, results back through it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from infra import delivery
from infra.parallel import DVC, Outcome, plan, run_stages
from pipeline.config import PARAMS_FILE, check_networks, load_params
from pipeline.tracking.surroundings import ray_submission

ORIGIN = ".origin.json"
"""In the code that travels: the commit it is of, and the digests of the results that went along."""
ROOT = "RESNET_S3"
"""Names the project's place in S3, on every node of a cluster and in the user's shell."""
REMOTE = "cluster"
PAUSES = (1, 5, 15, 30, 60)
"""Seconds between the tries of the last delivery."""


def main(arguments: list[str]) -> int:
    """Run the experiment's stages and deliver each as it is done; 0 when all succeeded, 2 for refused parameters."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stopped)
    with tempfile.TemporaryDirectory(prefix=f"{job_id()}-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "clone"
        shutil.copytree(Path.cwd(), folder, ignore=shutil.ignore_patterns("__pycache__"))
        os.chdir(folder)
        try:
            composed = compose(options.set_param) if options.set_param else None
            check_networks(load_params())
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        settle(options.commit)
        code = _run(options, composed)
        os.chdir("/")
    return code


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m infra.job", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=2, help="stages at once (default: %(default)s)")
    parser.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as `dvc exp run -S`"
    )
    parser.add_argument("--commit", help="the commit that the code is of, where it came without `make submit`")
    parser.add_argument("--force", action="store_true", help="run every stage, whatever DVC finds")
    parser.add_argument("targets", nargs="*", help="stages, with those before them (default: all)")
    return parser


def job_id() -> str:
    """This job's submission identifier, as Ray tells it to what it runs; `job` outside a job."""
    return ray_submission() or "job"


def compose(overrides: list[str]) -> str:
    """Compose params.yaml anew from conf/, as `dvc exp run -S` does; its text. ValueError when that is refused."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import compose_and_dump

    try:
        compose_and_dump(PARAMS_FILE, str(Path("conf").absolute()), None, "config", "", overrides)
    except (DvcException, OSError) as error:
        raise ValueError(f"-S {' -S '.join(overrides)}: {error}") from error
    return Path(PARAMS_FILE).read_text(encoding="utf-8")


def settle(commit: str | None) -> None:
    """Make the folder at hand a DVC repository without git that knows where it comes from and where S3 is."""
    origin = _origin()
    os.environ["GIT_CEILING_DIRECTORIES"] = str(Path.cwd().parent)
    if commit := commit or origin.get("commit"):
        os.environ["GIT_COMMIT"] = commit
    if (dirty := origin.get("dirty")) is not None:
        os.environ["GIT_DIRTY"] = str(dirty).lower()
    Path(".dvc").mkdir(exist_ok=True)
    write_dvc_config(no_scm=True)
    tree = yaml.safe_load(Path(PARAMS_FILE).read_text(encoding="utf-8"))
    if root := os.environ.get(ROOT):
        tree["cluster"]["storage"] = tree["cluster"]["storage"] or f"{root}/checkpoints"
    Path(PARAMS_FILE).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def write_dvc_config(no_scm: bool = False) -> None:
    """Name the DVC remote under RESNET_S3 in .dvc/config.local where none is named; keys stay in the environment."""
    known = Path(".dvc/config").read_text(encoding="utf-8") if Path(".dvc/config").exists() else ""
    local = Path(".dvc/config.local")
    lines = ["[core]"] + (["    no_scm = true"] if no_scm else [])
    root = os.environ.get(ROOT)
    if root and "remote" not in known + (local.read_text(encoding="utf-8") if local.exists() else ""):
        lines += [f"    remote = {REMOTE}", f"['remote \"{REMOTE}\"']", f"    url = {root}/dvc"]
    if len(lines) > 1:
        with open(local, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def _run(options: argparse.Namespace, composed: str | None) -> int:
    courier = Courier(delivery.place_of(os.environ[ROOT], job_id()), composed) if ROOT in os.environ else None
    if courier:
        courier.fetch()
    needs = plan(options.targets, options.force)
    words = ["--force"] if options.force else []
    outcome = run_stages(needs, options.jobs, {}, words, courier.deliver if courier else lambda stage: None)
    _tell(outcome, courier)
    return 1 if courier and not courier.finish() else outcome.code


class Courier:
    """Takes outs to the DVC remote, and lock entries and results to where the user's clone picks them up."""

    def __init__(self, place: str, params: str | None) -> None:
        self._place, self._params = place, params
        self._finished: list[str] = []
        self._pushed: set[str] = set()

    def fetch(self) -> None:
        """Get what the DVC remote has of the experiment; what it lacks will be made anew."""
        subprocess.run([*DVC, "pull", "--quiet", "--allow-missing"], check=False, stderr=subprocess.DEVNULL)

    def deliver(self, stage: str) -> None:
        """Deliver a stage that is done; when S3 fails, it goes with the next one."""
        self._finished.append(stage)
        self._try()

    def finish(self) -> bool:
        """Deliver what is left, with growing pauses while S3 fails; whether all went."""
        for pause in PAUSES:
            if self._try():
                return True
            time.sleep(pause)
        return self._try()

    def _try(self) -> bool:
        waiting = [stage for stage in self._finished if stage not in self._pushed]
        if waiting and subprocess.run([*DVC, "push", "--quiet", *waiting], check=False).returncode:
            return False
        self._pushed.update(waiting)
        try:
            delivery.send(self._place, self._finished, base=_origin().get("results", {}), params=self._params)
        except OSError as error:
            print(f"{self._place}: {error}", file=sys.stderr)
            return False
        return True


def _tell(outcome: Outcome, courier: Courier | None) -> None:
    if not outcome.failed:
        print(f"{len(outcome.finished)} stages finished" if outcome.finished else "data and pipelines are up to date")
    for words, stages in (("failed", outcome.failed), ("not run for it", outcome.skipped)):
        if stages:
            print(f"{words}: {' '.join(stages)}")
    if courier is None:
        print(f"{ROOT} is not set on the cluster's nodes: the results stay behind", file=sys.stderr)
    elif outcome.finished:
        print(f"to bring the results into a clone: python -m infra.submit --attach {job_id()}")


def _origin() -> dict[str, Any]:
    path = Path(ORIGIN)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _stopped(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
