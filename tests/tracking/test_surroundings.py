"""What surrounds a run, from real git repositories and lock files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import mlflow
import pytest

from infra import submit
from pipeline.stage import Stage
from pipeline.storage import sha256_file, write_json
from pipeline.tracking import store, surroundings
from pipeline.tracking.surroundings import Surroundings
from stages import train
from tests.tracking.test_runs import begin


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a repository with code, and a file that isn't code."""
    folder = tmp_path / "repository"
    (folder / "pipeline").mkdir(parents=True)
    for name in ("pipeline", "stages", "conf"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a.py").write_text("A = 1\n")
    for name in ("dvc.yaml", "requirements.txt", "notes.txt"):
        (folder / name).write_text("one\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    monkeypatch.chdir(folder)
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    return folder


def test_a_clean_tree_has_no_patch(repository: Path) -> None:
    (repository / "notes.txt").write_text("not code\n")
    assert surroundings.git_patch() == ""


def test_the_patch_makes_the_dirty_tree_of_the_commit(repository: Path, tmp_path: Path) -> None:
    (repository / "pipeline" / "a.py").write_text("A = 2\n")
    (repository / "pipeline" / "new.py").write_text("B = 3\n")
    (repository / "stages" / "a.py").unlink()
    (repository / "notes.txt").write_text("password\n")
    patch = surroundings.git_patch()
    assert "password" not in patch
    clean = tmp_path / "clean"
    git(tmp_path, "clone", "-q", str(repository), str(clean))
    (tmp_path / "code.patch").write_text(patch)
    git(clean, "apply", str(tmp_path / "code.patch"))
    assert (clean / "pipeline" / "a.py").read_text() == "A = 2\n"
    assert (clean / "pipeline" / "new.py").read_text() == "B = 3\n"
    assert not (clean / "stages" / "a.py").exists()


def test_a_patch_that_is_too_long_is_cut_and_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_LONGEST_PATCH", 200)
    (repository / "pipeline" / "a.py").write_text("A = 1  # more than there was\n" * 40)
    patch = surroundings.git_patch()
    assert patch.startswith("diff --git a/pipeline/a.py")
    assert len(patch.partition("\n# cut here: ")[0]) == 200
    assert patch.endswith(" characters\n")


def test_without_a_repository_there_is_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert surroundings.git_patch() == ""


def test_a_submitted_job_has_the_patch_of_what_travels_with_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "pipeline" / "a.py").write_text("A = 2\n")
    (repository / "pipeline" / "new.py").write_text("B = 3\n")
    submit.pack(tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert Path("pipeline/a.py").read_text() == "A = 2\n"
    assert not Path("pipeline/new.py").exists()
    patch = surroundings.git_patch()
    assert "+A = 2" in patch
    assert "new.py" not in patch


def test_what_a_training_happens_in_is_kept_with_its_model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "pipeline" / "a.py").write_bytes(b"A = 2\r\n")
    monkeypatch.setenv("DVC_STAGE", "train@digits-resnet20-s3")
    found = Surroundings.here({"ray.job_id": "01", "ray.nothing": None})
    assert "ray.nothing" not in found.tags
    trained, provenance = repository / "trained", {"parameters": {}}
    write_json(
        trained / "train.json",
        {"precision": "fp32", "hardware": {}, "workers": 1, "sittings": [], "seed": 3, "wall_seconds": 1},
    )
    at = cast(Stage, SimpleNamespace(experiment="digits", run="resnet20-s3"))
    train._write_model(at, trained, "0a1b", provenance, found)
    folder = repository / "models" / "digits" / "resnet20-s3"
    monkeypatch.setenv("DVC_STAGE", "evaluate@digits-resnet20-s3")
    kept = Surroundings.load(folder)
    assert kept == found
    assert (kept.tags["dvc.stage"], kept.tags["ray.job_id"]) == ("train@digits-resnet20-s3", "01")
    assert b"+A = 2\r\n" in kept.files["code.patch"]
    assert b"mlflow==" in kept.files["packages.txt"]
    assert Surroundings.load(trained) == Surroundings({}), "of a training that kept none"


def test_a_clone_has_one_mark_and_a_named_storage_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        marks += [surroundings.checkpoints_tag(None) for _ in range(2)]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    assert surroundings.checkpoints_tag("s3://bucket/x") == "s3://bucket/x"


def test_a_submitted_ray_job_and_the_lock_are_tags(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not {"ray.submission_id", "dvc.lock"} & set(surroundings.surrounding_tags())
    (repository / "dvc.lock").write_bytes(b"schema: '2.0'\n")
    job = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_x1", "job_name": "digits"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    found = surroundings.surrounding_tags()
    assert found["ray.submission_id"] == "raysubmit_x1"
    assert found["dvc.lock"] == sha256_file("dvc.lock")
    for broken in ("{", "[]", '{"metadata": null}'):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", broken)
        assert surroundings.ray_submission() is None


def test_the_lock_tells_which_stage_made_an_output(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert surroundings.locked_output(Path("models/digits/x"), lock) == {}
    lock.write_text(
        "schema: '2.0'\nstages:\n  train@digits-x:\n    cmd: python\n    outs:\n"
        "    - path: models/digits/x\n      md5: 0abc.dir\n  empty:\n    cmd: true\n"
    )
    assert surroundings.locked_output(Path("models/digits/x"), lock) == {
        "dvc.stage": "train@digits-x",
        "dvc.md5": "0abc.dir",
    }
    assert surroundings.locked_output(Path("models/digits/y"), lock) == {}


def test_packages_are_those_installed() -> None:
    lines = surroundings.installed_packages().splitlines()
    assert f"mlflow=={importlib.metadata.version('mlflow')}" in lines
    assert lines == sorted(set(lines), key=str.lower)


def test_a_run_keeps_its_patch_its_packages_and_its_first_lock(tracking: str, repository: Path) -> None:
    (repository / "dvc.lock").write_text("one")
    (repository / "pipeline" / "a.py").write_text("A = 2\n")
    training = begin(surroundings=Surroundings.here({"ray.job_id": "01"}))
    (repository / "pipeline" / "a.py").write_text("A = 3\n")
    assert training.finish("KILLED", limit=60)
    tags = store.client().get_run(str(training.run_id)).data.tags
    first = tags["dvc.lock"]
    assert tags["ray.job_id"] == "01"
    assert "+A = 2" in mlflow.artifacts.load_text(f"runs:/{training.run_id}/code.patch")
    assert "mlflow==" in mlflow.artifacts.load_text(f"runs:/{training.run_id}/packages.txt")
    (repository / "dvc.lock").write_text("two")
    assert begin().finish(limit=60)
    assert store.client().get_run(str(training.run_id)).data.tags["dvc.lock"] == first
