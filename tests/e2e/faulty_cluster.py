"""The cluster's real parts, each to be killed and brought back, and a training of two workers on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
from mlflow import MlflowClient
from s3fs import S3FileSystem

from infra.local_parts import LocalCluster
from tests.e2e.clone import Clone, wait_for
from tests.training_workers import training_workers

RUN = "resnet8-s0"
ITERATIONS = 300
CHECKPOINT_EVERY = 20
STEPS = list(range(10, ITERATIONS + 1, 10))
NODES = 2


class Parts:
    """S3, MLflow, a Ray head and two nodes of one CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._command = [sys.executable, "-m", "infra.cluster", "--folder", str(folder)]
        self.up()

    def up(self) -> None:
        """Start what does not run."""
        words = ["up", "--nodes", str(NODES), "--cpus", "1"]
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """Stop everything."""
        subprocess.run([*self._command, "down"], capture_output=True, text=True, check=True)

    def environment(self) -> dict[str, str]:
        """What a user's shell needs."""
        return LocalCluster.load(self.folder).environment()

    def kill(self, part: str, only: str = "") -> None:
        """SIGKILL a part's processes; `only` those of this name."""
        family = self._family(part)
        killed = []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if only in process.name():
                    process.kill()
                    killed.append(process)
        psutil.wait_procs(killed, timeout=30)

    def stopped(self, part: str) -> contextlib.AbstractContextManager[None]:
        """A part that is there and does not answer, for the length of the block."""
        return self._suspended(self._family(part))

    def stopped_workers(self) -> contextlib.AbstractContextManager[None]:
        """Training stands still for the length of the block."""
        return self._suspended(self.workers())

    @contextlib.contextmanager
    def _suspended(self, family: list[psutil.Process]) -> Iterator[None]:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def _family(self, part: str) -> list[psutil.Process]:
        first = psutil.Process(json.loads((self.folder / "state.json").read_text())["processes"][part]["pid"])
        return [first, *first.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        token = str(self.folder / "ray-token")
        return training_workers(lambda process: process.environ().get("RAY_AUTH_TOKEN_PATH") == token)


class Project(Clone):
    """A clone whose trainings have two workers on the parts, and their checkpoints in S3."""

    def __init__(self, folder: Path, parts: Parts) -> None:
        super().__init__(folder)
        self.parts = parts
        self.more_environment = {**parts.environment(), "PYTHONUNBUFFERED": "1"}
        self.change(_with_two_workers)
        self._log = self.folder / "started.log"
        self.run("stages.prepare", "digits")

    def begin(self) -> Training:
        """Start the train stage."""
        return Training(self.start("stages.train", "digits", RUN), self._log)

    def outcome(self) -> tuple[bytes, list[int]]:
        """The finished training's weights, as they lie on disk, and the iterations of its curve."""
        model = self.folder / "models" / "digits" / RUN
        return (model / "weights.safetensors").read_bytes(), pd.read_csv(model / "history.csv")["iteration"].tolist()

    def client(self) -> MlflowClient:
        """MLflow's, of the parts."""
        return MlflowClient(self.more_environment["MLFLOW_TRACKING_URI"])

    def runs(self) -> list[str]:
        """The identifiers of MLflow's runs, the newest first."""
        experiment = self.client().get_experiment_by_name("digits")
        return [run.info.run_id for run in self.client().search_runs([experiment.experiment_id])] if experiment else []

    def checkpoints(self) -> list[str]:
        """The complete checkpoints in S3, the newest last."""
        seals = self._s3().glob("resnet/checkpoints/*/iteration-*/complete.json")
        return sorted(seal.rpartition("/")[0] for seal in seals)

    def cut_short(self, path: str) -> None:
        """Leave half of a file in S3."""
        content = self._s3().cat_file(path)
        self._s3().pipe_file(path, content[: len(content) // 2])

    def _s3(self) -> S3FileSystem:
        known = self.more_environment
        return S3FileSystem(
            key=known["AWS_ACCESS_KEY_ID"],
            secret=known["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=known["AWS_ENDPOINT_URL"],
            use_listings_cache=False,
        )


class Training:
    """A train stage at work; its output is what it says from here on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log, self._from = process, log, log.stat().st_size

    def output(self) -> str:
        """What it has said so far."""
        with open(self._log, "rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def reached(self) -> list[int]:
        """The iterations of its lines of progress."""
        return [int(found.replace(",", "")) for found in re.findall(r"iteration ([\d,]+)/", self.output())]

    def wait_until(self, iteration: int) -> None:
        """Wait until it has come so far."""

        def there() -> bool:
            assert self.process.poll() is None, self.output()[-4000:]
            return bool(self.reached() and self.reached()[-1] >= iteration)

        wait_for(there)

    def signalled(self, number: signal.Signals) -> int:
        """Its exit code after a signal."""
        os.kill(self.process.pid, number)
        return self.process.wait(120)

    def finish(self) -> str:
        """Wait until it has finished; its output."""
        assert self.process.wait(240) == 0, self.output()[-4000:]
        return self.output()


def _with_two_workers(tree: dict) -> None:
    schedule = {"kind": "steps", "milestones": [225], "factor": 0.1}
    tree["training"].update(iterations=ITERATIONS, schedule=schedule, bn_images=16, curve_every=10)
    tree["cluster"].update(workers=NODES, storage="s3://resnet/checkpoints", progress_seconds=0.2)
    tree["cluster"].update(checkpoint_every=CHECKPOINT_EVERY, max_failures=10)
