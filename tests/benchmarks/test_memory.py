"""Private memory of several processes together."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from benchmarks.clone import marked, processes
from benchmarks.memory import Peak

HOLD = "import sys; held = b'x' * (int(sys.argv[1]) << 20); print('ready', flush=True); sys.stdin.read()"


def test_memory_of_all_marked_processes_is_added_up() -> None:
    peak = Peak()
    with marked() as environment:
        mark = environment["RESNET_BENCHMARK"]
        held = [_holding(megabytes, environment) for megabytes in (40, 60)]
        try:
            assert {process.pid for process in processes(mark)} == {process.pid for process in held}
            peak.look([psutil.Process(process.pid) for process in held])
        finally:
            for process in held:
                process.communicate()
        peak.look(processes(mark))
    assert 100 * 2**20 < peak.private < 200 * 2**20
    assert sum(peak.by_process.values()) == peak.private


def test_what_runs_by_itself_uses_no_cluster_of_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ("RAY_ADDRESS", "RAY_AUTH_MODE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "RESNET_S3", "RESNET_CACHE")
    for name in (*foreign, "RESNET_TEST_DATA"):
        monkeypatch.setenv(name, "the shell's")
    with marked() as environment:
        assert environment == dict(os.environ)
        assert not set(foreign) & set(environment)
        assert environment["RESNET_TEST_DATA"] == "the shell's"
        assert environment["RESNET_BENCHMARK"]
    assert {os.environ[name] for name in foreign} == {"the shell's"}
    assert "RESNET_BENCHMARK" not in os.environ


def _holding(megabytes: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(megabytes)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process
