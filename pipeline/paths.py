"""The one place that spells where outputs lie."""

from __future__ import annotations

from pathlib import Path

HISTORY = "history.csv"
"""In a model folder: the curves."""
RECORD = "train.json"
"""In a model folder: how the training ended, and its provenance."""
RESPONSES = "responses.json"
"""In a folder of predictions: the layer responses of Figure 7."""
SUMMARY = "evaluate.json"
"""In a folder of predictions: the errors, and their provenance."""


def data_dir(experiment: str) -> Path:
    """The image store: manifest.json and shards."""
    return Path("data") / experiment


def model_dir(experiment: str, run: str) -> Path:
    """A trained network: weights, what rebuilds it, its training record and curves."""
    return Path("models") / experiment / run


def predictions_dir(experiment: str, run: str) -> Path:
    """Per-image probabilities of a run, a file a protocol."""
    return Path("predictions") / experiment / run


def results_dir(experiment: str) -> Path:
    """What is committed: metrics, tables, figures, the report."""
    return Path("results") / experiment


def run_metrics(experiment: str, run: str) -> Path:
    """A run's errors by protocol."""
    return results_dir(experiment) / "runs" / f"{run}.json"


def ensembles_dir(experiment: str) -> Path:
    """The ensembles' errors, a file an ensemble."""
    return results_dir(experiment) / "ensembles"


def members_dir(experiment: str) -> Path:
    """How the ensembles' members were chosen, and the errors without each of them, a file an ensemble."""
    return results_dir(experiment) / "members"


def registry_record(experiment: str) -> Path:
    """What was put into the model registry."""
    return results_dir(experiment) / "registry.json"


def checkpoints_dir() -> Path:
    """Checkpoints of unfinished training; kept out of git and DVC."""
    return Path("checkpoints")


def parts_dir(experiment: str, run: str) -> Path:
    """What an unfinished evaluation has predicted so far."""
    return checkpoints_dir() / "evaluation" / experiment / run


def lock_file(name: str) -> Path:
    """The lock that one stage's process holds while it works."""
    return Path("checkpoints") / ".locks" / f"{name}.lock"
