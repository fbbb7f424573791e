"""Processes that do the same at once, forked from one that has imported everything: imports are most of such a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FORKS = """
import os, sys, traceback

def forked(argument):
    process = os.fork()
    if process == 0:
        try:
            work(argument)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return process

children = [forked(argument) for argument in sys.argv[1:]]
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def at_once(work: str, arguments: Sequence[str], tracking: str | None = None) -> list[str]:
    """What is printed, by lines, by a process for each argument that calls `work`'s function `work` with it.

    `work` is source, `tracking` the MLflow store in their environment. AssertionError where any of them fails.
    """
    # Unbuffered, a line and its end are two writes, and another process's may come between them.
    left_out = ("MLFLOW_TRACKING_URI", "PYTHONUNBUFFERED")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"MLFLOW_TRACKING_URI": tracking} if tracking else {})
    done = subprocess.run(
        [sys.executable, "-c", work + FORKS, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout.splitlines()
