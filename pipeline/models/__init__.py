"""Every network of the paper, by name."""

from pipeline.models.convolutional import score_map
from pipeline.models.zoo import build, find, names

__all__ = ["build", "find", "names", "score_map"]
