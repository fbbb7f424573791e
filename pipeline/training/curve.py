"""The error curves of a training: points by iteration, kept in history.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.storage import atomic_file


@dataclass(frozen=True)
class CurvePoint:
    """One point of the curves: averages over the iterations since the point before. Errors in percent."""

    iteration: int
    """Iterations done."""
    epoch: float
    learning_rate: float
    """Of the last of these iterations."""
    training_loss: float
    training_error: float
    """Over the augmented mini-batches, as the paper's training curves."""
    test_error: float | None
    """Of one view, with BN's moving statistics; None where not measured at this point."""
    holdout_error: float | None
    images_per_second: float
    seconds: float
    """Of training so far, over all sittings."""


def write_history(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write the curve as CSV, a column a field, blank where not measured."""
    with atomic_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(CurvePoint)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rounded(asdict(point)) for point in points)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
