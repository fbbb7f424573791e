"""A reproduction that is killed finishes when it is started again, with the numbers of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.clone import Clone, wait_for
from tests.training_workers import trains

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

RUN = "resnet8-s0"
LONG_WAIT = 240.0
LONG = {"iterations": 300, "schedule": {"kind": "steps", "milestones": [200], "factor": 0.1}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, dict[str, torch.Tensor]]:
    """A clone with prepared data and one run trained, and that run's weights."""
    made = Clone(tmp_path_factory.mktemp("faults"))
    made.change(lambda tree: tree["training"].update(LONG))
    made.run("dvc", "repro", f"train@digits-{RUN}")
    return made, weights(made)


def weights(clone: Clone) -> dict[str, torch.Tensor]:
    return load_file(clone.folder / "models" / "digits" / RUN / "weights.safetensors")


def forget(clone: Clone) -> None:
    """Leave the clone as it was before anything ran; DVC's record and cache of earlier results go too."""
    for path in ("models", "data", ".dvc/cache"):
        shutil.rmtree(clone.folder / path, ignore_errors=True)
    (clone.folder / "dvc.lock").unlink(missing_ok=True)


def checkpoints(clone: Clone) -> list[Path]:
    return list((clone.folder / "checkpoints").glob(f"digits-{RUN}-*/iteration-*/complete.json"))


def stage_process(clone: Clone) -> psutil.Process | None:
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if "stages.train" in words and process.info["cwd"] == str(clone.folder) and "python" in words[0]:
            return process
    return None


def assert_sound(clone: Clone, expected: dict[str, torch.Tensor]) -> None:
    found = weights(clone)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    record = json.loads((clone.folder / "models" / "digits" / RUN / "train.json").read_text())
    history = (clone.folder / "models" / "digits" / RUN / "history.csv").read_text().splitlines()
    assert record["iterations"] == 300
    assert [line.split(",")[0] for line in history[1:]] == [str(i) for i in range(20, 301, 20)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_whole_group_is_killed_and_training_goes_on(undisturbed, number: signal.Signals) -> None:
    clone, expected = undisturbed
    forget(clone)
    process = clone.start("infra.reproduce", f"train@digits-{RUN}")
    wait_for(lambda: checkpoints(clone), LONG_WAIT)
    os.killpg(process.pid, number)
    assert process.wait(60) != 0
    wait_for(lambda: stage_process(clone) is None, LONG_WAIT)
    assert not (clone.folder / "models" / "digits" / RUN).exists()
    clone.run("infra.reproduce", f"train@digits-{RUN}")
    assert_sound(clone, expected)
    assert checkpoints(clone) == []


def test_an_orphaned_stage_does_not_disturb_the_next_run(undisturbed) -> None:
    clone, expected = undisturbed
    forget(clone)
    process = clone.start("dvc", "repro", f"train@digits-{RUN}")
    wait_for(lambda: checkpoints(clone), LONG_WAIT)
    process.kill()
    process.wait(30)
    orphan = stage_process(clone)
    assert orphan is not None, "the stage must have outlived dvc for this test to mean anything"
    workers = [child for child in orphan.children(recursive=True) if trains(child)]
    assert workers
    log = clone.folder / "started.log"
    log.unlink()
    try:
        for worker in workers:
            worker.suspend()  # so that it is at work until the next run has seen it
        again = clone.start("dvc", "repro", f"train@digits-{RUN}")
        wait_for(lambda: "another process is at work on this; waiting for it to end" in log.read_text(), LONG_WAIT)
    finally:
        for worker in workers:
            worker.resume()
    assert again.wait(240) == 0, log.read_text()
    wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, LONG_WAIT)
    assert_sound(clone, expected)
