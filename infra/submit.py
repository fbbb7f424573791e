"""Submit the experiment to a Ray cluster as one job, follow it, and bring its results into this clone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infra import delivery
from infra.arguments import at_least_one
from infra.job import ORIGIN, ROOT, compose, write_dvc_config
from infra.processes import environment_without
from pipeline.config import PARAMS_FILE, check_networks, load_params
from pipeline.provenance import code_version
from pipeline.tracking.surroundings import git_patch

UPLOAD_LIMIT = 100 * 2**20
STOPPED = 143


def main(arguments: list[str]) -> int:
    """Submit or attach; the job's exit code, 2 when something is refused, 130 when detached by Ctrl-C."""
    options = _parse(arguments)
    try:
        if options.attach:
            return _see_through(lambda: _client(options.address), options.attach, options.force)
        client = _client(options.address)
        if options.stop:
            return 0 if client.stop_job(options.stop) else 1
        with _composed(options.set_param):
            params = load_params()
            check_networks(params)
            if not options.beside:
                _refuse_beside_another(client, params.experiment)
            job = _submit(client, params.experiment, _entrypoint(options))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(_one_line(error), file=sys.stderr)
        return 2
    if options.detach:
        print(f"to come back to it: python -m infra.submit --attach {job}")
        return 0
    return _see_through(lambda: client, job, options.force)


@contextlib.contextmanager
def _composed(overrides: list[str]) -> Iterator[None]:
    """params.yaml composed with these, if any; as it was before where the block raises."""
    before = PARAMS_FILE.read_bytes() if PARAMS_FILE.exists() else None
    try:
        if overrides:
            compose(overrides)
        yield
    except BaseException:
        if before is not None:
            PARAMS_FILE.write_bytes(before)
        raise


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.submit", description=__doc__)
    parser.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as `dvc exp run -S`"
    )
    parser.add_argument("-j", "--jobs", type=at_least_one, default=2, help="stages at once (default: %(default)s)")
    parser.add_argument("--address", help="the cluster's dashboard (default: RAY_API_SERVER_ADDRESS)")
    parser.add_argument("--detach", action="store_true", help="submit, and don't wait")
    parser.add_argument(
        "--beside", action="store_true", help="submit though a job of this experiment is at work, with other recipes"
    )
    parser.add_argument("--attach", metavar="JOB", help="follow a job submitted before, and bring its results")
    parser.add_argument("--stop", metavar="JOB", help="stop a job; what it finished can still be brought with --attach")
    parser.add_argument("--force", action="store_true", help="overwrite results that were changed here meanwhile")
    parser.add_argument("targets", nargs="*", help="stages, with those before them (default: all)")
    return parser.parse_args(arguments)


def _client(address: str | None) -> Any:
    """Ray's client of the job server. ConnectionError with what to do when none answers."""
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (RuntimeError, ConnectionError, OSError) as error:
        raise ConnectionError(
            f"no cluster takes jobs here ({_one_line(error)}); `make cluster`, then `source .cluster/env`"
        ) from None


def _entrypoint(options: argparse.Namespace) -> str:
    return shlex.join(["python", "-m", "infra.job", "-j", str(options.jobs), *options.targets])


def _refuse_beside_another(client: Any, experiment: str) -> None:
    """ValueError where a job of the experiment is at work: the same training twice would mix their checkpoints."""
    for job in client.list_jobs():
        if not job.status.is_terminal() and (job.metadata or {}).get("experiment") == experiment:
            raise ValueError(
                f"job {job.submission_id} of {experiment} is at work: follow it (--attach {job.submission_id}), stop it"
                " (--stop), or submit --beside it, where no run has the same recipe: these would write the same"
                " checkpoints and the same MLflow run"
            )


def _submit(client: Any, experiment: str, entrypoint: str) -> str:
    # Everything that is to travel is tracked, also where .gitignore has its name.
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
    with tempfile.TemporaryDirectory(prefix="job-") as name:
        folder = Path(name) / "code"
        commit = pack(folder)
        job: str = client.submit_job(
            entrypoint=entrypoint,
            runtime_env={"working_dir": str(folder)},
            metadata={"experiment": experiment, "git_commit": commit or ""},
        )
    print(f"job {job}: {experiment}", flush=True)
    return job


def pack(folder: Path) -> str | None:
    """Copy the tracked files, as they are in the working tree, with a note of their commit; the commit.

    What git does not track stays here: data, models, caches, local configuration, and so keys. ValueError above Ray's
    limit for an upload.
    """
    for path in _git("ls-files", "-z").split("\0"):
        if path and Path(path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path)
    if strangers := _git(
        "ls-files", "--others", "--exclude-standard", "--", "pipeline", "stages", "conf", "infra"
    ).split():
        print(f"not tracked by git, so left here: {' '.join(strangers)}", file=sys.stderr)
    version = code_version()
    origin = {"commit": version["git_commit"], "dirty": version["git_dirty"], "base": delivery.base()}
    origin["patch"] = git_patch(new=False)  # what git does not track stays here
    (folder / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > UPLOAD_LIMIT:
        raise ValueError(f"the tracked files are {size / 2**20:.0f} MiB; a job takes {UPLOAD_LIMIT / 2**20:.0f} MiB")
    commit: str | None = version["git_commit"]
    return commit


def _see_through(connect: Callable[[], Any], job: str, force: bool) -> int:
    """Follow the job to its end and bring back what it finished, also where it can't be followed; its exit code.

    2 where the cluster does not know it, or does not answer; 1 where nothing came that should have.
    """
    try:
        client = connect()
        code = _follow_or_stop(client, job)
    except KeyboardInterrupt:
        print(f"\ndetached; the job goes on: python -m infra.submit --attach {job}", file=sys.stderr)
        return 130
    except (RuntimeError, OSError) as error:
        print(f"{job} can't be followed ({_one_line(error)}); what it has delivered is brought", file=sys.stderr)
        code = 2
    brought = _bring(job, force)
    return code or brought


def _follow_or_stop(client: Any, job: str) -> int:
    """As `follow`; Ctrl-C asks whether to stop the job, and is handed on where that is not wanted."""
    try:
        return follow(client, job)
    except KeyboardInterrupt:
        if not _wants_to_stop():
            raise
        client.stop_job(job)
        return follow(client, job)


def follow(client: Any, job: str) -> int:
    """Print the job's output as it comes, until it has ended; its exit code, 143 when it was stopped.

    RuntimeError where the cluster does not know the job, OSError where it answers no more.
    """
    client.get_job_info(job)
    try:
        asyncio.run(_tail(client, job))
    except Exception as error:  # of several libraries: whether the job is there is asked below
        print(f"its output can't be followed ({_one_line(error)}); waiting for its end", file=sys.stderr)
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(1)
    if info.status == "STOPPED":
        return STOPPED
    if info.status == "FAILED" and info.driver_exit_code is None:
        print(info.message, file=sys.stderr)
    return int(info.driver_exit_code if info.driver_exit_code is not None else info.status == "FAILED")


async def _tail(client: Any, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


def _wants_to_stop() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        return input("\n[d]etach from the job, or [s]top it? ").strip().lower().startswith("s")
    except (EOFError, KeyboardInterrupt):
        return False


def _bring(job: str, force: bool) -> int:
    """Results and lock entries into this clone; 0, or 1 when they can't be brought."""
    if ROOT not in os.environ:
        print(f"{ROOT} is not set here, so the results stay in the cluster: source its env file", file=sys.stderr)
        return 1
    try:
        stages = delivery.receive(delivery.place_of(os.environ[ROOT], job), force)
    except delivery.DeliveryError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"brought: {' '.join(stages)}; `{_pull_command()}` brings models and data" if stages else "nothing to bring")
    return 0


def _pull_command() -> str:
    from dvc.config import Config

    remote = write_dvc_config()
    return "dvc pull" if Config.from_cwd()["core"].get("remote") == remote else f"dvc pull -r {remote}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _git(*words: str) -> str:
    environment = environment_without("GIT_")
    found = subprocess.run(["git", *words], capture_output=True, text=True, check=False, env=environment)
    if found.returncode:
        raise ValueError(f"what git tracks is submitted, and git {words[0]} failed: {found.stderr.strip()}")
    return found.stdout


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
