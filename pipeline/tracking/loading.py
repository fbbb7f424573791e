"""A registered model as plain torch modules, without MLflow's wrapping."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from torch import nn

from pipeline.data.statistics import InputStatistics
from pipeline.models.saved import INPUT, Card, load_network
from pipeline.schema import Evaluation
from pipeline.tracking.inference import EVALUATION, verified_members


@dataclass(frozen=True)
class Member:
    """A trained network of a registered model."""

    network: nn.Module
    """In evaluation mode; from what `pipeline.data.statistics.normalise` makes of images to logits (N, classes)."""
    statistics: InputStatistics
    card: Card
    """Network, options and class names."""


def load_modules(uri: str) -> tuple[list[Member], Evaluation]:
    """A registered model's networks (one, or an ensemble's in order) and its protocols, on the CPU.

    `uri` is MLflow's: models:/digits-resnet56@best, models:/digits-resnet56/3. Weights come from safetensors files;
    nothing is unpickled. ValueError where a file was altered.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=temporary)) / "artifacts"
        members = [_member(folder) for folder in verified_members(path / "members")]
        settings = (path / EVALUATION).read_text(encoding="utf-8")
    return members, Evaluation.model_validate_json(settings)


def _member(folder: Path) -> Member:
    network, card = load_network(folder)
    return Member(network, InputStatistics.load(folder / INPUT), card)
