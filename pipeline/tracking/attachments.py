"""Files on a run's page: its card, plots, the report. What a run has already is not sent again."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from pipeline.tracking import store

TAG = "attached"
"""The run's tag with the digests of what is attached."""
_LINES = {"training_error": ("training", "--"), "test_error": ("test", "-"), "holdout_error": ("held out", ":")}


def attach(run_id: str, files: Mapping[str, bytes], client: MlflowClient | None = None) -> None:
    """Send files by their path among the run's artifacts ("plots/error.png"), unless the run has them as they are."""
    client = client or store.client()
    known: dict[str, str] = json.loads(client.get_run(run_id).data.tags.get(TAG, "{}"))
    digests = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in files.items()}
    new = [name for name in files if known.get(name) != digests[name]]
    if not new:
        return
    with tempfile.TemporaryDirectory() as temporary:
        for name in new:
            path = Path(temporary) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
        client.log_artifacts(run_id, temporary)
    client.set_tag(run_id, TAG, json.dumps({**known, **digests}, sort_keys=True))


def error_plot(title: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Errors in percent against iteration, from rows of history.csv, as PNG: the form of the paper's Figure 6."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a training, which draws nothing, starts without them
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel="iteration", ylabel="error, %", ylim=(0, 100))
    for column, (label, style) in _LINES.items():
        points = [(int(row["iteration"]), float(row[column])) for row in rows if row.get(column) not in (None, "")]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, color="black", linewidth=1)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
