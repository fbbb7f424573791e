"""A clone of the project in a folder of its own, with a digits experiment of seconds."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.composing import compose

ROOT = Path(__file__).parents[2]
RUNS = ("plain8-s0", "resnet8-s0")
TRAINING = {
    "batch_size": 32,
    "bn_images": 32,
    "iterations": 120,
    "schedule": {"kind": "steps", "milestones": [80, 100], "factor": 0.1},
    "warmup": None,
    "bn_recompute_images": 320,
    "precision": "fp32",
    "deterministic": True,
    "curve_every": 20,
    "test_every": 40,
}


def _heed_interrupts() -> None:
    """A shell's background jobs, and so the tests in one, are deaf to SIGINT, and hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what a test that failed left at work."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 400.0) -> None:
    """Look again and again until it is so; AssertionError where it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


class Clone:
    """The project's tracked files in `folder`, a repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.more_environment: dict[str, str] = {}
        for name in _git("ls-files", "-z", cwd=ROOT).split("\0"):
            source = ROOT / name
            if name and not name.startswith("results/") and name != "dvc.lock" and source.is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
        # whatever the working tree's was composed for
        compose(folder / "params.yaml", ["experiment=digits"], folder / "conf")
        self.change(self._shorten)
        _git("init", "-q", cwd=folder)
        self.commit()

    def commit(self) -> None:
        """Commit everything that is there."""
        _git("add", "-A", cwd=self.folder)
        author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        _git(*author, "commit", "-qm", "state", cwd=self.folder)

    def change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edit params.yaml as a tree."""
        path = self.folder / "params.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        edit(tree)
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """`python -m words`, with the interpreter of the tests."""
        return [sys.executable, "-m", *words]

    def environment(self) -> dict[str, str]:
        """The environment of a newcomer's shell, in which no cluster and no MLflow server is named."""
        left_out = ("RAY_", "MLFLOW_", "DVC_", "RESNET_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        binaries = str(Path(sys.executable).parent)
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "2"}
        return {**kept, **quiet, **self.more_environment, "PATH": f"{binaries}{os.pathsep}{kept['PATH']}"}

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `python -m words` to its end; its output is both streams."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2000,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `python -m words` in a process group of its own."""
        with open(self.folder / "started.log", "ab") as log:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_heed_interrupts,
            )
        atexit.register(_end, process)
        return process

    def _shorten(self, tree: dict[str, Any]) -> None:
        tree["training"].update(TRAINING)
        tree["runs"] = {run: {"training": {}} for run in RUNS}
        tree["ensembles"] = {"both": list(RUNS)}
        tree["evaluation"]["protocols"]["multi_scale"]["shorter_sides"] = [16, 20]
        tree["cluster"].update(checkpoint_every=20, cpus_per_worker=1)


def _git(*words: str, cwd: Path) -> str:
    return subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True).stdout
