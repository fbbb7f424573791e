"""A serving process of a registered model, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.processes import free_ports

JSON = {"Content-Type": "application/json"}


@contextmanager
def serving(words: list[str], tracking: str, folder: Path) -> Iterator[int]:
    """The port of `python -m <words> --host … --port …`, once it answers; killed as the block ends."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", *words, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    log = folder / f"serve-{port}.log"
    with open(log, "wb") as opened:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=opened, stderr=opened, start_new_session=True
        )
    try:
        _wait(port, process, log)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def send(
    port: int, body: bytes, headers: Mapping[str, str], path: str = "/invocations", method: str = "POST"
) -> tuple[int, bytes]:
    """A request's status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def post(port: int, body: Any) -> tuple[int, Any]:
    """The status, and the predictions or the reason why there are none."""
    status, answer = send(port, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON)
    return status, json.loads(answer)["predictions"] if status == 200 else answer.decode()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if send(port, b"", {}, "/ping", "GET")[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(log.read_text())
