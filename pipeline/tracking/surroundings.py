"""What a run happens in: uncommitted changes, installed packages, DVC's stage and lock, the Ray job."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pipeline.provenance import CODE
from pipeline.storage import sha256_file

LOCK = Path("dvc.lock")
_LONGEST_PATCH = 5_000_000
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def git_patch() -> str:
    """The code's differences from the commit, new files among them, as `git apply` takes them; "" where there are none.

    At most 5 MB are kept; a longer patch is cut, and its last line says so.
    """
    changed = _git("diff", "--binary", "HEAD", "--", *CODE)
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    parts = [changed, *(_git("diff", "--binary", "--no-index", "/dev/null", name) for name in new.split("\0") if name)]
    text = "".join(parts)
    return text if len(text) <= _LONGEST_PATCH else f"{text[:_LONGEST_PATCH]}\n# cut here: {len(text)} characters\n"


def installed_packages() -> str:
    """Every installed distribution as a line `name==version`, in order."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def surrounding_tags() -> dict[str, str]:
    """`dvc.lock`, the SHA-256 of DVC's lock file as the run begins, and `ray.submission_id` within a submitted job."""
    found = {"dvc.lock": sha256_file(LOCK)} if LOCK.is_file() else {}
    job = ray_submission()
    return found | ({"ray.submission_id": job} if job else {})


def ray_submission() -> str | None:
    """The identifier of the submitted Ray job that this process belongs to; None outside one."""
    try:
        found = json.loads(os.environ.get(_RAY_JOB, "{}")).get("metadata", {}).get("job_submission_id")
    except (ValueError, AttributeError):
        return None
    return str(found) if found else None


def locked_output(path: Path, lock: Path = LOCK) -> dict[str, str]:
    """What the lock file says of a stage's output: `dvc.stage` that made it, and `dvc.md5`; {} where it has none."""
    stages: dict[str, Any] = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}) if lock.is_file() else {}
    for name, stage in (stages.get("stages") or {}).items():
        for out in stage.get("outs", []):
            if out.get("path") == path.as_posix() and "md5" in out:
                return {"dvc.stage": name, "dvc.md5": out["md5"]}
    return {}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
