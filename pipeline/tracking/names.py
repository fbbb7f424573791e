"""How what MLflow shows is named: metrics, flattened parameters, tags."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config import split_run

CURVES = {
    "training_loss": "training/loss",
    "training_error": "training/error",
    "test_error": "test/error",
    "holdout_error": "holdout/error",
    "learning_rate": "training/learning_rate",
    "images_per_second": "training/images_per_second",
}
HOLDOUT = "holdout"
_LONGEST_TAG = 5000


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as one level: {"a": {"b": 0.1}} is {"a.b": "0.1"}; lists and nulls are JSON."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def curve_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of history.csv as metrics by name; what is blank or absent is left out."""
    measured = {column: row.get(column) for column in CURVES}
    return {CURVES[column]: float(value) for column, value in measured.items() if value not in (None, "")}


def evaluation_metrics(metrics: Mapping[str, Mapping[str, float]], split: str) -> dict[str, float]:
    """Errors by protocol as metrics: test/ten_crop/top1_error …; of held-out training images holdout/top1_error …"""
    named = {}
    for protocol, figures in metrics.items():
        prefix = HOLDOUT if protocol == HOLDOUT else f"{split}/{protocol}"
        named.update({f"{prefix}/{figure}": float(value) for figure, value in figures.items()})
    return named


def run_tags(experiment: str, run: str, identity: str) -> dict[str, str]:
    """What a training's run is found and grouped by."""
    network, seed = split_run(run)
    return {
        "kind": "training",
        "experiment": experiment,
        "run": run,
        "network": network,
        "seed": str(seed),
        "identity": identity,
    }


def source_tags() -> dict[str, str]:
    """Who does this, in which DVC stage."""
    stage = os.environ.get("DVC_STAGE")
    tags = {"mlflow.source.type": "LOCAL"}
    if stage:
        tags |= {"dvc.stage": stage, "mlflow.source.name": f"dvc repro {stage}"}
    return tags | {"mlflow.user": user()}


def user() -> str:
    """Who does this; a number where this machine has no name for the user, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def provenance_tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Code, data, packages and hardware of a result as tags; see `pipeline.provenance`."""
    hardware = provenance.get("hardware") or {}
    found = {
        "mlflow.source.git.commit": provenance.get("git_commit"),
        "git.commit": provenance.get("git_commit"),
        "git.dirty": provenance.get("git_dirty"),
        "data.digest": provenance.get("data_digest"),
        "precision": provenance.get("precision"),
        "workers": provenance.get("workers"),
        "python": provenance.get("python"),
        "hardware.processor": hardware.get("processor"),
        "hardware.cores": hardware.get("cores"),
        "hardware.memory_gib": hardware.get("memory_gib"),
        "hardware.gpus": ", ".join(hardware.get("gpus") or []) or None,
        **{f"package.{name}": version for name, version in (provenance.get("packages") or {}).items()},
    }
    return as_tags(found)


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as tags, without those that are null."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }
    return {key: text[:_LONGEST_TAG] for key, text in texts.items()}


def last_iteration(steps: Iterable[int]) -> int:
    """The largest of some steps, -1 where there is none."""
    return max(steps, default=-1)
