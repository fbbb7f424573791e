"""Processes that are found again and stopped, and no others."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import psutil
import pytest

from infra import processes


@pytest.mark.slow
def test_a_process_and_its_children_are_stopped_by_its_record(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '300']); print(child.pid, flush=True); child.wait()"
    )
    record = processes.start("part", [sys.executable, "-c", code], os.environ, tmp_path)
    log = tmp_path / "logs/part.log"
    processes.wait_until(lambda: log.read_text(encoding="utf-8").strip() != "", "part", record, tmp_path)
    child = psutil.Process(int(log.read_text(encoding="utf-8")))
    assert processes.find(record) is not None
    assert processes.stop(record) == [True]
    assert processes.find(record) is None
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert processes.stop(record, None) == [False, False], "a second time there is nothing to stop"


def test_another_process_of_the_same_number_is_left_alone() -> None:
    boot, _, ticks = str(processes.created(os.getpid())).partition(" ")
    record = {"pid": os.getpid(), "created": f"{boot} {int(ticks) - 1}"}
    assert processes.find(record) is None
    assert processes.stop(record) == [False]
    assert processes.find(None) is None
    assert processes.find({"pid": os.getpid(), "created": f"{boot} {ticks}"}) is not None


def test_a_part_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    record = processes.start("part", [sys.executable, "-c", "raise SystemExit('no such disk')"], os.environ, tmp_path)
    with pytest.raises(processes.StartError, match=r"part ended; .*part\.log ends with\nno such disk"):
        processes.wait_until(lambda: False, "part", record, tmp_path)


def test_a_taken_port_is_passed_over_unless_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        usual = taken.getsockname()[1]
        assert processes.port(0, usual) != usual
        assert processes.port(4321, usual) == 4321
