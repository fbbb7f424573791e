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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from infra import delivery
from infra.arguments import at_least_one
from infra.parallel import DVC, Outcome, plan, run_stages
from pipeline.config import PARAMS_FILE, check_networks, load_params
from pipeline.tracking.surroundings import ORIGIN, ray_submission

ROOT = "RESNET_S3"
"""Names the project's place in S3, on every node of a cluster and in the user's shell."""
WHAT_IT_IS_FOR = (
    "models, checkpoints and results would go with the job's folder; start Ray's nodes with it, such as s3://bucket"
)
REMOTE = "cluster"
PAUSES = (1, 5, 15, 30, 60)
"""Seconds between the tries to read from S3 at the start, and to deliver at the end."""


def main(arguments: list[str]) -> int:
    """Run the experiment's stages and deliver each as it is done; 0 when all succeeded, 2 where nothing can be run."""
    options = parser().parse_args(arguments)
    if ROOT not in os.environ:
        print(f"{ROOT} is not set on the cluster's head: {WHAT_IT_IS_FOR}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _stopped)
    with tempfile.TemporaryDirectory(prefix=f"{job_id()}-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "clone"
        shutil.copytree(Path.cwd(), folder, ignore=shutil.ignore_patterns("__pycache__"))
        os.chdir(folder)
        given = delivery.base()
        try:
            composed = compose(options.set_param) if options.set_param else None
            check_networks(load_params())
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        settle(options.commit)
        code = _run(options, Courier(delivery.place_of(os.environ[ROOT], job_id()), given, composed))
        os.chdir("/")
    return code


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="python -m infra.job", description=__doc__)
    parser.add_argument("-j", "--jobs", type=at_least_one, default=2, help="stages at once (default: %(default)s)")
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
    tree["cluster"]["storage"] = tree["cluster"]["storage"] or f"{os.environ[ROOT].rstrip('/')}/checkpoints"
    Path(PARAMS_FILE).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def write_dvc_config(no_scm: bool = False) -> str:
    """Name the DVC remote under RESNET_S3 in .dvc/config.local, as the default where there is none; keys stay outside.

    The name of the remote that this clone's jobs use: the default of .dvc/config, which travels with them, or that.
    """
    from dvc.config import Config

    config = Config.from_cwd()
    default = config["core"].get("remote")
    with config.edit("local") as local:
        if no_scm:
            local["core"]["no_scm"] = True
            local["cache"]["type"] = "reflink,hardlink,copy"  # a job's folder is read by stages alone: one copy will do
        if root := os.environ.get(ROOT):
            local["remote"][REMOTE] = {"url": f"{root.rstrip('/')}/dvc"}
            local["core"].setdefault("remote", default or REMOTE)
    return str(config.read("repo")["core"].get("remote", REMOTE))


def _run(options: argparse.Namespace, courier: Courier) -> int:
    if not courier.fetch():
        return 1
    try:
        needs = plan(options.targets, options.force)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    words = ["--force"] if options.force else ["--pull"]  # what the run cache says was made before is fetched
    outcome = run_stages(needs, options.jobs, {}, words, courier.deliver)
    _tell(outcome)
    return outcome.code if courier.finish() else 1


class Courier:
    """Takes outs to the DVC remote, and lock entries and results to where the user's clone picks them up.

    `given` has the digests of what came with the job, `params` the text of parameters that it composed.
    """

    def __init__(self, place: str, given: dict[str, str], params: str | None) -> None:
        self._place, self._params = place, params
        self._base: dict[str, str] = _origin().get("base", given)
        self._finished: list[str] = []
        self._pushed: set[str] = set()

    def fetch(self) -> bool:
        """Get what the DVC remote has of the experiment, and the record of what was run before; what it lacks is made.

        Tried again with growing pauses; False, having said so, where the remote can't be read.
        """
        if _patiently(lambda: not _dvc("pull", "--allow-missing", "--run-cache")):
            return True
        print("DVC's remote can't be read, so nothing is run; submit again when it can", file=sys.stderr)
        return False

    def deliver(self, stage: str) -> None:
        """Deliver a stage that is done; when S3 fails, it goes with the next one."""
        self._finished.append(stage)
        self._try()

    def finish(self) -> bool:
        """Deliver what is left, with growing pauses while S3 fails; whether all went."""
        return _patiently(self._try)

    def _try(self) -> bool:
        waiting = [stage for stage in self._finished if stage not in self._pushed]
        if waiting and _dvc("push", "--run-cache", *waiting):
            return False
        self._pushed.update(waiting)
        try:
            delivery.send(self._place, self._finished, base=self._base, params=self._params)
        except Exception as error:  # of S3, of DVC: none may end the stages that are at work
            print(f"{self._place}: not delivered yet: {error}", file=sys.stderr)
            return False
        return True


def _dvc(*words: str) -> int:
    return subprocess.run([*DVC, words[0], "--quiet", *words[1:]], check=False).returncode


def _patiently(succeeds: Callable[[], bool]) -> bool:
    """Whether it succeeds, at once or after one of the pauses."""
    for pause in PAUSES:
        if succeeds():
            return True
        time.sleep(pause)
    return succeeds()


def _tell(outcome: Outcome) -> None:
    if not outcome.failed:
        print(f"{len(outcome.finished)} stages finished" if outcome.finished else "data and pipelines are up to date")
    for words, stages in (("failed", outcome.failed), ("not run for it", outcome.skipped)):
        if stages:
            print(f"{words}: {' '.join(stages)}")
    if outcome.finished:
        print(f"to bring the results into a clone: python -m infra.submit --attach {job_id()}")


def _origin() -> dict[str, Any]:
    path = Path(ORIGIN)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _stopped(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
