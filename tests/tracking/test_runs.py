"""A training's run on a real SQLite store: continued, never doubled, complete."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from pipeline.tracking import runs, store
from pipeline.tracking.runs import TrainingRun
from pipeline.tracking.surroundings import CHECKPOINTS, Surroundings

PARAMETERS = {"training": {"batch_size": 64, "optimizer": {"learning_rate": 0.1}}, "runs": {}, "options": [1, 2]}


def rows(first: int, last: int, every: int = 50) -> list[dict[str, str]]:
    """Rows as read from history.csv: text, blank where not measured."""
    return [
        {
            "iteration": str(i),
            "epoch": str(i / 25),
            "learning_rate": "0.1",
            "training_loss": str(1000 / i),
            "training_error": str(100 / i),
            "test_error": str(i / 10) if i % 100 == 0 else "",
            "images_per_second": "800.5",
            "seconds": str(i),
        }
        for i in range(first, last + 1, every)
    ]


def begin(identity: str = "abc", **options: object) -> TrainingRun:
    return TrainingRun.start_or_continue("digits", "resnet20-s3", identity, PARAMETERS, {"note": 1}, **options)  # type: ignore[arg-type]


def all_runs() -> list[Run]:
    return list(store.client().search_runs([store.experiment_id("digits")]))


def history(run_id: str, metric: str) -> dict[int, float]:
    found = [(m.step, m.value) for m in store.client().get_metric_history(run_id, metric)]
    assert len(found) == len(dict(found)), "no step twice"
    return dict(found)


@pytest.mark.slow
def test_curves_parameters_tags_and_data_are_logged(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@resnet20-s3")
    provenance = {"git_commit": "f" * 40, "data_digest": "d" * 64}
    training = begin(dataset=("digits", "d" * 64, "data/digits"), provenance=provenance)
    training.log_curves(rows(50, 200))
    assert training.finish(limit=30)
    (run,) = all_runs()
    assert run.info.run_id == training.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "resnet20-s3"
    assert run.data.params == {
        "training.batch_size": "64",
        "training.optimizer.learning_rate": "0.1",
        "runs": "{}",
        "options": "[1, 2]",
    }
    expected = {"network": "resnet20", "seed": "3", "identity": "abc", "dvc.stage": "train@resnet20-s3", "note": "1"}
    assert {key: run.data.tags[key] for key in expected} == expected
    assert history(run.info.run_id, "training/loss") == {50: 20.0, 100: 10.0, 150: pytest.approx(20 / 3), 200: 5.0}
    assert history(run.info.run_id, "test/error") == {100: 10.0, 200: 20.0}
    assert set(run.data.metrics) == {
        "training/loss",
        "training/error",
        "test/error",
        "training/learning_rate",
        "training/images_per_second",
    }
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "d" * 36)
    artifact = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/provenance.json")
    assert json.loads(artifact) == provenance


@pytest.mark.parametrize("status", ["FAILED", "KILLED", None])
def test_an_unfinished_run_is_continued_without_doubled_steps(tracking: str, status: str | None) -> None:
    first = begin()
    first.log_curves(rows(50, 200))
    assert first.finish(status) if status else first._outbox.close(30)
    second = begin()
    second.log_curves(rows(150, 300))
    second.log_curves(rows(300, 400))
    assert second.finish(limit=30)
    (run,) = all_runs()
    assert first.run_id == second.run_id == run.info.run_id
    assert run.info.status == "FINISHED"
    assert sorted(history(run.info.run_id, "training/loss")) == list(range(50, 401, 50))
    assert sorted(history(run.info.run_id, "test/error")) == [100, 200, 300, 400]


def test_a_finished_run_is_left_unless_training_starts_anew(tracking: str) -> None:
    begin_and_finish = [begin(anew=anew) for anew in (False,)]
    assert begin_and_finish[0].finish(limit=30)
    first = all_runs()[0]
    again = begin()
    assert again.finish(limit=30)
    assert again.run_id == first.info.run_id
    assert all_runs()[0].info.end_time == first.info.end_time
    anew = begin(anew=True)
    other = begin(identity="xyz")
    assert anew.finish(limit=30)
    assert other.finish(limit=30)
    assert len({first.info.run_id, anew.run_id, other.run_id}) == 3 == len(all_runs())


def test_an_unfinished_run_is_gone_on_in_from_the_start_only_while_it_has_no_curve(tracking: str) -> None:
    first = begin()
    assert first.finish("KILLED", limit=30)
    second = begin(anew=True)
    second.log_curves(rows(50, 200))
    assert second.finish("KILLED", limit=30)
    third = begin(anew=True)
    third.log_curves(rows(50, 100))
    assert third.finish(limit=30)
    assert first.run_id == second.run_id != third.run_id
    assert sorted(history(str(second.run_id), "training/loss")) == [50, 100, 150, 200]
    assert sorted(history(str(third.run_id), "training/loss")) == [50, 100]


def test_the_same_training_of_two_clones_has_two_runs(tracking: str) -> None:
    clones = [Surroundings({CHECKPOINTS: mark}) for mark in ("0a1b", "s3://bucket/checkpoints")]
    first, second = (begin(surroundings=clone) for clone in clones)
    assert first.finish("KILLED", limit=30)
    assert second.finish("KILLED", limit=30)
    assert first.run_id != second.run_id
    for clone, run_id in zip(clones, (first.run_id, second.run_id), strict=True):
        again = begin(surroundings=clone)
        assert again.finish("KILLED", limit=30)
        assert again.run_id == run_id
    assert len(all_runs()) == 2


def test_the_run_that_a_training_noted_comes_before_an_unfinished_one(tracking: str) -> None:
    trained = begin()
    assert trained.finish(limit=30)
    other = begin(anew=True)
    assert other.finish("KILLED", limit=30)
    arguments = ("digits", "resnet20-s3", "abc", PARAMETERS, {}, rows(50, 100))
    assert runs.send_history(*arguments, run_id=trained.run_id) == trained.run_id
    assert runs.send_history(*arguments, run_id="f" * 32) == other.run_id, "the one noted is of another store"
    store.client().delete_run(str(trained.run_id))
    assert runs.send_history(*arguments, run_id=trained.run_id) == other.run_id
    assert runs.send_history("digits", "resnet20-s3", "xyz", {}, {}, [], run_id=other.run_id) != other.run_id


def test_a_run_began_when_its_training_did(tracking: str) -> None:
    training = begin()
    assert training.finish(limit=30)
    assert store.client().get_run(str(training.run_id)).info.start_time == training._began


def test_a_run_stays_with_the_store_that_it_began_in(tracking: str, tmp_path: Path) -> None:
    training = begin()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/another.db")
    training.log_curves(rows(50, 100))
    assert training.finish(limit=30)
    assert not (tmp_path / "another.db").exists()
    mlflow.set_tracking_uri(tracking)
    assert sorted(history(str(training.run_id), "training/loss")) == [50, 100]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("hf://datasets/uoft-cs/cifar10", "local"),
        ("s3a://bucket/images", "local"),
        ("s3://bucket/images", "s3"),
        ("digits", "local"),
    ],
)
def test_data_from_anywhere_are_noted(tracking: str, source: str, kind: str) -> None:
    training = begin(dataset=("digits", "d" * 64, source))
    training.log_curves(rows(50, 100))
    assert training.finish(limit=30)
    run = store.client().get_run(str(training.run_id))
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.source_type, json.loads(found.dataset.source)) == (kind, {"uri": source})
    assert run.info.status == "FINISHED", "what comes after the data is there"


def test_changed_parameters_of_a_continued_run_become_a_tag(tracking: str) -> None:
    assert begin().finish("FAILED", limit=30)
    changed = {**PARAMETERS, "workers": 2, "training": {"batch_size": 128}}
    second = TrainingRun.start_or_continue("digits", "resnet20-s3", "abc", changed, {})
    assert second.finish(limit=30)
    (run,) = all_runs()
    assert run.data.params["workers"] == "2"
    assert run.data.params["training.batch_size"] == "64"
    assert json.loads(run.data.tags["parameters.changed"]) == {"training.batch_size": "128"}


def test_long_histories_and_parameters_go_in_several_batches(tracking: str) -> None:
    tree = {f"key{i}": i for i in range(250)} | {"long": "x" * 7000}
    training = TrainingRun.start_or_continue("digits", "resnet20-s3", "abc", tree, {})
    training.log_curves(rows(1, 400, every=1))
    assert training.finish(limit=60)
    (run,) = all_runs()
    assert len(run.data.params) == 251
    assert run.data.params["long"] == "(long: see parameters.json)"
    assert json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/parameters.json")) == tree
    assert list(history(run.info.run_id, "training/loss")) == list(range(1, 401))


def test_history_is_sent_later_once(tracking: str) -> None:
    unfinished = begin()
    unfinished.log_curves(rows(50, 100))
    assert unfinished._outbox.close(30)
    for _ in range(2):
        sent = runs.send_history("digits", "resnet20-s3", "abc", PARAMETERS, {}, rows(50, 300))
        assert sent == unfinished.run_id
    assert sorted(history(str(sent), "training/loss")) == list(range(50, 301, 50))
    assert all_runs()[0].info.status == "FINISHED"


def test_a_deleted_run_stops_the_sending_but_not_the_training(tracking: str, caplog: pytest.LogCaptureFixture) -> None:
    training = begin()
    run_id = training.wait_for_run_id(30)
    assert run_id
    assert training._outbox.flush(30)
    store.client().delete_run(run_id)
    training.log_curves(rows(50, 100))
    assert not training._outbox.flush(30)
    training.log_curves(rows(150, 200))
    assert not training.finish(limit=5)
    warnings = [record.message for record in caplog.records if record.name.startswith("pipeline")]
    assert len(warnings) == 1
    assert "must be in the 'active' state" in warnings[0]
