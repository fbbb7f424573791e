"""Evaluate: a trained run's probabilities for every test image, by each protocol, and the errors they give."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from torch import nn

from pipeline import cluster, paths, stage
from pipeline.data.splits import holdout_indices
from pipeline.data.store import Store
from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.parts import Job, Part, assemble, in_turn, make_job, plan, predict_parts, predictor_of
from pipeline.evaluation.precision_error import PrecisionError, precision_error
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Predictor, Protocol
from pipeline.exactness import without_tf32
from pipeline.models.responses import layer_responses
from pipeline.provenance import gather_provenance, now
from pipeline.schema import MultiScale, SingleView
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.results import send_results
from pipeline.tracking.store import initialise

HOLDOUT = "holdout"
RESPONSE_IMAGES = 512
PRECISION_IMAGES = 256


def run(at: stage.Stage) -> None:
    """Predict by each protocol, keep the probabilities, write the errors, and put them on the run's MLflow page.

    Parts that an interrupted evaluation has predicted are taken up again, and removed once the whole is written.
    """
    started, evaluation = now(), at.params.evaluation
    store = Store.open(paths.data_dir(at.experiment).absolute())
    job = _job(at, store)
    with atomic_directory(paths.predictions_dir(at.experiment, at.run)) as folder:
        with cluster.spreading(at.params.cluster) as spread:
            made = predict_parts(job, _parts(at, job), paths.parts_dir(at.experiment, at.run), spread or in_turn)
            kept = {name: _keep(at.run, folder, name, found) for name, found in assemble(made, job.splits)}
        metrics = {name: measured for name, measured in kept.items() if measured is not None}
        predictor = predictor_of(job)
        _keep_responses(at, folder, predictor, store)
        record = read_json(paths.model_dir(at.experiment, at.run) / paths.RECORD)
        head = {"run": at.run, "weights_sha256": record["weights_sha256"], "mlflow_run_id": _track(at, store, metrics)}
        error = _precision_error(at, predictor, store)
        parameters = evaluation.model_dump(mode="json")
        provenance = gather_provenance(parameters, store.digest, started, precision=predictor.precision)
        summary = {**head, "metrics": metrics, "precision_error": error, "provenance": provenance}
        write_json(folder / paths.SUMMARY, summary)
    # What `dvc metrics show` lists: other ways of averaging stand in the summary alone.
    shown = {name: metrics[name] for name in (*evaluation.protocols.chosen(), HOLDOUT) if name in metrics}
    write_json(paths.run_metrics(at.experiment, at.run), shown)
    shutil.rmtree(paths.parts_dir(at.experiment, at.run), ignore_errors=True)


def _job(at: stage.Stage, store: Store) -> Job:
    settings, evaluation = at.params.cluster, at.params.evaluation
    chosen = {evaluation.split, evaluation.unlabelled_split, "train" if at.params.data.holdout.kept else None}
    return make_job(
        paths.model_dir(at.experiment, at.run),
        {name: store.split(name) for name in sorted(filter(None, chosen))},
        store.digest,
        precision=evaluation.precision,
        compile=evaluation.compile,
        batch_size=evaluation.batch_size,
        gpu=settings.gpus_per_worker > 0,
        threads=settings.cpus_per_worker or (cluster.threads_of(settings) if settings.most_workers > 1 else None),
    )


def _parts(at: stage.Stage, job: Job) -> list[Part]:
    """Of the test images by each protocol, of the held-out training images by one, of images without labels by each."""
    evaluation, tasks = at.params.evaluation, at.params.cluster.most_workers
    protocols, split = evaluation.protocols.chosen(), job.splits[evaluation.split]
    planned = [plan(name, split, protocol, tasks) for name, protocol in protocols.items()]
    if at.params.data.holdout.kept:
        train = job.splits["train"]
        held_out = holdout_indices(train.labels, at.params.data.holdout)
        planned.append(plan(HOLDOUT, train, _alone(_first_protocol(at)[1]), tasks, held_out))
    if evaluation.unlabelled_split is not None:
        others = job.splits[evaluation.unlabelled_split]
        planned += [plan(f"unlabelled_{name}", others, _alone(protocol), tasks) for name, protocol in protocols.items()]
    return [part for parts in planned for part in parts]


def _alone(protocol: Protocol) -> Protocol:
    """The protocol without the other ways of averaging, whose predictions would have the test images' names."""
    return protocol.model_copy(update={"report_others": False}) if isinstance(protocol, MultiScale) else protocol


def _keep(run: str, folder: Path, name: str, found: Predictions) -> Errors | None:
    """Write predictions; their errors, None where no image has a label."""
    found.save(folder / f"{name}.npz")
    if not (found.labels >= 0).any():
        print(f"{run}  {name}  {len(found.ids):,} images without labels", flush=True)
        return None
    measured = errors(found.probabilities, found.labels)
    print(f"{run}  {name}  top-1 error {measured['top1_error']:.2f}%", flush=True)
    return measured


def _precision_error(at: stage.Stage, predictor: Predictor, store: Store) -> PrecisionError | None:
    """What bf16 changes in the first test images' probabilities; None where all is in fp32 anyway."""
    if predictor.precision == "fp32":
        return None
    split, (name, protocol) = store.split(at.params.evaluation.split), _first_protocol(at)
    images = [split.image(i) for i in range(min(PRECISION_IMAGES, split.n_images))]
    batch_size = at.params.evaluation.batch_size
    exact = Predictor.load(paths.model_dir(at.experiment, at.run), device=predictor.device, batch_size=batch_size)
    with without_tf32():
        return precision_error(predictor, exact, images, name, protocol)


def _first_protocol(at: stage.Stage) -> tuple[str, Protocol]:
    return next(iter(at.params.evaluation.protocols.chosen().items()))


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
