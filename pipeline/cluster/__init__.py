"""Execution on Ray: the only importer of it."""

from pipeline.cluster.checkpoints import forget_checkpoints, has_checkpoint
from pipeline.cluster.ray_session import cores, job_id, map_tasks, session
from pipeline.cluster.spread import spreading, threads_of
from pipeline.cluster.training import train

__all__ = [
    "cores",
    "forget_checkpoints",
    "has_checkpoint",
    "job_id",
    "map_tasks",
    "session",
    "spreading",
    "threads_of",
    "train",
]
