"""Evaluate: a trained run's probabilities for every test image, by each protocol, and the errors they give."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path
from typing import cast

from pipeline import cluster, paths, stage
from pipeline.data.splits import holdout_indices
from pipeline.data.store import Store
from pipeline.evaluation.examination import Examination, Wanted, examine
from pipeline.evaluation.metrics import Errors, errors
from pipeline.evaluation.parts import (
    GPU_PART_IMAGES,
    PART_IMAGES,
    Job,
    Part,
    assemble,
    in_turn,
    make_job,
    plan,
    predict_parts,
)
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.predictor import Protocol
from pipeline.provenance import digest_of, gather_provenance, now
from pipeline.schema import MultiScale, SingleView
from pipeline.storage import atomic_directory, read_json, sha256_file, write_json
from pipeline.tracking.results import send_results
from pipeline.tracking.store import initialise

HOLDOUT = "holdout"


def run(at: stage.Stage) -> None:
    """Predict by each protocol, keep the probabilities, write the errors, and put them on the run's MLflow page.

    Parts that an interrupted evaluation has predicted are taken up again, and removed once the whole is written.
    """
    started, evaluation = now(), at.params.evaluation
    store = Store.open(paths.data_dir(at.experiment).absolute())
    with atomic_directory(paths.predictions_dir(at.experiment, at.run)) as folder:
        with cluster.spreading(at.params.cluster) as spread:
            job = _job(at, store)  # here, as a worker's threads are a part of the cluster's nodes
            parts = paths.parts_dir(at.experiment, at.run) / _code()
            made = predict_parts(job, _parts(at, job), parts, spread or in_turn)
            kept = {name: _keep(at.run, folder, name, found) for name, found in assemble(made, job.splits)}
            found = _examined(at, job, spread)
        metrics = {name: measured for name, measured in kept.items() if measured is not None}
        _keep_responses(folder, found)
        record = read_json(paths.model_dir(at.experiment, at.run) / paths.RECORD)
        head = {"run": at.run, "weights_sha256": record["weights_sha256"], "mlflow_run_id": _track(at, store, metrics)}
        by_what = {"precision": found.precision, "hardware": found.hardware}
        provenance = gather_provenance(evaluation.model_dump(mode="json"), store.digest, started, **by_what)
        summary = {**head, "metrics": metrics, "precision_error": found.precision_error, "provenance": provenance}
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
    cut = functools.partial(plan, tasks=tasks, most=GPU_PART_IMAGES if job.gpu else PART_IMAGES)
    planned = [cut(name, split, protocol) for name, protocol in protocols.items()]
    if at.params.data.holdout.kept:
        train = job.splits["train"]
        held_out = holdout_indices(train.labels, at.params.data.holdout)
        planned.append(cut(HOLDOUT, train, _alone(_first_protocol(at)[1]), indices=held_out))
    if evaluation.unlabelled_split is not None:
        others = job.splits[evaluation.unlabelled_split]
        if (others.labels >= 0).any():
            raise ValueError(
                f"evaluation.unlabelled_split: the images of {evaluation.unlabelled_split} have labels; evaluate them"
                " as evaluation.split, in an experiment of its own"
            )
        planned += [cut(f"unlabelled_{name}", others, _alone(protocol)) for name, protocol in protocols.items()]
    return [part for parts in planned for part in parts]


def _code() -> str:
    """A digest of the code that predicts: parts that other code predicted are not taken up."""
    root = Path(paths.__file__).parent
    files = sorted(file for room in ("data", "evaluation", "models") for file in (root / room).rglob("*.py"))
    return digest_of([sha256_file(file) for file in files])[:16]


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


def _first_protocol(at: stage.Stage) -> tuple[str, Protocol]:
    return next(iter(at.params.evaluation.protocols.chosen().items()))


def _examined(at: stage.Stage, job: Job, spread: cluster.Spread | None) -> Examination:
    """By a worker where there are any: this process may have no GPU, and another processor."""
    view = at.params.training_of(at.run).curve_view or SingleView()
    wanted = Wanted(at.params.evaluation.split, view, *_first_protocol(at))
    if spread is None:
        return examine(job, wanted)
    ((_, found),) = spread(examine, job, [wanted])
    return cast(Examination, found)


def _keep_responses(folder: Path, found: Examination) -> None:
    """Write the layer responses of a network that has BN."""
    if found.responses is not None:
        layers = [{"name": name, "std": std} for name, std in found.responses]
        write_json(folder / paths.RESPONSES, {"layers": layers})


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
