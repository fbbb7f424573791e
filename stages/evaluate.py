"""Evaluate: a trained run's probabilities for every test image, by each protocol, and the errors they give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from pipeline import paths, stage
from pipeline.data.splits import holdout_indices
from pipeline.data.store import Store
from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.predict import predict_split
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor
from pipeline.models.responses import layer_responses
from pipeline.provenance import gather_provenance, now
from pipeline.schema import SingleView
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.results import send_results
from pipeline.tracking.store import initialise

HOLDOUT = "holdout"
RESPONSE_IMAGES = 512


def run(at: stage.Stage) -> None:
    """Predict by each protocol, keep the probabilities, write the errors, and put them on the run's MLflow page."""
    started, evaluation = now(), at.params.evaluation
    store = Store.open(paths.data_dir(at.experiment))
    model = paths.model_dir(at.experiment, at.run)
    device = "cuda" if at.params.cluster.gpus_per_worker and torch.cuda.is_available() else "cpu"
    predictor = Predictor.load(model, device=device, precision=evaluation.precision, batch_size=evaluation.batch_size)
    with atomic_directory(paths.predictions_dir(at.experiment, at.run)) as folder:
        metrics = {name: _keep(at.run, folder, name, found) for name, found in _predict(at, store, predictor)}
        _keep_responses(at, folder, predictor, store)
        record = read_json(model / paths.RECORD)
        run_id = _track(at, store, metrics)
        parameters = evaluation.model_dump(mode="json")
        provenance = gather_provenance(parameters, store.digest, started, precision=predictor.precision)
        kept = {"run": at.run, "weights_sha256": record["weights_sha256"], "mlflow_run_id": run_id}
        write_json(folder / paths.SUMMARY, {**kept, "metrics": metrics, "provenance": provenance})
    write_json(paths.run_metrics(at.experiment, at.run), metrics)


def _predict(at: stage.Stage, store: Store, predictor: Predictor) -> Iterator[tuple[str, Predictions]]:
    """Each protocol's predictions of the test images, and one protocol's of the held-out training images."""
    protocols = at.params.evaluation.protocols.chosen()
    split = store.split(at.params.evaluation.split)
    for name, protocol in protocols.items():
        yield name, predict_split(predictor, split, protocol)
    if at.params.data.holdout.kept:
        train = store.split("train")
        held_out = holdout_indices(train.labels, at.params.data.holdout)
        yield HOLDOUT, predict_split(predictor, train, next(iter(protocols.values())), held_out)


def _keep(run: str, folder: Path, name: str, found: Predictions) -> Errors:
    found.save(folder / f"{name}.npz")
    measured = errors(found.probabilities, found.labels)
    print(f"{run}  {name}  top-1 error {measured['top1_error']:.2f}%", flush=True)
    return measured


def _keep_responses(at: stage.Stage, folder: Path, predictor: Predictor, store: Store) -> None:
    """Write the layer responses (paper, Figure 7) over the first test images, for a network that has BN."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in predictor.network.modules()):
        return
    split = store.split(at.params.evaluation.split)
    images = [split.image(i) for i in range(min(RESPONSE_IMAGES, split.n_images))]
    view = at.params.training_of(at.run).curve_view or SingleView()
    found = layer_responses(predictor.network, predictor.inputs(images, view))
    write_json(folder / paths.RESPONSES, {"layers": [{"name": name, "std": std} for name, std in found]})


def _track(at: stage.Stage, store: Store, metrics: dict[str, Errors]) -> str | None:
    """Put the errors on the training's MLflow run and complete it; its identifier, None where MLflow is away."""
    data = at.params.data
    folder, origin = paths.model_dir(at.experiment, at.run), (store.digest, data.url or data.source)
    try:
        initialise()
        return send_results(at.experiment, at.run, folder, metrics, origin, split=at.params.evaluation.split)
    except ValueError as error:
        print(f"{at.run}: not logged, which the register stage makes up for: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    stage.main("evaluate", run, of_run=True)
