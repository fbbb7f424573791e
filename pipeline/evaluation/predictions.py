"""Saved predictions: one .npz a protocol, which numpy opens without pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pipeline.storage import atomic_file


@dataclass(frozen=True)
class Predictions:
    """Per-image class probabilities."""

    ids: np.ndarray
    """Source keys, str (N,)."""
    labels: np.ndarray
    """int64 (N,); −1 where unknown."""
    probabilities: np.ndarray
    """float32 (N, classes)."""

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.labels) == len(self.probabilities):
            raise ValueError(
                f"{len(self.ids)} ids, {len(self.labels)} labels and {len(self.probabilities)} rows of probabilities"
            )

    def save(self, path: Path) -> None:
        """Write as .npz with arrays ids, labels, probabilities."""
        with atomic_file(path) as partial, open(partial, "wb") as file:
            np.savez(file, ids=self.ids, labels=self.labels, probabilities=self.probabilities)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote; ValueError names a file that is not it."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["ids"], arrays["labels"], arrays["probabilities"])
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: not a file of predictions ({error}); run its evaluate stage again") from error
