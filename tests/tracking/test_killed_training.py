"""A real training killed by SIGKILL goes on in the same MLflow run, and no metric has a step twice."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import pytest
from mlflow.entities import Run

from pipeline.config import load_params
from pipeline.data.prepare import prepare
from pipeline.tracking import store
from tests.e2e.clone import Clone
from tests.tracking.test_runs import all_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

RUN = "resnet8-s0"
SCHEDULE = {"kind": "steps", "milestones": [200], "factor": 0.1}
ITERATIONS = (240, 1200)
MOST_SECONDS = 600.0


def steps(run: Run) -> dict[str, list[int]]:
    """The steps of every metric that the run has, the machine's load too."""
    client = store.client()
    return {
        name: [point.step for point in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }


def wait_for_curves(running: Clone) -> Run:
    """The run once MLflow has points of it."""
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline:
        if (running.folder / store.DATABASE).exists():
            store.initialise(None, running.folder)
            for run in all_runs():
                if "training/loss" in run.data.metrics:
                    return run
        time.sleep(0.1)
    raise AssertionError((running.folder / "started.log").read_text()[-4000:])


def killed(folder: Path, iterations: int) -> tuple[Clone, Run]:
    """A clone in which a training of so many iterations was killed once MLflow had heard of it, and its run."""
    clone = Clone(folder)
    long = {"iterations": iterations, "curve_every": 5, "schedule": SCHEDULE}
    clone.change(lambda tree: tree["training"].update(long))
    clone.more_environment = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1"}
    prepare(load_params(folder / "params.yaml").data, folder / "data" / "digits")
    first = clone.start("stages.train", "digits", RUN)
    wait_for_curves(clone)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(60)
    (run,) = all_runs()
    return clone, run


def killed_before_its_end(root: Path) -> tuple[Clone, Run, int]:
    """So killed, and its iterations: more of them where a busy machine let this test come too late."""
    for iterations in ITERATIONS:
        clone, run = killed(root / str(iterations), iterations)
        if max(steps(run)["training/loss"]) < iterations:
            return clone, run, iterations
    raise AssertionError("killed too late for this test to mean anything")


def test_a_training_killed_by_sigkill_goes_on_in_its_run_with_no_step_twice(tmp_path: Path) -> None:
    clone, before, iterations = killed_before_its_end(tmp_path)
    logged = steps(before)["training/loss"]
    assert before.info.status == "RUNNING"
    clone.run("stages.train", "digits", RUN)
    (run,) = all_runs()
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    found = steps(run)
    assert [name for name, its in found.items() if len(its) != len(set(its))] == []
    assert found["training/loss"][: len(logged)] == logged
    with open(clone.folder / "models" / "digits" / RUN / "history.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert found["training/loss"] == [int(row["iteration"]) for row in rows] == list(range(5, iterations + 1, 5))
    assert found["test/error"] == [int(row["iteration"]) for row in rows if row["test_error"]]
    assert any(name.startswith("system/") for name in found)
