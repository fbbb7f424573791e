"""Where a figure comes from: parameters, code, data, packages, hardware, time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "pillow", "ray", "mlflow", "dvc")
CODE = ("pipeline", "stages", "conf", "dvc.yaml", "requirements.txt")


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def gather_provenance(parameters: dict[str, Any], data_digest: str, started: datetime, **more: Any) -> dict[str, Any]:
    """The record that goes with every figure; `more` adds keys such as seed, precision and workers."""
    return {
        "parameters": parameters,
        "data_digest": data_digest,
        **code_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "hardware": hardware(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round((now() - started).total_seconds(), 3),
        **more,
    }


def code_version() -> dict[str, Any]:
    """The git commit, and whether the code differs from it; GIT_COMMIT and GIT_DIRTY where there is no repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        dirty = {"true": True, "false": False}.get(os.environ.get("GIT_DIRTY", ""))
        return {"git_commit": os.environ.get("GIT_COMMIT"), "git_dirty": dirty}
    changes = _git("status", "--porcelain", "--", *CODE)
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"processor": _processor(), "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1), "gpus": gpus}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
