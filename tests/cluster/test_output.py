"""What workers print is shown by their driver, all of it, and no other driver's."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
import ray

from pipeline import cluster
from pipeline.cluster import output
from pipeline.cluster.ray_session import LOGS
from tests.cluster.conftest import small_params
from tests.e2e.clone import wait_for

WORKER = "worker-0a-02000000-77"


def written(folder: Path, name: str, *lines: str, job: str = "02000000") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in (f":job_id:{job}", ":actor_name:Worker", *lines)))
    return path


def test_lines_of_the_job_go_to_the_stream_that_they_were_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with output.shown(tmp_path, "02000000"):
        written(tmp_path, f"{WORKER}.out", "iteration 1", "50 % ¼")
        written(tmp_path, f"{WORKER}.err", "a warning")
        written(tmp_path, "worker-0b-03000000-78.out", "another's", job="03000000")
        (tmp_path / "raylet.err").write_text("a worker was killed\n")
    shown = capsys.readouterr()
    assert sorted(shown.out.splitlines()) == ["50 % ¼", "iteration 1"]
    assert sorted(shown.err.splitlines()) == ["a warning", "a worker was killed"]


def test_what_is_added_is_shown_soon_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    path = written(tmp_path, f"{WORKER}.out", "first")
    with output.shown(tmp_path, "02000000"):
        wait_for(lambda: "first\n" in screen.getvalue(), 100)
        with path.open("a") as file:
            file.write("second\n")
        wait_for(lambda: "second\n" in screen.getvalue(), 100)
    assert screen.getvalue() == "first\nsecond\n"


def test_more_lines_than_are_read_at_once_are_all_there_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(3210)]
    with output.shown(tmp_path, "02000000"):
        written(tmp_path, f"{WORKER}.out", *lines)
    assert capsys.readouterr().out.splitlines() == lines


def speak(number: int) -> int:
    print(f"out {number}")
    print(f"err {number}", file=sys.stderr, flush=True)
    return number


@pytest.mark.slow
def test_what_tasks_print_is_shown_before_ray_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with cluster.session(small_params().cluster) as address:
        assert Path(os.environ[LOGS]).is_dir()
        assert address
        assert ray.get(ray.remote(speak).remote(7)) == 7
    shown = capfd.readouterr()
    assert shown.out.splitlines().count("out 7") == 1
    assert shown.err.splitlines().count("err 7") == 1
    assert LOGS not in os.environ
