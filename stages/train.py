"""Train: one run of the experiment, to the last iteration."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cluster, paths, stage
from pipeline.config import split_run
from pipeline.data.store import Store
from pipeline.provenance import digest_of, gather_provenance, now
from pipeline.storage import atomic_directory, read_json, write_json
from pipeline.tracking.beside import RunBeside
from pipeline.tracking.names import provenance_tags
from pipeline.tracking.secrets import hide
from pipeline.tracking.surroundings import CHECKPOINTS, Surroundings, checkpoints_tag
from pipeline.training.session import RunSpec

if TYPE_CHECKING:
    from pipeline.tracking.runs import TrainingRun

SECONDS_TO_TELL = {"FINISHED": 60.0, "FAILED": 30.0, "KILLED": 10.0}
"""How long the end of a run waits for an MLflow that is away; who is told to end soon has little time."""


def run(at: stage.Stage) -> None:
    """Train, or go on training, and write the model folder."""
    spec = make_spec(at)
    if at.waited and _already_trained(at, spec):
        print(f"{at.run}: trained by the process that was at work; nothing left to do")
        return
    cluster.refuse_another_recipe(spec, at.params.cluster)
    provenance = gather_provenance(hide(spec.parameters()), spec.data_digest, now())
    spec = replace(spec, code={key: provenance[key] for key in ("git_commit", "git_dirty")})
    with cluster.session(at.params.cluster):
        record = _train(at, spec, provenance)
        cluster.forget_checkpoints(spec, at.params.cluster)
    print(f"{at.run}: test error {record['test_error']:.2f}% after {record['iterations']:,} iterations")


def _train(at: stage.Stage, spec: RunSpec, provenance: dict[str, Any]) -> dict[str, Any]:
    storage = at.params.cluster.storage
    surroundings = Surroundings.here({"ray.job_id": cluster.job_id(), CHECKPOINTS: checkpoints_tag(storage)})
    with (
        _tracked(at, spec, provenance, surroundings) as tracked,
        cluster.train(spec, at.params.cluster, tracked.log_curves, tracked.look) as trained,
    ):
        return _write_model(at, trained, tracked.wait_for_run_id(10.0), provenance, surroundings)


@contextlib.contextmanager
def _tracked(
    at: stage.Stage, spec: RunSpec, provenance: dict[str, Any], surroundings: Surroundings
) -> Iterator[RunBeside]:
    """The training's MLflow run: continued where a checkpoint is, ended as the block ends.

    A training that is refused before its workers start has none.
    """
    anew = not cluster.has_checkpoint(spec, at.params.cluster)
    tracked = RunBeside(lambda: _begin(at, spec, anew, provenance, surroundings))
    status = "FAILED"
    try:
        yield tracked
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if not tracked.finish(status, SECONDS_TO_TELL[status]):
            print(f"{at.run}: MLflow has not all of it; evaluate, or register, sends what is missing", file=sys.stderr)


def _begin(
    at: stage.Stage, spec: RunSpec, anew: bool, provenance: dict[str, Any], surroundings: Surroundings
) -> TrainingRun:
    from pipeline.tracking.runs import TrainingRun  # here, as it imports MLflow
    from pipeline.tracking.store import initialise

    with contextlib.suppress(ValueError):  # a database that can't be used: a warning of the run's, as of a server away
        initialise()
    tracked = TrainingRun.start_or_continue(
        at.experiment,
        at.run,
        digest_of(spec.identity()),
        spec.parameters(),
        provenance_tags(provenance),
        anew=anew,
        dataset=(at.experiment, spec.data_digest, spec.data.url or spec.data.source),
        provenance=provenance,
        surroundings=surroundings,
    )
    tracked.log_load()
    return tracked


def make_spec(at: stage.Stage) -> RunSpec:
    """The run's specification from parameters and prepared data.

    Workers open the store where its shards lie, which other machines reach; in this folder where these lie here.
    """
    network, seed = split_run(at.run)
    here = paths.data_dir(at.experiment).absolute()
    opened = Store.open(here)
    return RunSpec(
        experiment=at.experiment,
        run=at.run,
        network=network,
        seed=seed,
        store=opened.manifest.store or str(here),
        data_digest=opened.digest,
        data=at.params.data,
        augmentation=at.params.augmentation,
        training=at.params.training_of(at.run),
        test_split=at.params.evaluation.split,
    )


def _already_trained(at: stage.Stage, spec: RunSpec) -> bool:
    record = paths.model_dir(at.experiment, at.run) / paths.RECORD
    return record.exists() and read_json(record)["identity"] == digest_of(spec.identity())


def _write_model(
    at: stage.Stage, trained: Path, run_id: str | None, provenance: dict[str, Any], surroundings: Surroundings
) -> dict[str, Any]:
    """Copy the finished model into place, its record completed by where it comes from; the record."""
    record = read_json(trained / paths.RECORD)
    for key in ("precision", "hardware", "workers", "sittings"):
        provenance[key] = record.pop(key)
    provenance.update(seed=record["seed"], wall_seconds=record["wall_seconds"])
    record.update(mlflow_run_id=run_id, provenance=provenance)
    with atomic_directory(paths.model_dir(at.experiment, at.run)) as folder:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        write_json(folder / paths.RECORD, record)
        surroundings.save(folder)
    return record


if __name__ == "__main__":
    stage.main("train", run, of_run=True)
