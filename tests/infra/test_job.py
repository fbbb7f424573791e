"""A job's command: refused without a place in S3; stages that an earlier job finished are not run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra import delivery, job
from infra.job import Courier, write_dvc_config
from infra.parallel import plan, run_stages
from infra.processes import free_ports

STAGES = {
    "prepare": {
        "cmd": "echo prepare >> ran.log; mkdir data; cp source.txt data/a",
        "deps": ["source.txt"],
        "outs": ["data"],
    },
    "train": {"cmd": "echo train >> ran.log; cp data/a model.bin", "deps": ["data"], "outs": ["model.bin"]},
}


def dvc(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True)


def clone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.chdir(folder)
    dvc("init", "-q", "--no-scm")
    Path("source.txt").write_text("images", encoding="utf-8")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}), encoding="utf-8")


def test_without_a_place_in_s3_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESNET_S3", raising=False)
    assert job.main([]) == 2
    assert capsys.readouterr().err.startswith("RESNET_S3 is not set on the cluster's head: models, checkpoints and")


@pytest.mark.slow
def test_a_job_submitted_again_finds_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESNET_S3", str(tmp_path / "bucket"))
    place = delivery.place_of(str(tmp_path / "bucket"), "job")
    for name, expected in (("first", ["prepare", "train"]), ("again", [])):
        clone(tmp_path / name, monkeypatch)
        assert write_dvc_config() == "cluster"
        courier = Courier(place, delivery.base(), None)
        assert courier.fetch()
        outcome = run_stages(plan(), 2, {}, ["--pull"], courier.deliver)
        assert outcome.finished == ["prepare", "train"]
        assert courier.finish()
        ran = Path("ran.log").read_text(encoding="utf-8").split() if Path("ran.log").exists() else []
        assert (ran, Path("model.bin").read_text(encoding="utf-8")) == (expected, "images")
    assert delivery.receive(place) == ["prepare", "train"]


@pytest.mark.slow
def test_a_remote_that_cannot_be_read_ends_the_job_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "PAUSES", ())
    monkeypatch.setenv("RESNET_S3", "s3://bucket")
    away = {"ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in away.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    clone(tmp_path / "clone", monkeypatch)
    write_dvc_config()
    dvc("repro", "-q")
    for path in (".dvc/cache/files", "data"):
        subprocess.run(["rm", "-rf", path], check=True)
    assert not Courier("memory://jobs", {}, None).fetch()
    assert "DVC's remote can't be read, so nothing is run" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["s3://bucket", "s3://bucket/"])
def test_checkpoints_lie_beside_deliveries(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNET_S3", place)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "")
    Path("params.yaml").write_text("cluster: {storage: null}\n", encoding="utf-8")
    job.settle(None)
    assert yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["cluster"]["storage"] == (
        "s3://bucket/checkpoints"
    )
    assert delivery.place_of(place, "x") == "s3://bucket/jobs/x"


@pytest.mark.slow
def test_a_target_that_dvc_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone(tmp_path / "clone", monkeypatch)
    with pytest.raises(ValueError, match=r"nosuch: .*nosuch"):
        plan(["nosuch"])


def test_a_delivery_that_fails_for_any_reason_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("no entry")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(delivery, "send", fail)
    monkeypatch.setattr(job, "_dvc", lambda *words: 0)
    courier = Courier("s3://bucket/jobs/x", {}, None)
    courier.deliver("train")
    assert capsys.readouterr().err == "s3://bucket/jobs/x: not delivered yet: no entry\n"
    sent: list[list[str]] = []
    monkeypatch.setattr(delivery, "send", lambda place, stages, **_: sent.append(list(stages)))
    courier.deliver("evaluate")
    assert sent == [["train", "evaluate"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tracked", "local", "remote", "default"),
    [(None, None, "cluster", "cluster"), ("team", None, "team", "team"), (None, "mine", "cluster", "mine")],
)
def test_the_remote_is_named_beside_a_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracked: str | None, local: str | None, remote: str, default: str
) -> None:
    from dvc.config import Config

    monkeypatch.setenv("RESNET_S3", "s3://bucket")
    clone(tmp_path / "clone", monkeypatch)
    if tracked:
        dvc("remote", "add", "-q", "-d", tracked, "s3://team/dvc")
    if local:
        dvc("remote", "add", "-q", "-d", "--local", local, "s3://mine/dvc")
    for _ in range(2):
        assert write_dvc_config() == remote
    config = Config.from_cwd()
    assert (config["core"]["remote"], config["remote"]["cluster"]["url"]) == (default, "s3://bucket/dvc")
