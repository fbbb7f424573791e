"""What a job brings back: whole, verified, and never over what was changed meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from s3fs import S3FileSystem

from infra import delivery
from infra.delivery import DeliveryError
from infra.processes import free_ports
from pipeline import storage
from pipeline.storage import Retry

pytestmark = pytest.mark.slow

RESULTS = {
    "results/errors.json": "cat source.txt > results/errors.json",
    "results/tables": "mkdir -p results/tables; cp source.txt results/tables/$(cat source.txt).csv",
}
STAGE = {
    "cmd": ["mkdir -p results && rm -rf results/tables", *RESULTS.values(), "cp source.txt model.bin"],
    "deps": ["source.txt"],
    "outs": ["model.bin", *({path: {"cache": False}} for path in RESULTS)],
}


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """A clone in which the stage ran with the text 'old', and another for the job."""
    here = tmp_path / "here"
    here.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=here, check=True)
    (here / "source.txt").write_text("old", encoding="utf-8")
    stages = {"train": STAGE, "other": {"cmd": "true", "deps": ["source.txt"]}}
    (here / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=here, check=True)
    shutil.copytree(here, tmp_path / "there")
    return here, tmp_path / "there"


def run_job(there: Path, place: str, monkeypatch: pytest.MonkeyPatch, params: str | None = None) -> None:
    monkeypatch.chdir(there)
    base = delivery.base()
    (there / "source.txt").write_text("new", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "-s", "train"], check=True)
    delivery.send(place, ["train"], base=base, params=params)


def test_results_and_lock_entries_arrive_and_others_stay(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clones
    place = str(tmp_path / "place")
    monkeypatch.chdir(here)
    with pytest.raises(DeliveryError, match="delivered nothing yet"):
        delivery.receive(place)
    run_job(there, place, monkeypatch)
    before = yaml.safe_load((here / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    monkeypatch.chdir(here)
    (here / "source.txt").write_text("new", encoding="utf-8")
    assert delivery.receive(place) == ["train"]
    assert (here / "results/errors.json").read_text(encoding="utf-8") == "new"
    assert [path.name for path in (here / "results/tables").iterdir()] == ["new.csv"], "what is no longer there goes"
    after = yaml.safe_load((here / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    theirs = yaml.safe_load((there / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert after == {"train": theirs["train"], "other": before["other"]}
    assert delivery.receive(place) == ["train"], "again, the same"


def test_an_empty_folder_arrives_too(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clones
    run_job(there, str(tmp_path / "place"), monkeypatch)
    shutil.rmtree("results/tables")
    Path("results/tables").mkdir()
    delivery.send(str(tmp_path / "place"), ["train"], base={})
    monkeypatch.chdir(here)
    shutil.rmtree("results/tables")
    delivery.receive(str(tmp_path / "place"), force=True)
    assert Path("results/tables").is_dir()
    assert list(Path("results/tables").iterdir()) == []


def test_a_place_of_an_unknown_kind_is_a_deliverys_error() -> None:
    with pytest.raises(DeliveryError, match=r"^ess3://bucket/jobs/x: "):
        delivery.receive("ess3://bucket/jobs/x")


def test_what_was_changed_here_meanwhile_is_not_overwritten(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clones
    place = str(tmp_path / "place")
    run_job(there, place, monkeypatch)
    monkeypatch.chdir(here)
    (here / "results/errors.json").write_text("mine", encoding="utf-8")
    lock = (here / "dvc.lock").read_bytes()
    with pytest.raises(DeliveryError, match=r"results/errors\.json"):
        delivery.receive(place)
    assert (here / "results/errors.json").read_text(encoding="utf-8") == "mine"
    assert (here / "dvc.lock").read_bytes() == lock
    delivery.receive(place, force=True)
    assert (here / "results/errors.json").read_text(encoding="utf-8") == "new"


def test_neither_are_parameters_nor_lock_entries(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clones
    for clone in clones:
        (clone / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    place = str(tmp_path / "place")
    run_job(there, place, monkeypatch, params="seed: 2\n")
    monkeypatch.chdir(here)
    (here / "params.yaml").write_text("seed: 3\n", encoding="utf-8")
    (here / "source.txt").write_text("mine", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "-s", "train"], check=True)
    before = (here / "dvc.lock").read_bytes()
    with pytest.raises(DeliveryError, match=r"dvc\.lock: train, params\.yaml; `--force`"):
        delivery.receive(place)
    assert (here / "params.yaml").read_text(encoding="utf-8") == "seed: 3\n"
    assert (here / "dvc.lock").read_bytes() == before
    delivery.receive(place, force=True)
    assert (here / "params.yaml").read_text(encoding="utf-8") == "seed: 2\n"


def test_s3_that_does_not_answer_is_a_deliverys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "read_bytes", lambda url: storage.read_bytes(url, Retry(attempts=1)))
    for name, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}", "AWS_ACCESS_KEY_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(DeliveryError, match=r"s3://bucket/jobs/x/delivery\.json: cannot be read: .*connect"):
        delivery.receive("s3://bucket/jobs/x")
    S3FileSystem.clear_instance_cache()


def test_the_lock_file_is_not_read_while_a_stage_writes_it(
    clones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(clones[0])
    whole = Path("dvc.lock").read_text(encoding="utf-8")
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(delivery.finished(["train"])[1]), daemon=True)
    with Repo() as repo, repo.lock:
        Path("dvc.lock").write_text("", encoding="utf-8")
        reader.start()
        reader.join(3)
        assert not found
        Path("dvc.lock").write_text(whole, encoding="utf-8")
    reader.join(60)
    assert found == [{"train": yaml.safe_load(whole)["stages"]["train"]}]


def test_damage_on_the_way_is_noticed_and_nothing_is_written(
    clones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clones
    place = tmp_path / "place"
    run_job(there, str(place), monkeypatch)
    note = json.loads((place / delivery.NOTE).read_text(encoding="utf-8"))
    (place / note["files"]["results/errors.json"]).write_text("nex", encoding="utf-8")
    monkeypatch.chdir(here)
    with pytest.raises(DeliveryError, match="not what the job sent"):
        delivery.receive(str(place))
    assert (here / "results/errors.json").read_text(encoding="utf-8") == "old"
    assert [path.name for path in (here / "results/tables").iterdir()] == ["old.csv"]
