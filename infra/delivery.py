"""What a job brings back: lock entries and results of the stages it finished, through S3, verified on arrival."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import yaml

from pipeline.storage import atomic_file, sha256_file

LOCK = "dvc.lock"
NOTE = "delivery.json"


class DeliveryError(RuntimeError):
    """A delivery is not there, is damaged, or would overwrite what was changed here."""


def place_of(root: str, job: str) -> str:
    """Where a job's delivery lies under the project's S3 root."""
    return f"{root.rstrip('/')}/jobs/{job}"


def sha256(content: bytes) -> str:
    """The digest by which content is named and verified."""
    return hashlib.sha256(content).hexdigest()


def uncached_outs(stages: Iterable[str]) -> list[str]:
    """Paths of the stages' outs that git keeps instead of DVC, in the repository at hand."""
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        found = [out for name in stages for stage in repo.stage.collect(name) for out in stage.outs]
        return sorted(str(out.def_path) for out in found if not out.use_cache)


def files_under(paths: Iterable[str]) -> list[str]:
    """The files that the paths, files or folders, are or hold."""
    found = []
    for path in map(Path, paths):
        found += [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sorted(path.as_posix() for path in found)


def digests(paths: Iterable[str]) -> dict[str, str]:
    """The digest of each file."""
    return {path: sha256_file(Path(path)) for path in paths}


def send(place: str, stages: list[str], *, base: dict[str, str], params: str | None = None) -> None:
    """Put what the finished `stages` of the repository at hand wrote at `place`; the note that lists it comes last.

    `base` has the digests of results as the job was given them, `params` the text of parameters that the job composed.
    """
    file_system, root = fsspec.url_to_fs(place)
    outs = uncached_outs(stages) if stages else []
    files = digests(files_under(outs))
    for path, digest in files.items():
        file_system.pipe_file(f"{root}/{digest}", Path(path).read_bytes())
    entries = yaml.safe_load(Path(LOCK).read_text(encoding="utf-8"))["stages"] if stages else {}
    lock = {stage: entries[stage] for stage in stages if stage in entries}
    note = {"stages": stages, "lock": lock, "outs": outs, "files": files, "base": base, "params": params}
    file_system.pipe_file(f"{root}/{NOTE}", json.dumps(note).encode())


def receive(place: str, force: bool = False) -> list[str]:
    """Bring a delivery into the clone at hand; the stages it has. Nothing is written unless all of it is sound.

    DeliveryError when there is none, when a file is not what the note says, or when a result was changed here since the
    job was given it (`force` overwrites it).
    """
    file_system, root = fsspec.url_to_fs(place)
    file_system.invalidate_cache()
    try:
        note = json.loads(file_system.cat_file(f"{root}/{NOTE}"))
    except FileNotFoundError:
        raise DeliveryError(f"{place}: the job has delivered nothing yet") from None
    here = digests(files_under(note["outs"]))
    changed = [path for path, digest in here.items() if digest not in _known(note, path)]
    if changed and not force:
        raise DeliveryError(
            f"changed here since the job was submitted: {', '.join(changed)}; `--force` overwrites them"
        )
    contents = {path: _fetch(file_system, root, path, digest) for path, digest in note["files"].items()}
    for path in set(here) - set(contents):
        Path(path).unlink()
    for path, content in contents.items():
        _write(Path(path), content)
    if note["params"] is not None:
        _write(Path("params.yaml"), note["params"].encode())
    _merge(note["lock"])
    stages: list[str] = note["stages"]
    return stages


def _known(note: dict[str, Any], path: str) -> set[str | None]:
    return {note["base"].get(path), note["files"].get(path)}


def _fetch(file_system: Any, root: str, path: str, digest: str) -> bytes:
    content: bytes = file_system.cat_file(f"{root}/{digest}")
    if sha256(content) != digest:
        raise DeliveryError(f"{path}: the content that arrived is not what the job sent; try again")
    return content


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def _merge(lock: dict[str, Any]) -> None:
    """Set the stages' entries in dvc.lock; those of other stages stay."""
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    if not lock:
        return
    with Repo(_wait_for_lock=True) as repo, repo.lock, modify_yaml(LOCK) as tree:
        tree.setdefault("schema", "2.0")
        tree.setdefault("stages", {}).update(lock)
