"""What a served model does: verify its files, load its members, average their probabilities."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.resize import scaled_size
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.exactness import without_tf32
from pipeline.schema import Evaluation, MultiScale
from pipeline.storage import read_json, sha256_file
from pipeline.tracking.images import as_images

CHECKSUMS = "checksums.json"
EVALUATION = "evaluation.json"
DEVICE = "RESNET_DEVICE"
MOST_SCALED = 10_000_000
"""Pixels that are looked at together, once scaled: a strip of 1x65,000 is 4,300 million at a shorter side of 256."""
MOST_SCALED_AT_ONCE = 500_000_000
"""Likewise, of all images of a request."""


class Model:
    """One trained network, or several whose probabilities are averaged in float64."""

    def __init__(self, members: Path, evaluation: Path) -> None:
        """Load the model folders of `members`; ValueError names a file that is not as it was registered."""
        settings = Evaluation.model_validate_json(evaluation.read_text(encoding="utf-8"))
        self.protocols = settings.protocols.chosen()
        device = os.environ.get(DEVICE, "cpu")
        self._members = [
            Predictor.load(folder, device=device, precision=settings.precision, batch_size=settings.batch_size)
            for folder in verified_members(members)
        ]
        self.class_names = self._members[0].class_names

    def probabilities(self, data: Any, protocol: str) -> np.ndarray:
        """float32 (N, classes) for images in any form of `as_images`; ValueError for bad images or protocol."""
        if protocol not in self.protocols:
            raise ValueError(f"protocol: '{protocol}' is not one of this model's: {', '.join(self.protocols)}")
        chosen = self.protocols[protocol]
        with without_tf32():  # as the evaluate stage
            return np.concatenate([self._averaged(part, chosen) for part in list(parts(as_images(data), chosen))])

    def _averaged(self, images: Sequence[np.ndarray], protocol: Protocol) -> np.ndarray:
        if len(self._members) == 1:
            return self._members[0].predict(images, protocol)
        total = np.zeros((len(images), len(self.class_names)), np.float64)
        for member in self._members:
            total += member.predict(images, protocol)
        return (total / len(self._members)).astype(np.float32)

    def predict(self, data: Any, params: Mapping[str, Any] | None) -> np.ndarray | list[list[dict[str, Any]]]:
        """Probabilities, or with top_k the k likeliest classes of each image, likeliest first."""
        params = params or {}
        chosen = self.probabilities(data, params.get("protocol") or default_protocol(self.protocols))
        k = params.get("top_k") or 0
        return chosen if k == 0 else self._top(chosen, k)

    def _top(self, probabilities: np.ndarray, k: int) -> list[list[dict[str, Any]]]:
        if not 0 < k <= len(self.class_names):
            raise ValueError(f"top_k: {k} is not in 1 … {len(self.class_names)}")
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        return [
            [{"class": int(c), "label": self.class_names[c], "probability": float(row[c])} for c in indices]
            for row, indices in zip(probabilities, order, strict=True)
        ]


def parts(images: Sequence[np.ndarray], protocol: Protocol) -> Iterator[list[np.ndarray]]:
    """Images in order, in parts of at most MOST_SCALED pixels as the protocol scales them.

    ValueError for an image of more, and for more than MOST_SCALED_AT_ONCE together.
    """
    part: list[np.ndarray] = []
    size = total = 0
    for index, image in enumerate(images):
        pixels = scaled_pixels(image, protocol)
        if pixels > MOST_SCALED:
            shape = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"image {index}: {shape} is {pixels} pixels once scaled; at most {MOST_SCALED} are taken")
        total += pixels
        if total > MOST_SCALED_AT_ONCE:
            raise ValueError(f"images: more than {MOST_SCALED_AT_ONCE} pixels once scaled; send fewer at once")
        if size + pixels > MOST_SCALED:
            yield part
            part, size = [], 0
        part.append(image)
        size += pixels
    yield part


def scaled_pixels(image: np.ndarray, protocol: Protocol) -> int:
    """How many pixels an image (h, w, 3) has as the protocol scales it, at the largest of its scales."""
    if isinstance(protocol, MultiScale):
        side: int | None = max(protocol.shorter_sides)
    else:
        side = getattr(protocol, "shorter_side", None)
    height, width = image.shape[:2]
    height, width = (height, width) if side is None else scaled_size(height, width, side)
    return height * width


def default_protocol(protocols: Mapping[str, Any]) -> str:
    """What a request that names no protocol gets: center_crop or single_view where there is one, else the first."""
    return next((name for name in ("center_crop", "single_view") if name in protocols), next(iter(protocols)))


def verified_members(members: Path) -> list[Path]:
    """The model folders, in their order, once every file has the SHA-256 it was registered with; else ValueError."""
    record = read_json(members / CHECKSUMS)
    for name, expected in record["files"].items():
        path = members / name
        found = sha256_file(path) if path.is_file() else "nothing"
        if found != expected:
            raise ValueError(f"{path}: SHA-256 {found}, registered with {expected}: the file was altered")
    return [members / name for name in record["members"]]
