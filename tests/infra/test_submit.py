"""Following a job that the cluster no longer knows, and refusing one beside another of the same experiment."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from ray.job_submission import JobDetails, JobStatus, JobType

from infra import submit


class Server:
    """A job server's client, as Ray's: `info` is what it says, or raises, of a job; `jobs` are those it has."""

    def __init__(self, *info: Any, jobs: tuple[Any, ...] = ()) -> None:
        self._info, self._jobs = list(info), list(jobs)

    def get_job_info(self, job: str) -> Any:
        found = self._info.pop(0) if len(self._info) > 1 else self._info[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def tail_job_logs(self, job: str) -> Any:
        for line in ("at work\n",):
            yield line

    def list_jobs(self) -> list[Any]:
        return self._jobs


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(submit, "_bring", lambda job, force: found.append(job) or 0)
    return found


RUNNING = SimpleNamespace(status=JobStatus.RUNNING)


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ([RUNNING, requests.ConnectionError("refused")], "x can't be followed (refused); what it has delivered"),
        ([RuntimeError("Job x does not exist")], "x can't be followed (Job x does not exist); what it has delivered"),
    ],
    ids=["the head died", "unknown"],
)
def test_what_was_delivered_is_brought_though_the_cluster_does_not_know_the_job(
    info: list[Any], told: str, brought: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit._see_through(lambda: Server(*info), "x", force=False) == 2
    assert brought == ["x"]
    assert told in capsys.readouterr().err


def test_a_finished_jobs_code_is_the_commands(brought: list[str]) -> None:
    done = SimpleNamespace(status=JobStatus.FAILED, driver_exit_code=1, message="")
    assert submit._see_through(lambda: Server(RUNNING, done), "x", force=False) == 1
    assert brought == ["x"]


def test_without_an_answer_to_attach_to_what_was_delivered_is_brought(
    brought: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert submit.main(["--attach", "x", "--address", "http://127.0.0.1:9"]) == 2
    assert brought == ["x"]
    assert "`make cluster`" in capsys.readouterr().err


def details(experiment: str, status: JobStatus) -> JobDetails:
    metadata = {"experiment": experiment}
    return JobDetails(type=JobType.SUBMISSION, entrypoint="x", status=status, submission_id="one", metadata=metadata)


def test_a_second_job_of_an_experiment_is_refused_while_one_is_at_work() -> None:
    others = (details("cifar10", JobStatus.RUNNING), details("digits", JobStatus.STOPPED))
    submit._refuse_beside_another(Server(jobs=others), "digits")
    with pytest.raises(ValueError, match=r"job one of digits is at work: follow it \(--attach one\)"):
        submit._refuse_beside_another(Server(jobs=(*others, details("digits", JobStatus.PENDING))), "digits")


def test_a_mistake_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(job: str) -> None:
        raise RuntimeError("Request failed with status code 404:\nJob x does not exist.")

    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(submit, "_client", lambda address: SimpleNamespace(stop_job=refuse))
    assert submit.main(["--stop", "x"]) == 2
    assert capsys.readouterr().err == "Request failed with status code 404: Job x does not exist.\n"


def test_a_refused_submission_leaves_the_parameters_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    shutil.copytree(root / "conf", tmp_path / "conf")
    before = (root / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(before)
    monkeypatch.chdir(tmp_path)
    busy = Server(jobs=(details("digits", JobStatus.RUNNING),))
    monkeypatch.setattr(submit, "_client", lambda address: busy)
    assert submit.main(["-S", "training.iterations=700"]) == 2
    assert "job one of digits is at work" in capsys.readouterr().err
    assert (tmp_path / "params.yaml").read_bytes() == before
    composed: list[str] = []
    monkeypatch.setattr(submit, "_submit", lambda *_: composed.append(Path("params.yaml").read_text()) or "two")
    assert submit.main(["-S", "training.iterations=700", "--beside", "--detach"]) == 0
    assert "iterations: 700" in composed[0]
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == composed[0], "as `dvc exp run -S` leaves it"


def test_outside_a_clone_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match=r"git ls-files failed: .*not a git repository"):
        submit.pack(tmp_path / "code")
