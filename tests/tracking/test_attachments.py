"""Files on a run's page, sent once."""

from __future__ import annotations

import io
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from pipeline.tracking import store
from pipeline.tracking.attachments import attach, error_plot
from tests.tracking.test_registry import new_run
from tests.tracking.test_runs import rows

pytestmark = pytest.mark.slow


def uploaded(run_id: str, folder: str = "") -> dict[str, int]:
    return {file.path: file.file_size for file in store.client().list_artifacts(run_id, folder or None)}


def test_files_are_attached_once_and_again_when_they_change(tracking: str, tmp_path: Path) -> None:
    run_id = new_run()
    attach(run_id, {"card.md": b"one", "plots/error.png": b"png"})
    assert uploaded(run_id) == {"card.md": 3, "plots": None}
    assert uploaded(run_id, "plots") == {"plots/error.png": 3}
    before = store.client().get_run(run_id).data.tags
    (stored,) = tmp_path.rglob("card.md")
    stored.write_text("marked")
    attach(run_id, {"card.md": b"one"})
    assert uploaded(run_id)["card.md"] == len("marked"), "not sent again"
    assert store.client().get_run(run_id).data.tags == before
    attach(run_id, {"card.md": b"three"})
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/card.md") == "three"


def test_the_plot_shows_the_curves() -> None:
    content = error_plot("resnet20-s3", rows(50, 400))
    assert error_plot("resnet20-s3", rows(50, 400)) == content, "the same curves, the same bytes"
    assert error_plot("resnet20-s3", rows(50, 200)) != content
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert pixels.shape == (400, 600)
    assert (pixels < 64).mean() > 0.005, "something is drawn"
