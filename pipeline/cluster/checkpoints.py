"""Where the checkpoints of a training lie."""

from __future__ import annotations

import fsspec

from pipeline.paths import checkpoints_dir
from pipeline.provenance import digest_of
from pipeline.schema import Cluster
from pipeline.training.session import RunSpec


def checkpoint_name(spec: RunSpec) -> str:
    """Where a run's checkpoints lie: another recipe, network or data set has another name."""
    return f"{spec.experiment}-{spec.run}-{digest_of(spec.identity())[:12]}"


def storage_path(cluster: Cluster) -> str:
    """The absolute path or URL under which checkpoints are kept."""
    return cluster.storage or str(checkpoints_dir().absolute())


def has_checkpoint(spec: RunSpec, cluster: Cluster) -> bool:
    """Whether a training of this specification was begun and can be continued."""
    file_system, folder = _checkpoints_of(spec, cluster)
    return bool(file_system.glob(f"{folder}/checkpoint_*"))


def forget_checkpoints(spec: RunSpec, cluster: Cluster) -> None:
    """Remove a finished training's checkpoints, so that to train again is to begin anew."""
    file_system, folder = _checkpoints_of(spec, cluster)
    if file_system.exists(folder):
        file_system.rm(folder, recursive=True)


def _checkpoints_of(spec: RunSpec, cluster: Cluster) -> tuple[fsspec.AbstractFileSystem, str]:
    file_system, path = fsspec.url_to_fs(storage_path(cluster))
    return file_system, f"{path}/{checkpoint_name(spec)}"
