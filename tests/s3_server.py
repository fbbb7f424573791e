"""A real S3 server (SeaweedFS) on loopback, for the tests that need one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from infra import parts, processes

BUCKET = "tests"


@dataclass
class S3Server:
    """One server with one bucket; it keeps its data when it is stopped and started again."""

    folder: Path
    access_key: str = "tests-access-key"
    secret_key: str = "tests-secret-key"
    bucket: str = BUCKET
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The variables by which clients find the server and its keys."""
        keys = parts.Keys(self.access_key, self.secret_key).environment()
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": parts.REGION}

    def start(self) -> None:
        """Start it and wait until it answers; RuntimeError with its log when it does not.

        The first time at any port: another one is tried where somebody took the port meanwhile.
        """
        if self.port:
            return self._start()
        for _ in range(3):
            self.port = processes.free_ports(1)[0]
            try:
                return self._start()
            except RuntimeError as error:
                if "address already in use" not in str(error):
                    raise
        raise RuntimeError("the S3 server did not start: each port was taken before it could be")

    def _start(self) -> None:
        program = weed()
        assert program is not None
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        log = open(self.folder / "weed.log", "ab")  # noqa: SIM115 — the server goes on writing to it
        self.process = subprocess.Popen(self._command(program), stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 400
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the S3 server did not start:\n{(self.folder / 'weed.log').read_text()[-3000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _command(self, program: str) -> list[str]:
        config = self.folder / "s3.json"
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": [keys], "actions": actions}]}), encoding="utf-8"
        )
        inner = dict(zip(parts.WEED_PORTS, processes.free_ports(len(parts.WEED_PORTS)), strict=True))
        data = str(self.folder / "data")
        command = parts.weed_command(program, data, str(config), self.port, inner, "127.0.0.1")
        return [*command, f"-bucket={self.bucket}"]

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/{self.bucket}", timeout=1)
        except urllib.error.HTTPError as error:
            return error.code == 403  # it has read its keys, and the bucket is not public
        except OSError:
            return False
        return True


def weed() -> str | None:
    """The server's program, where it is installed."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
