"""An experiment's records, computed from random but seeded predictions: nothing here is a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.evaluation.ensembles import average, leave_one_out
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.report.names import WAYS
from pipeline.storage import write_json

CLASSES = 10


def provenance(seed: int) -> dict[str, Any]:
    return {
        "parameters": {"training": {"iterations": 600, "options": {}}, "augmentation": {"crop": 16}},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "data_digest": "ab" * 32,
        "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
        "hardware": {"processor": "A processor", "cores": 2, "memory_gib": 8.0, "gpus": []},
        "python": "3.11.2",
        "precision": "fp32",
        "seed": seed,
        "workers": 1,
        "started": "2026-01-02T03:04:05+00:00",
        "wall_seconds": 61.5,
    }


def predictions(accuracy: float, seed: int, n_images: int = 400, classes: int = CLASSES) -> Predictions:
    """Softmax of noise, with the label's score raised for about `accuracy` of the images."""
    labels = np.arange(n_images) % classes
    difficulty = np.random.default_rng(99).random(n_images)
    rng = np.random.default_rng(seed)
    known = 0.9 * difficulty + 0.1 * rng.random(n_images) < accuracy
    scores = rng.normal(size=(n_images, classes))
    scores[np.arange(n_images), labels] += np.where(known, 6.0, -2.0)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    ids = np.array([f"test/{number:05d}" for number in range(n_images)])
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(ids, labels, probabilities)


def add_run(root: Path, experiment: str, run: str, accuracies: dict[str, float], **options: Any) -> None:
    """Everything that train and evaluate leave for a run, whose predictions are made up by protocol."""
    seed = sum(map(ord, run))
    made = {
        protocol: predictions(accuracy, seed + number, **options)
        for number, (protocol, accuracy) in enumerate(accuracies.items())
    }
    add_predictions(root, experiment, run, made)
    curves = history(next(iter(accuracies.values())))
    curves.to_csv(root / paths.model_dir(experiment, run) / "history.csv", index=False)


def add_predictions(root: Path, experiment: str, run: str, made: dict[str, Predictions]) -> None:
    """Everything that train and evaluate leave for a run of these predictions by protocol."""
    network, _, seed = run.rpartition("-s")
    model, folder = root / paths.model_dir(experiment, run), root / paths.predictions_dir(experiment, run)
    metrics = {}
    for protocol, found in made.items():
        found.save(folder / f"{protocol}.npz")
        metrics[protocol] = errors(found.probabilities, found.labels)
    shown = {protocol: each for protocol, each in metrics.items() if protocol not in WAYS}
    write_json(root / paths.run_metrics(experiment, run), shown)
    write_json(folder / "evaluate.json", {"run": run, "metrics": metrics, "provenance": provenance(int(seed))})
    record = {"network": network, "seed": int(seed), "iterations": 600, "parameters": 269722, "training_error": 3.25}
    more = {
        "weights_sha256": "cd" * 32,
        "wall_seconds": 61.5,
        "mlflow_run_id": "0a1b2c",
        "provenance": provenance(int(seed)),
    }
    write_json(model / "train.json", {"experiment": experiment, "run": run, **record, **more})
    write_json(model / "model.json", {"network": network, "class_names": [str(number) for number in range(CLASSES)]})
    error = float(next(iter(metrics.values()))["top1_error"])
    history(1 - error / 100).to_csv(model / "history.csv", index=False)


def history(accuracy: float) -> pd.DataFrame:
    """Curves that fall from chance to the run's error; the test error is measured at every other point."""
    iteration = np.arange(50, 601, 50)
    fall = np.exp(-iteration / 150)
    final = 100 * (1 - accuracy)
    test = final + (90 - final) * fall
    test[::2] = np.nan
    return pd.DataFrame(
        {
            "iteration": iteration,
            "epoch": iteration * 64 / 1437,
            "learning_rate": np.where(iteration > 300, 0.01, 0.1),
            "training_loss": 2.3 * fall,
            "training_error": 0.8 * final + (90 - final) * fall,
            "test_error": test,
            "images_per_second": 500.0,
            "seconds": iteration * 0.1,
        }
    )


def add_ensemble(root: Path, experiment: str, name: str, members: list[str], protocols: list[str]) -> None:
    """What the ensemble stage leaves of a declared ensemble."""
    measured, without = {}, {}
    for protocol in protocols:
        folders = {member: root / paths.predictions_dir(experiment, member) for member in members}
        found = {member: Predictions.load(folder / f"{protocol}.npz") for member, folder in folders.items()}
        mean = average(found)
        measured[protocol] = errors(mean.probabilities, mean.labels)
        without[protocol] = leave_one_out(found)
    write_ensemble(root, experiment, name, members, measured, None, without)


def write_ensemble(
    root: Path, experiment: str, name: str, members: list[str], measured: Any, search: Any, without: Any
) -> None:
    """The two files of an ensemble: errors by protocol; how its members were chosen and what each contributes."""
    write_json(root / paths.ensembles_dir(experiment) / f"{name}.json", {"members": members, **measured})
    details = {"members": members, "search": search, "leave_one_out": without}
    write_json(root / paths.members_dir(experiment) / f"{name}.json", details)


DIGITS = {"plain20-s0": 0.93, "plain56-s0": 0.40, "resnet20-s0": 0.95, "resnet56-s0": 0.955}
DIGITS_PROTOCOLS = ["center_crop", "ten_crop", "multi_scale"]
DIGITS_ENSEMBLES = {"resnets": ["resnet20-s0", "resnet56-s0"]}
INPUTS = [
    *(paths.model_dir("digits", "resnet56-s0") / name for name in ("train.json", "history.csv")),
    paths.run_metrics("digits", "resnet56-s0"),
    paths.ensembles_dir("digits") / "resnets.json",
    paths.members_dir("digits") / "resnets.json",
    *(paths.predictions_dir("digits", "resnet56-s0") / f"{name}.npz" for name in DIGITS_PROTOCOLS[:2]),
    paths.predictions_dir("digits", "resnet56-s0") / "evaluate.json",
]
"""Files that the report reads."""
BROKEN = (b"", b"{}", b"null", b"\xff\xfe\x00garbage")


def build_digits(root: Path) -> None:
    """Four runs by three protocols, and an ensemble."""
    for run, accuracy in DIGITS.items():
        add_run(root, "digits", run, {p: accuracy + 0.005 * i for i, p in enumerate(DIGITS_PROTOCOLS)})
    for name, members in DIGITS_ENSEMBLES.items():
        add_ensemble(root, "digits", name, members, DIGITS_PROTOCOLS)
