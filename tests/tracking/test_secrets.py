"""No password or key reaches a run's page."""

from __future__ import annotations

import json

import mlflow
import pytest

from pipeline.tracking import store
from pipeline.tracking.runs import TrainingRun
from pipeline.tracking.secrets import hide

ADDRESSES = {
    "s3://bucket/images": "s3://bucket/images",
    "s3://bucket/a@b": "s3://bucket/a@b",
    "https://user:pa%24s@host/x": "https://***@host/x",
    "postgresql://user@host/db": "postgresql://***@host/db",
    "https://h/x?X-Amz-Signature=0a1&part=2#top": "https://h/x?X-Amz-Signature=***&part=2#top",
    "https://h/x?a=1&api_key=k": "https://h/x?a=1&api_key=***",
    "a sentence: one two": "a sentence: one two",
}


@pytest.mark.parametrize("given", ADDRESSES)
def test_users_passwords_and_signatures_are_taken_out_of_addresses(given: str) -> None:
    assert hide(given) == ADDRESSES[given]


def test_keys_named_like_secrets_lose_their_values() -> None:
    tree = {
        "cluster": {"storage": "s3://k:s@b", "token": "abc", "workers": 2},
        "weight_decay": 0.1,
        "list": ["x://a@b"],
    }
    expected = {"cluster": {"storage": "s3://***@b", "token": "***", "workers": 2}, "weight_decay": 0.1}
    assert hide(tree) == expected | {"list": ["x://***@b"]}


@pytest.mark.slow
def test_nothing_that_mlflow_keeps_of_a_run_has_a_secret(tracking: str) -> None:
    url = "https://ada:hunter2@host/images?token=hunter3"
    training = TrainingRun.start_or_continue(
        "digits",
        "resnet20-s0",
        "abc",
        {"data": {"url": url}},
        {"origin": url},
        dataset=("digits", "d" * 64, url),
        provenance={"parameters": {"data": {"url": url}}},
    )
    assert training.finish(limit=30)
    run = store.client().get_run(str(training.run_id))
    kept = json.dumps([run.data.params, run.data.tags, run.inputs.dataset_inputs[0].dataset.to_dictionary()])
    kept += mlflow.artifacts.load_text(f"runs:/{training.run_id}/parameters.json")
    kept += mlflow.artifacts.load_text(f"runs:/{training.run_id}/provenance.json")
    assert "https://***@host/images?token=***" in kept
    assert "hunter" not in kept
