"""Processes that outlive the command that started them: with a log, found again, stopped with their children."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

SECONDS_TO_END = 15
SECONDS_FOR_THE_REST = 3
LINES_SHOWN = 25


class StartError(RuntimeError):
    """A part did not come up; the message has the end of its log."""


def start(name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Start `command` in a session of its own, writing to `folder`/logs/`name`.log; the record by which it is known."""
    path = folder / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return {"pid": process.pid, "created": created(process.pid)}


def created(pid: int) -> str | None:
    """When a process began, by the system's boot and its clock ticks since: no correction of the time changes it.

    None where there is no such process, or no /proc.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()} {fields[19]}"
    except (FileNotFoundError, ProcessLookupError):
        return None


def find(record: Mapping[str, Any] | None) -> psutil.Process | None:
    """The process of a record, if it lives; another that has its number by now is not taken for it."""
    if record is None:
        return None
    try:
        process = psutil.Process(record["pid"])
        return (
            process if created(process.pid) == record["created"] and process.status() != psutil.STATUS_ZOMBIE else None
        )
    except psutil.NoSuchProcess:
        return None


def stop(*records: Mapping[str, Any] | None) -> list[bool]:
    """End the processes, all at once, and their descendants, by force if need be; which of them lived.

    Each is asked itself, and ends its children as it sees fit; what is left of these is asked then.
    """
    found = [find(record) for record in records]
    living = [process for process in found if process is not None]
    children = [child for process in living for child in process.children(recursive=True)]
    for asked, seconds in ((living, SECONDS_TO_END), (children, SECONDS_FOR_THE_REST)):
        for one in asked:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        psutil.wait_procs(asked, timeout=seconds)
    for one in (*living, *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs([*living, *children], timeout=SECONDS_TO_END)
    return [process is not None for process in found]


def wait_until(
    ready: Callable[[], bool], name: str, record: Mapping[str, Any], folder: Path, seconds: float = 120
) -> None:
    """Wait until `ready()`; StartError with the end of the log when the process ends before, or in `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        dead = find(record) is None
        if dead or time.monotonic() > deadline:
            log = folder / "logs" / f"{name}.log"
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_SHOWN:]
            reason = "ended" if dead else f"did not answer within {seconds:.0f} s"
            raise StartError(f"{name} {reason}; {log} ends with\n" + "\n".join(lines))
        time.sleep(0.2)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def port(wanted: int, usual: int) -> int:
    """The port asked for; for 0 the usual one, or any free one where that is taken."""
    if wanted:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else ports of closed connections seem taken
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return free_ports(1)[0]
    return usual


def environment_without(*prefixes: str) -> dict[str, str]:
    """This process's environment, less the variables that begin so."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
