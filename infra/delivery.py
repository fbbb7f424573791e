"""What a job brings back: lock entries and results of the stages it finished, through S3, verified on arrival."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import PARAMS_FILE
from pipeline.provenance import digest_of
from pipeline.storage import StorageError, atomic_file, join_url, publish, read_bytes, sha256_file

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


def files_under(paths: Iterable[str]) -> list[str]:
    """The files that the paths, files or folders, are or hold."""
    found = []
    for path in map(Path, paths):
        found += [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sorted(path.as_posix() for path in found)


def digests(paths: Iterable[str]) -> dict[str, str]:
    """The digest of each file."""
    return {path: sha256_file(Path(path)) for path in paths}


def base() -> dict[str, str]:
    """Digests of what a delivery may replace, as it is now: results, parameters, each entry of dvc.lock."""
    entries = yaml.safe_load(Path(LOCK).read_text(encoding="utf-8"))["stages"] if Path(LOCK).exists() else {}
    return digests(files_under(["results", str(PARAMS_FILE)])) | _entry_digests(entries)


def _entry_digests(entries: dict[str, Any]) -> dict[str, str]:
    return {f"{LOCK}: {stage}": digest_of(entry) for stage, entry in entries.items()}


def finished(stages: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Paths of the stages' outs that git keeps instead of DVC, and the stages' entries in dvc.lock.

    Both are read while no other stage writes the lock file.
    """
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        found = [out for name in stages for stage in repo.stage.collect(name) for out in stage.outs]
        entries = yaml.safe_load(Path(LOCK).read_text(encoding="utf-8"))["stages"]
        outs = sorted(str(out.def_path) for out in found if not out.use_cache)
        return outs, {stage: entries[stage] for stage in stages if stage in entries}


def send(place: str, stages: list[str], *, base: dict[str, str], params: str | None = None) -> None:
    """Put what the finished `stages` of the repository at hand wrote at `place`; the note that lists it comes last.

    `base` has the digests of what the job was given, `params` the text of parameters that the job composed.
    StorageError where S3 does not take it.
    """
    outs, lock = finished(stages) if stages else ([], {})
    files = digests(files_under(outs))
    for path, digest in files.items():
        with publish(join_url(place, digest)) as partial:
            shutil.copyfile(path, partial)
    folders = [out for out in outs if Path(out).is_dir()]  # which may be empty
    note = {"stages": stages, "lock": lock, "outs": outs, "folders": folders, "files": files}
    note |= {"base": base, "params": params}
    with publish(join_url(place, NOTE)) as partial:
        partial.write_text(json.dumps(note), encoding="utf-8")


def receive(place: str, force: bool = False) -> list[str]:
    """Bring a delivery into the clone at hand; the stages it has. Nothing is written unless all of it is sound.

    DeliveryError when there is none, when S3 does not give it, when a file is not what the note says, or when a result,
    the parameters or a stage's lock entry was changed here since the job was given it (`force` overwrites it).
    """
    from dvc.repo import Repo

    note = json.loads(_read(place, NOTE))
    contents = {path: _fetch(place, path, digest) for path, digest in note["files"].items()}
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        old = files_under(note["outs"])
        if (changed := _changed(note, old)) and not force:
            raise DeliveryError(
                f"changed here since the job was submitted: {', '.join(changed)}; `--force` overwrites them"
            )
        for path in set(old) - set(contents):
            Path(path).unlink()
        for path in note["folders"]:
            Path(path).mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            _write(Path(path), content)
        if note["params"] is not None:
            _write(PARAMS_FILE, note["params"].encode())
        _merge(note["lock"])
    stages: list[str] = note["stages"]
    return stages


def _changed(note: dict[str, Any], files: list[str]) -> list[str]:
    """What is here and is neither as the job was given it nor as it is delivered."""
    here, delivered = base() | digests(files), note["files"] | _entry_digests(note["lock"])
    replaced = [*files, *_entry_digests(note["lock"])]
    if note["params"] is not None:
        delivered[str(PARAMS_FILE)] = sha256(note["params"].encode())
        replaced.append(str(PARAMS_FILE))
    given = note["base"]
    return [name for name in replaced if name in here and here[name] not in (given.get(name), delivered.get(name))]


def _read(place: str, name: str) -> bytes:
    try:
        return read_bytes(join_url(place, name))
    except StorageError as error:
        if name == NOTE and isinstance(error.__cause__, FileNotFoundError):
            raise DeliveryError(f"{place}: the job has delivered nothing yet") from None
        raise DeliveryError(str(error)) from error
    except ValueError as error:  # an address of a kind that nothing here reads
        raise DeliveryError(f"{place}: {error}") from error


def _fetch(place: str, path: str, digest: str) -> bytes:
    content = _read(place, digest)
    if sha256(content) != digest:
        raise DeliveryError(f"{path}: the content that arrived is not what the job sent; try again")
    return content


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def _merge(lock: dict[str, Any]) -> None:
    """Set the stages' entries in dvc.lock; those of other stages stay."""
    from dvc.utils.serialize import modify_yaml

    if not lock:
        return
    with modify_yaml(LOCK) as tree:
        tree.setdefault("schema", "2.0")
        tree.setdefault("stages", {}).update(lock)
