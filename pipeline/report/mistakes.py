"""The most confident mistakes of a run, with their images where these are at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.report.outcomes import Outcome

ImageOf = Callable[[str], np.ndarray]
"""From an image's id to its pixels, uint8 (H, W, 3)."""
SIDE = 128
"""Longer side of the pictures on the page, in pixels."""


@dataclass(frozen=True)
class Mistake:
    """An image taken for another class; `picture` is a data: address of a PNG, or None."""

    image_id: str
    label: str
    predicted: str
    confidence: float
    picture: str | None


def confident_mistakes(
    outcome: Outcome, class_names: Sequence[str] | None, image: ImageOf | None, count: int = 12
) -> list[Mistake]:
    """The wrong predictions of highest probability; equal ones in the order of the images."""
    wrong = np.flatnonzero(outcome.wrong)
    chosen = wrong[np.argsort(-outcome.confidence[wrong], kind="stable")][:count]
    return [
        Mistake(
            str(outcome.ids[i]),
            class_name(outcome.labels[i], class_names),
            class_name(outcome.predicted[i], class_names),
            float(outcome.confidence[i]),
            picture(image, str(outcome.ids[i])),
        )
        for i in chosen
    ]


def class_name(number: int, class_names: Sequence[str] | None) -> str:
    """A class in words where it has a name: of ImageNet's synonyms the first, "chain saw" of "chain saw, chainsaw"."""
    if class_names is None or number >= len(class_names):
        return f"class {number}"
    return class_names[number].partition(",")[0]


def picture(image: ImageOf | None, image_id: str) -> str | None:
    """A small PNG as a data: address; None where the image can't be had."""
    if image is None:
        return None
    try:
        pixels = image(image_id)
    except (KeyError, OSError, ValueError):
        return None
    small = Image.fromarray(pixels)
    scale = SIDE / max(small.size)
    size = tuple(max(1, round(side * scale)) for side in small.size)
    data = io.BytesIO()
    small.resize((size[0], size[1]), Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST).save(
        data, "PNG"
    )
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
