"""The newcomer's commands and the papers of the repository: pins, make targets, CI, citation."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.pins import LINUX, MACOS, parse_pins, pin_line

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"[a-z0-9][a-z0-9-]*==[^ ;@/]+( ; sys_platform == \"linux\")?")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def declared() -> list[Requirement]:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


def test_pins_are_names_versions_and_markers_alone() -> None:
    lines = [line for line in read("requirements.txt").splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = parse_pins(read("requirements.txt"))
    outside = [str(r) for r in declared() if not r.specifier.contains(pins[canonicalize_name(r.name)])]
    assert outside == []


def test_what_needs_an_nvidia_card_is_for_linux_alone() -> None:
    requirements = [Requirement(line) for line in read("requirements.txt").splitlines() if not line.startswith("#")]
    here = {r.name for r in requirements if r.marker is None or r.marker.evaluate(LINUX)}
    there = {r.name for r in requirements if r.marker is None or r.marker.evaluate(MACOS)}
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in here - there)
    assert {"torch", "ray", "mlflow", "dvc"} <= there
    assert not any(name.startswith("nvidia-") for name in there)


def test_pins_lose_the_place_that_a_wheel_came_from() -> None:
    text = (
        "--find-links /somewhere\n"
        "# a comment\n"
        "Ruamel.YAML==0.18.6    # via dvc\n"
        "torch @ file:///wheels/torch-2.9.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl#sha256=00\n"
    )
    assert parse_pins(text) == {"ruamel-yaml": "0.18.6", "torch": "2.9.0+cpu"}
    assert pin_line("triton", "3.5.0", linux_only=True) == 'triton==3.5.0 ; sys_platform == "linux"\n'


def test_help_lists_every_target() -> None:
    ended = make(ROOT, "help")
    assert ended.returncode == 0
    listed = re.findall(r"^  make (\S+) +\S", ended.stdout, flags=re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(phony[1].split())
    assert {"setup", "check", "test", "reproduce", "bench", "ui", "plots", "pins", "clean", "distclean"} <= set(listed)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and pins of two packages that every environment has."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("pip\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_second_setup_does_nothing_until_the_pins_change(clone: Path) -> None:
    first = make(clone, "setup", f"PYTHON={sys.executable}")
    assert first.returncode == 0, first.stderr
    assert "Setting up .venv" in first.stdout
    assert (clone / ".venv/bin/python").exists()
    assert make(clone, "--question", "setup").returncode == 0
    (clone / "requirements.txt").write_text("pip>=1\n", encoding="utf-8")
    later = (clone / ".venv/.ready").stat().st_mtime + 5
    os.utime(clone / "requirements.txt", (later, later))
    assert make(clone, "--question", "setup").returncode == 1


@pytest.mark.slow
def test_failed_setup_is_not_taken_for_a_finished_one(clone: Path) -> None:
    (clone / "requirements.txt").write_text("./no-such-package\n", encoding="utf-8")
    ended = make(clone, "setup", f"PYTHON={sys.executable}")
    assert ended.returncode != 0
    assert "no-such-package" in ended.stderr
    assert make(clone, "--question", "setup").returncode == 1


def test_python_that_is_too_old_is_refused_in_words(clone: Path) -> None:
    old = clone / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    ended = make(clone, "setup", f"PYTHON={old}")
    assert ended.returncode != 0
    assert f"Python 3.11 or newer is needed; '{old}' is Python 3.9.2." in ended.stderr
    assert not (clone / ".venv").exists()


def test_ci_runs_the_newcomers_test_command() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0
    assert re.search(r"^make test\b", read(".ci/run"), flags=re.MULTILINE)
    assert "set -euo pipefail" in read(".ci/run")
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make check", "bash .ci/run"} <= set(commands)


def test_hooks_use_the_environments_tools() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])


def test_citation_names_this_software_and_the_paper() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["He", "Zhang", "Ren", "Sun"]
    assert read("LICENSE").startswith("MIT License")


def ignored(*paths: str) -> set[str]:
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    text = "\n".join(paths)
    ended = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return set(ended.stdout.split())


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git clone")
def test_results_are_committed_and_what_dvc_and_mlflow_keep_is_not() -> None:
    kept_out = {".venv/bin/python", "data/digits/manifest.json", "models/digits/resnet20-s0/weights.safetensors"}
    kept_out |= {"predictions/digits/x.npz", "checkpoints/a", "mlflow.db", "mlflow.db-wal", "mlartifacts/1/a"}
    kept_out |= {"pipeline/__pycache__/a.pyc"}
    committed = {"results/digits/metrics.json", "results/digits/report.html", "dvc.lock", "params.yaml"}
    # Folders of code that share a name with one of the outputs.
    committed |= {"pipeline/data/store.py", "pipeline/models/zoo.py", "tests/data/test_store.py"}
    assert ignored(*kept_out, *committed) == kept_out
