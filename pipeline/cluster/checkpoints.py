"""Checkpoints where a training's workers leave them: in a folder or at any URL, each complete or not taken."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster_section import Cluster
from pipeline.paths import checkpoints_dir
from pipeline.provenance import digest_of
from pipeline.storage import (
    DEFAULT_RETRY,
    Retry,
    StorageError,
    absolute_url,
    attempt,
    download,
    is_local,
    join_url,
    list_files,
    local_path,
    publish,
    read_bytes,
    read_json,
    sha256_file,
    write_json,
)
from pipeline.training.checkpoints import VALUES, DamagedCheckpointError, differences
from pipeline.training.session import RunSpec

SEAL = "complete.json"
"""A checkpoint's list of files with their SHA-256, written last: without it there is no checkpoint."""
ONCE = Retry(attempts=1)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointStore:
    """One training's checkpoints, in folders `iteration-…` at `url`; at most `kept` of them."""

    url: str
    kept: int

    def iterations(self, retry: Retry = DEFAULT_RETRY) -> list[int]:
        """Those of the complete checkpoints, the newest first; StorageError where that cannot be found out."""
        return _sealed(_files(self.url, retry))

    def put(self, folder: Path, iteration: int) -> None:
        """Keep `folder` as the checkpoint of `iteration`, and forget the oldest; OSError, with nothing tried twice."""
        target = self._place(iteration)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for name in files:
            _copy(folder / name, join_url(target, name))
        with tempfile.TemporaryDirectory(prefix="seal-") as made:
            seal = Path(made) / SEAL
            write_json(seal, {"files": {name: sha256_file(folder / name) for name in files}})
            _copy(seal, join_url(target, SEAL))
        self._prune(iteration)

    @contextlib.contextmanager
    def fetched(self, iteration: int, retry: Retry = DEFAULT_RETRY) -> Iterator[Path]:
        """A local folder with a checkpoint's files, each what was written; DamagedCheckpointError where one is not."""
        if is_local(self.url):
            folder = local_path(self._place(iteration))
            _verify(folder)
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as name:
            _download(self._place(iteration), Path(name), retry)
            _verify(Path(name))
            yield Path(name)

    @contextlib.contextmanager
    def shared(self, training: str) -> Iterator[None]:
        """While the block lasts, the driver's mark by which workers know that a folder is on no disk of their own."""
        mark = self._mark(training)
        if mark is None:
            yield
            return
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # gone, or checkpoints are there
                mark.unlink(missing_ok=True)
                mark.parent.rmdir()

    def require_shared(self, training: str) -> None:
        """ValueError, on a worker's node, for a folder that is not the driver's."""
        mark = self._mark(training)
        if mark is not None and not mark.exists():
            raise ValueError(
                f"on {platform.node()} {self.url} is not the driver's folder of that name: checkpoints in it would be"
                " lost to all other nodes; set cluster.storage to a URL such as s3://bucket/checkpoints, or to a folder"
                " that all nodes share"
            )

    def _mark(self, training: str) -> Path | None:
        return local_path(self.url) / f".{training}" if is_local(self.url) else None

    def identity(self, iteration: int) -> Any:
        """Which training a checkpoint is of; StorageError, ValueError, KeyError or TypeError where it can't be told."""
        return json.loads(read_bytes(join_url(self._place(iteration), VALUES)))["identity"]

    def forget(self) -> None:
        """Remove all of them."""
        if _files(self.url, DEFAULT_RETRY):
            attempt(lambda system, path: system.rm(path, recursive=True), self.url, verb="write")

    def _place(self, iteration: int) -> str:
        return join_url(self.url, f"iteration-{iteration:09}")

    def _prune(self, newest: int) -> None:
        """Remove what is older than the newest `kept`, halves too; what cannot be removed now is next time."""
        try:
            found = _files(self.url, ONCE)
            oldest = min([*_sealed(found)[: self.kept], newest])
            for old in sorted(i for i in _begun(found) if i < oldest):
                attempt(lambda system, path: system.rm(path, recursive=True), self._place(old), ONCE, verb="write")
        except OSError as error:
            _log.debug("%s: old checkpoints stay for now: %s", self.url, error)


def checkpoint_name(spec: RunSpec) -> str:
    """Where a run's checkpoints lie: another recipe, network or data set has another name."""
    return f"{_stem(spec)}{digest_of(spec.identity())[:12]}"


def storage_path(cluster: Cluster) -> str:
    """The absolute path or URL under which checkpoints are kept."""
    return absolute_url(cluster.storage or checkpoints_dir())


def store_of(spec: RunSpec, cluster: Cluster) -> CheckpointStore:
    """Where the checkpoints of this training are kept."""
    return CheckpointStore(join_url(storage_path(cluster), checkpoint_name(spec)), cluster.checkpoints_kept)


def has_checkpoint(spec: RunSpec, cluster: Cluster) -> bool:
    """Whether a training of this specification was begun and can be continued."""
    return bool(store_of(spec, cluster).iterations())


def forget_checkpoints(spec: RunSpec, cluster: Cluster) -> None:
    """Remove a finished training's checkpoints, so that to train again is to begin anew.

    A warning where they cannot be removed: the training is finished all the same.
    """
    store = store_of(spec, cluster)
    try:
        store.forget()
    except OSError as error:
        _log.warning(
            "%s: trained, but its checkpoints stay, as they cannot be removed (%s); remove %s before training this"
            " recipe anew, which would else end at once with what they hold",
            spec.run,
            error,
            store.url,
        )


def refuse_another_recipe(spec: RunSpec, cluster: Cluster) -> None:
    """ValueError where this run's checkpoints are of another recipe, network or data set, with what differs.

    That is so in the project's own folder, in which a run is trained by one recipe at a time. In a storage that is
    named, and so may be shared, trainings lie side by side, and each goes on from its own: there what differs is a
    warning, where this one has none to go on from.
    """
    if cluster.storage is not None:
        with contextlib.suppress(StorageError):  # its absence is told where checkpoints are needed
            if not has_checkpoint(spec, cluster):
                _warn_of_others(spec, cluster)
        return
    for url, differing in _others(spec, cluster):
        raise ValueError(
            f"{spec.run}: {url} holds checkpoints of an unfinished training that differs: {'; '.join(differing)}."
            " Set that back to go on with it, or remove the folder to begin anew"
        )


def _warn_of_others(spec: RunSpec, cluster: Cluster) -> None:
    for url, differing in _others(spec, cluster):
        _log.warning(
            "%s: begins anew; beside it, %s holds checkpoints of an unfinished training that differs: %s",
            spec.run,
            url,
            "; ".join(differing),
        )


def _others(spec: RunSpec, cluster: Cluster) -> Iterator[tuple[str, list[str]]]:
    """Where this run's checkpoints of other trainings are kept, and what differs."""
    storage = storage_path(cluster)
    found = attempt(lambda system, path: system.glob(f"{path}/{_stem(spec)}*"), storage)
    for name in sorted(place.rstrip("/").rpartition("/")[2] for place in found):
        if name != checkpoint_name(spec) and _is_of_run(name, spec):
            others = CheckpointStore(join_url(storage, name), cluster.checkpoints_kept)
            if differing := _differing(others, spec):
                yield others.url, differing


def _stem(spec: RunSpec) -> str:
    return f"{spec.experiment}-{spec.run}-"


def _is_of_run(name: str, spec: RunSpec) -> bool:
    return re.fullmatch(f"{re.escape(_stem(spec))}[0-9a-f]{{12}}", name) is not None


def _differing(others: CheckpointStore, spec: RunSpec) -> list[str]:
    """By the newest of the others that can be read; nothing where there is none."""
    for iteration in others.iterations():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return differences(others.identity(iteration), spec.identity())
    return []


def _sealed(files: dict[str, int]) -> list[int]:
    return sorted((_number(name) for name in files if name.endswith(f"/{SEAL}")), reverse=True)


def _begun(files: dict[str, int]) -> set[int]:
    return {_number(name) for name in files if name.startswith("iteration-")}


def _number(name: str) -> int:
    return int(name.partition("/")[0].removeprefix("iteration-"))


def _files(url: str, retry: Retry) -> dict[str, int]:
    """As `list_files`, and none where there is no such folder."""
    try:
        return list_files(url, retry)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _copy(source: Path, target: str) -> None:
    with publish(target, ONCE) as partial:
        shutil.copyfile(source, partial)


def _download(url: str, folder: Path, retry: Retry) -> None:
    for name in _files(url, retry):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        download(join_url(url, name), folder / name, retry)


def _verify(folder: Path) -> None:
    try:
        expected = read_json(folder / SEAL)["files"]
        found = {name: sha256_file(folder / name) for name in expected}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{folder}: {error}") from error
    if wrong := sorted(name for name in expected if found[name] != expected[name]):
        raise DamagedCheckpointError(f"{folder}: not what was written: {', '.join(wrong)}")
