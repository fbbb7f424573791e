"""Every network of the paper, by name."""

from pipeline.models.convolutional import score_map
from pipeline.models.zoo import NETWORKS, build, names

__all__ = ["NETWORKS", "build", "names", "score_map"]
