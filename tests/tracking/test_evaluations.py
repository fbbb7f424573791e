"""Errors on the runs they belong to, however often they are logged."""

from __future__ import annotations

import pytest

from pipeline.tracking import evaluations, store
from pipeline.tracking.runs import TrainingRun
from tests.tracking.factory import METRICS

pytestmark = pytest.mark.slow


def trained(run: str) -> str:
    training = TrainingRun.start_or_continue("digits", run, f"identity of {run}", {"a": 1}, {})
    assert training.finish(limit=30)
    return str(training.run_id)


def points(run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client().get_metric_history(run_id, metric)]


def test_an_evaluation_is_logged_once_on_the_training_s_run(tracking: str) -> None:
    run_id = trained("resnet20-s0")
    for given in (run_id, None):
        found = evaluations.log_evaluation(
            "digits", "resnet20-s0", given, METRICS, iterations=600, identity="identity of resnet20-s0"
        )
        assert found == run_id
    run = store.client().get_run(run_id)
    assert run.data.metrics == {
        "test/center_crop/top1_error": 5.5,
        "test/center_crop/top5_error": 0.25,
        "test/center_crop/n_images": 360,
        "holdout/top1_error": 4.5,
        "holdout/top5_error": 0.5,
        "holdout/n_images": 200,
    }
    assert points(run_id, "test/center_crop/top1_error") == [(600, 5.5)]
    assert run.info.status == "FINISHED"


def test_a_changed_evaluation_is_the_latest_value(tracking: str) -> None:
    run_id = trained("resnet20-s0")
    for error in (5.5, 6.5):
        changed = {"ten_crop": {"top1_error": error}}
        evaluations.log_evaluation("digits", "resnet20-s0", run_id, changed, iterations=600, split="val")
    assert store.client().get_run(run_id).data.metrics == {"val/ten_crop/top1_error": 6.5}


def test_an_evaluation_of_an_unknown_training_is_refused(tracking: str) -> None:
    with pytest.raises(ValueError, match=r"digits/resnet20-s0: MLflow at sqlite.* has no run of identity zzz"):
        evaluations.log_evaluation("digits", "resnet20-s0", None, METRICS, iterations=600, identity="zzz")


def test_an_ensemble_has_one_run_that_links_its_members(tracking: str) -> None:
    members = ["resnet20-s0", "resnet56-s0"]
    run_ids: dict[str, str | None] = {member: trained(member) for member in members}
    logged = {evaluations.log_ensemble("digits", "resnets", members, run_ids, METRICS) for _ in range(2)}
    assert len(logged) == 1
    run = store.client().get_run(logged.pop())
    assert run.info.run_name == "ensemble-resnets"
    assert run.info.status == "FINISHED"
    assert run.data.tags["members"] == "resnet20-s0, resnet56-s0"
    assert run.data.tags["member.resnet56-s0"] == run_ids["resnet56-s0"]
    assert f"/runs/{run_ids['resnet20-s0']})" in run.data.tags["mlflow.note.content"]
    assert points(run.info.run_id, "test/center_crop/top1_error") == [(0, 5.5)]
    retrained: dict[str, str | None] = {**run_ids, "resnet20-s0": trained("resnet20-s1")}
    assert evaluations.log_ensemble("digits", "resnets", members, retrained, METRICS) != run.info.run_id


def test_an_ensemble_whose_members_runs_are_not_here_is_refused(tracking: str) -> None:
    members, client = ["resnet20-s0", "resnet56-s0", "resnet56-s1"], store.client()
    deleted = trained("resnet56-s1")
    client.delete_run(deleted)
    run_ids = {"resnet20-s0": trained("resnet20-s0"), "resnet56-s0": "f" * 32, "resnet56-s1": deleted}
    with pytest.raises(ValueError, match=r"ensemble all: MLflow at sqlite.* has no runs of resnet56-s0, resnet56-s1"):
        evaluations.log_ensemble("digits", "all", members, run_ids, METRICS)
    assert len(client.search_runs([store.experiment_id("digits")])) == 1, "no run of an ensemble"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("https://me:secret@mlflow.example:8443/prefix/?token=x", "https://mlflow.example:8443/prefix/#/experiments/7"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9/#/experiments/7"),
        ("postgresql://me:secret@db/mlflow", "#/experiments/7"),
    ],
)
def test_a_link_can_be_followed_and_has_no_password(uri: str, address: str) -> None:
    store.initialise(uri)
    assert evaluations.run_link("7", "0a1b") == f"{address}/runs/0a1b"


def test_an_ensemble_of_one_is_refused(tracking: str) -> None:
    with pytest.raises(ValueError, match="name at least two runs"):
        evaluations.log_ensemble("digits", "resnets", ["resnet20-s0"], {}, METRICS)
