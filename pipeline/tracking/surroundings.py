"""What a run happens in: uncommitted changes, installed packages, DVC's stage and lock, the Ray job."""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from pipeline.paths import checkpoints_dir, lock_file
from pipeline.provenance import CODE
from pipeline.storage import atomic_file, read_json, sha256_file, write_json
from pipeline.tracking.names import as_tags, source_tags
from pipeline.tracking.secrets import hide

LOCK = Path("dvc.lock")
ORIGIN = ".origin.json"
"""In code that travels without git: the commit it is of, its difference from it, and the results that went along."""
CHECKPOINTS = "checkpoints"
"""The tag of a training's run that says where its checkpoints are kept."""
PACKAGES, PATCH, TAGS = "packages.txt", "code.patch", "surroundings.json"
_LONGEST_PATCH = 5_000_000
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class Surroundings:
    """What a run happens in: tags, and files by name."""

    tags: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def here(cls, more: Mapping[str, Any]) -> Surroundings:
        """This process's, as they are now, with `more` tags: what is edited later is not what runs."""
        found = {PACKAGES: installed_packages(), PATCH: git_patch()}
        files = {name: text.encode() for name, text in found.items() if text}
        return cls({**surrounding_tags(), **as_tags(hide(dict(more)))}, files)

    @classmethod
    def load(cls, folder: Path) -> Surroundings:
        """Those that were saved in a model folder; none where it was made without."""
        tags = read_json(folder / TAGS) if (folder / TAGS).is_file() else {}
        paths = [folder / name for name in (PACKAGES, PATCH)]
        return cls(tags, {path.name: path.read_bytes() for path in paths if path.is_file()})

    def save(self, folder: Path) -> None:
        """Write them into a model folder, so that a run which MLflow did not hear of can be told later."""
        write_json(folder / TAGS, dict(self.tags))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def git_patch(*, new: bool = True) -> str:
    """The code's differences from the commit, as `git apply` takes them, without secrets; "" where there are none.

    Files that git does not track are among them where `new`. Without a repository it is the one that came along in
    ORIGIN. At most 5 MB are kept; a longer patch is cut, and its last line says so.
    """
    if not _git("rev-parse", "HEAD"):
        return _carried_patch()
    changed = _git("diff", "--binary", "HEAD", "--", *CODE)
    names = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE).split("\0") if new else []
    parts = [changed, *(_git("diff", "--binary", "--no-index", "/dev/null", name) for name in names if name)]
    text = str(hide("".join(parts)))
    return text if len(text) <= _LONGEST_PATCH else f"{text[:_LONGEST_PATCH]}\n# cut here: {len(text)} characters\n"


def installed_packages() -> str:
    """Every installed distribution as a line `name==version`, in order."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def surrounding_tags() -> dict[str, str]:
    """Who does this, in which DVC stage; `dvc.lock`, the SHA-256 of DVC's lock file; a submitted job's identifier."""
    found = {"dvc.lock": sha256_file(LOCK)} if LOCK.is_file() else {}
    job = ray_submission()
    return source_tags() | found | ({"ray.submission_id": job} if job else {})


def checkpoints_tag(storage: str | None) -> str:
    """What trainings are told apart by that are the same but for the clone: the storage that is named for checkpoints,
    or else a mark, made here once, of this clone's own folder of them.
    """
    if storage is not None:
        return storage
    mark, lock = checkpoints_dir() / ".clone", lock_file("clone")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not mark.is_file():
            with atomic_file(mark) as partial:
                partial.write_text(secrets.token_hex(8), encoding="utf-8")
    return mark.read_text(encoding="utf-8")


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


def _carried_patch() -> str:
    origin = Path(ORIGIN)
    return str(read_json(origin).get("patch") or "") if origin.is_file() else ""


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")
