"""What every stage's command line has in common: identities, parameters, one process at a time, clear errors."""

from __future__ import annotations

import argparse
import atexit
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock, Timeout

from pipeline import paths
from pipeline.config import Params, check_networks, load_params
from pipeline.data.batches import LoaderError
from pipeline.storage import StorageError


@dataclass(frozen=True)
class Stage:
    """A stage about to run, with its output to itself."""

    params: Params
    experiment: str
    run: str
    """The run, for a stage that is one of a matrix over runs; otherwise empty."""
    waited: bool
    """Another process of this stage was at work when this one started, and has ended."""


def main(name: str, body: Callable[[Stage], None], *, of_run: bool) -> None:
    """Run a stage from its command line: `python -m stages.<name> <experiment> [<run>]`.

    Exits with 2 and one message when the parameters or inputs are at fault, with 130 or 143 when interrupted.
    """
    signal.signal(signal.SIGTERM, _terminate)
    _collect_what_comes_now()
    arguments = _arguments(name, of_run)
    run = arguments.run if of_run else ""
    try:
        params = _checked_params(arguments.experiment, run)
        with _alone("-".join(filter(None, (name, arguments.experiment, run)))) as waited:
            body(Stage(params, arguments.experiment, run, waited))
    except (ValueError, FileNotFoundError, StorageError, LoaderError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def _collect_what_comes_now() -> None:
    """Leave what was imported alone from now on; and all that there is at the end, when the system frees it at once."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)


def _arguments(name: str, of_run: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}")
    parser.add_argument("experiment", help="the experiment at hand, as params.yaml names it")
    if of_run:
        parser.add_argument("run", help="a run of it, such as resnet20-s0")
    return parser.parse_args()


def _checked_params(experiment: str, run: str) -> Params:
    params = load_params()
    check_networks(params)
    if params.experiment != experiment:
        raise ValueError(
            f"params.yaml: experiment is '{params.experiment}', not '{experiment}';"
            f" switch with `dvc exp run -S experiment={experiment}`"
        )
    if run:
        params.training_of(run)
    return params


@contextmanager
def _alone(name: str) -> Iterator[bool]:
    """Hold the stage's lock, so that a process left over from a killed `dvc` is waited for; whether it was."""
    path = paths.lock_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waited = True
        print(f"{name}: another process is at work on this; waiting for it to end", flush=True)
        lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)
