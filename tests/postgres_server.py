"""A real PostgreSQL server on loopback, as Debian and others package it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.processes import free_ports

PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian has the servers' programs, a folder a version; they are not on the PATH."""


def programs() -> Path | None:
    """The folder of initdb and postgres: the newest packaged version's, or the PATH's; None where there is none."""
    packaged = sorted(PACKAGED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(packaged[-1]) if packaged else shutil.which("initdb")
    return Path(found).parent if found else None


class PostgresServer:
    """A database cluster in a folder of its own; the server runs as another user where this one is root."""

    def __init__(self, user: str = "mlflow") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._password = secrets.token_hex(8)
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # as which PostgreSQL refuses to run
            owner = _unprivileged()
            shutil.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.port = free_ports(1)[0]
        self.uri = f"postgresql://{user}:{self._password}@127.0.0.1:{self.port}/postgres"
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cluster, start the server, and wait until it takes connections."""
        bin_folder = programs()
        assert bin_folder is not None, "skip where there are no programs"
        password = self.folder / "password"
        password.write_text(self._password)
        password.chmod(0o644)
        data, log = self.folder / "data", self.folder / "log"
        words = [bin_folder / "initdb", "-D", data, "-U", self._user, "-A", "scram-sha-256", "--pwfile", password]
        subprocess.run(
            [*words, "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, **self._where()
        )
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with open(log, "wb") as opened:
            self._process = subprocess.Popen(
                [bin_folder / "postgres", "-D", data, *given], stdout=opened, stderr=opened, **self._where()
            )
        deadline = time.monotonic() + 400
        while not self._answers(bin_folder):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # without waiting for clients, unlike SIGTERM
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self, bin_folder: Path) -> bool:
        words = [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(words, check=False).returncode == 0

    def _where(self) -> dict[str, Any]:
        return {"cwd": self.folder, **self._as}


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    sys.exit("no user postgres or nobody to run PostgreSQL as")
