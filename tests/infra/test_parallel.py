"""Stages at once, through DVC itself: a small repository of real stages, no Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from infra.parallel import plan, run_stages
from infra.reproduce import _parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MEET = "for i in $(seq 600); do [ -e {other} ] && exit 0; sleep 0.1; done; exit 1"
STAGES = {
    "first": {"cmd": "echo 1 > first.txt", "deps": ["source.txt"], "outs": ["first.txt"]},
    # Each ends only once the other has begun: one after another, both would fail.
    "left": {
        "cmd": f"echo l > left.txt; touch l; ({MEET.format(other='r')})",
        "deps": ["first.txt"],
        "outs": ["left.txt"],
    },
    "right": {
        "cmd": f"echo r > right.txt; touch r; ({MEET.format(other='l')})",
        "deps": ["first.txt"],
        "outs": ["right.txt"],
    },
    "both": {"cmd": "cat left.txt right.txt > both.txt", "deps": ["left.txt", "right.txt"], "outs": ["both.txt"]},
    "broken": {"cmd": "test -e mended && echo ok > broken.txt", "deps": ["first.txt"], "outs": ["broken.txt"]},
    "after": {"cmd": "cp broken.txt after.txt", "deps": ["broken.txt"], "outs": ["after.txt"]},
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    (tmp_path / "source.txt").write_text("1\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}, sort_keys=False), encoding="utf-8")
    return tmp_path


def locked(repository: Path) -> set[str]:
    return set(yaml.safe_load((repository / "dvc.lock").read_text(encoding="utf-8"))["stages"])


def test_independent_stages_run_at_once_and_a_failure_holds_up_only_what_depends_on_it(repository: Path) -> None:
    needs = plan()
    assert set(needs) == set(STAGES)
    assert needs["both"] == {"first", "left", "right"}
    finished: list[str] = []
    outcome = run_stages(needs, 2, {}, on_finished=finished.append)
    assert set(outcome.finished) == set(finished) == {"first", "left", "right", "both"}
    assert (outcome.failed, outcome.skipped, outcome.code) == (["broken"], ["after"], 1)
    assert locked(repository) == {"first", "left", "right", "both"}
    assert (repository / "both.txt").read_text(encoding="utf-8") == "l\nr\n"

    assert set(plan()) == {"broken", "after"}, "DVC's own record tells what is done"
    (repository / "mended").touch()
    assert run_stages(plan(), 2, {}).code == 0
    assert locked(repository) == set(STAGES)
    assert plan() == {}
    assert set(plan(force=True)) == set(STAGES)
    assert set(plan(["after"], force=True)) == {"first", "broken", "after"}
    (repository / "left.txt").unlink()
    assert set(plan()) == {"left", "both"}


def write(repository: Path, stages: dict[str, str]) -> None:
    tree = {"stages": {name: {"cmd": command} for name, command in stages.items()}}
    (repository / "dvc.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")


def test_what_ends_the_launcher_ends_its_stages_all_at_once(repository: Path) -> None:
    def end(stage: str) -> None:
        raise SystemExit(143)

    # Told to end, each waits ten seconds for the other to be told; the launcher waits twenty for each to end.
    meet = "for i in $(seq 100); do [ -e told-{other} ] && touch met-{me} && exit 1; sleep 0.1; done; exit 1"
    slow = f"trap 'touch told-{{me}}; {meet}' TERM; echo $$ > {{me}}; while :; do sleep 0.1; done"
    write(
        repository,
        {
            "quick": "while ! [ -s one ] || ! [ -s two ]; do sleep 0.1; done",
            "one": slow.format(me="one", other="two"),
            "two": slow.format(me="two", other="one"),
        },
    )
    with pytest.raises(SystemExit):
        run_stages({"one": set(), "two": set(), "quick": set()}, 3, {}, on_finished=end)
    for name in ("one", "two"):
        assert (repository / f"met-{name}").exists(), "both were told before either had ended"
        with pytest.raises(ProcessLookupError):
            os.kill(int((repository / name).read_text(encoding="utf-8")), 0)


def test_a_stage_that_ctrl_c_reached_is_not_told_a_second_time(repository: Path) -> None:
    told = "trap 'echo TERM >> told' TERM; trap 'echo INT >> told; sleep 2; touch ended; exit 1' INT"
    write(repository, {"slow": f"{told}; touch begun; while :; do sleep 0.1; done"})
    launcher = subprocess.Popen(
        [sys.executable, "-c", "from infra.parallel import run_stages; run_stages({'slow': set()}, 1, {})"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 400
    while not (repository / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
    assert launcher.wait(60) != 0
    assert (repository / "told").read_text(encoding="utf-8") == "INT\n"
    assert (repository / "ended").exists(), "its end was waited for"


def test_the_launchers_own_option_is_taken_out_of_dvcs() -> None:
    choices, rest = _parse(["-j", "3", "--force", "train@digits-plain20-s0"])
    assert (choices.jobs, rest) == (3, ["--force", "train@digits-plain20-s0"])
    assert _parse(["-j2"])[0].jobs == 2
    assert _parse(["--downstream"])[0].jobs == 1
    with pytest.raises(SystemExit):
        _parse(["-j", "0"])
