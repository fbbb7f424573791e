"""Execution on Ray: the only importer of it."""

from pipeline.cluster.checkpoints import forget_checkpoints, has_checkpoint, refuse_another_recipe
from pipeline.cluster.ray_session import NoClusterError, address_of, cores, job_id, mapping, session
from pipeline.cluster.spread import OWN_RAY, Spread, spreading, threads_of
from pipeline.cluster.training import train

__all__ = [
    "OWN_RAY",
    "NoClusterError",
    "Spread",
    "address_of",
    "cores",
    "forget_checkpoints",
    "has_checkpoint",
    "job_id",
    "mapping",
    "refuse_another_recipe",
    "session",
    "spreading",
    "threads_of",
    "train",
]
