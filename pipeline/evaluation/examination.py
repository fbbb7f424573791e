"""What a run's record says beside its errors: layer responses, what bf16 changes, and what predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pipeline.evaluation.parts import Evaluator, Job, predictor_of
from pipeline.evaluation.precision_error import PrecisionError, precision_error
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.exactness import without_tf32
from pipeline.models.responses import layer_responses
from pipeline.provenance import hardware
from pipeline.schema import CenterCrop, SingleView

RESPONSE_IMAGES = 512
PRECISION_IMAGES = 256


@dataclass(frozen=True)
class Wanted:
    """The images to look at, the first ones of a split, and by what."""

    split: str
    view: SingleView | CenterCrop
    """Of the layer responses."""
    name: str
    protocol: Protocol
    """By which number formats are compared, and its name."""


@dataclass(frozen=True)
class Examination:
    """What was found, by a process that predicts as those do that predicted the parts."""

    responses: list[tuple[str, float]] | None
    """Layers and the standard deviations of their responses (paper, Figure 7); None without BN."""
    precision_error: PrecisionError | None
    """None where all is in fp32 anyway."""
    precision: str
    hardware: dict[str, Any]


def examine(job: Job, wanted: Wanted) -> Examination:
    """Look at a job's network on this machine."""
    predictor = predictor_of(job)
    with without_tf32():
        found = _responses(job, wanted, predictor), _precision_error(job, wanted, predictor)
    return Examination(*found, predictor.precision, hardware())


def _responses(job: Job, wanted: Wanted, predictor: Predictor) -> list[tuple[str, float]] | None:
    if not any(isinstance(module, nn.BatchNorm2d) for module in predictor.network.modules()):
        return None
    split = job.splits[wanted.split]
    images = split.images(range(min(RESPONSE_IMAGES, split.n_images)))
    return layer_responses(predictor.network, predictor.inputs(images, wanted.view))


def _precision_error(job: Job, wanted: Wanted, predictor: Predictor) -> PrecisionError | None:
    if predictor.precision == "fp32":
        return None
    split = job.splits[wanted.split]
    images = split.images(range(min(PRECISION_IMAGES, split.n_images)))
    exact = Evaluator(replace(job, precision="fp32", compile=False)).predictor
    return precision_error(predictor, exact, images, wanted.name, wanted.protocol)
