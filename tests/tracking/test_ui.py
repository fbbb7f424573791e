"""The pages of the store at hand, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.tracking import store, ui

REPOSITORY = Path(__file__).parents[2]


def test_a_server_needs_none(tracking: str) -> None:
    with pytest.raises(ValueError, match="is a server; open it in a browser"):
        ui.command("http://127.0.0.1:5000")


@pytest.mark.slow
def test_the_pages_show_the_store_at_hand(tracking: str) -> None:
    store.experiment_id("digits")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking}
    command = [sys.executable, "-m", "pipeline.tracking.ui", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True)
    try:
        assert "digits" in _experiments(port, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _experiments(port: int, process: subprocess.Popen[bytes]) -> list[str]:
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=10"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return [experiment["name"] for experiment in json.load(response)["experiments"]]
        except OSError:
            time.sleep(0.3)
    raise RuntimeError("the pages did not come up")
