"""What a shorter number format changes in the probabilities, measured on the run at hand."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from pipeline.evaluation.predictor import Images, Predictor, Protocol


class PrecisionError(TypedDict):
    """Differences of probabilities from fp32's, of `n_images` images."""

    precision: str
    protocol: str
    n_images: int
    max_difference: float
    mean_difference: float
    """Over all classes and images."""
    top1_disagreements: int
    """Images whose likeliest class differs."""


def precision_error(
    predictor: Predictor, exact: Predictor, images: Images, protocol_name: str, protocol: Protocol
) -> PrecisionError:
    """Both predictors' probabilities of the same images compared; `exact` computes in fp32."""
    found, expected = predictor.predict(images, protocol), exact.predict(images, protocol)
    difference = np.abs(found.astype(np.float64) - expected)
    return {
        "precision": predictor.precision,
        "protocol": protocol_name,
        "n_images": len(images),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "top1_disagreements": int((found.argmax(1) != expected.argmax(1)).sum()),
    }
