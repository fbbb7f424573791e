"""No password or key reaches a run's page."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking import store
from pipeline.tracking.runs import TrainingRun
from pipeline.tracking.secrets import hide
from pipeline.tracking.surroundings import Surroundings
from tests.tracking.test_surroundings import repository  # noqa: F401  (a fixture)

ADDRESSES = {
    "s3://bucket/images": "s3://bucket/images",
    "s3://bucket/a@b": "s3://bucket/a@b",
    "https://user:pa%24s@host/x": "https://***@host/x",
    "postgresql://user@host/db": "postgresql://***@host/db",
    "https://h/x?X-Amz-Signature=0a1&part=2#top": "https://h/x?X-Amz-Signature=***&part=2#top",
    "https://h/x?a=1&api_key=k": "https://h/x?a=1&api_key=***",
    "https://user:p@ss@host/x?mail=a@b": "https://***@host/x?mail=a@b",
    "https://host?mail=a@b": "https://host?mail=a@b",
    "https://h.blob.core.windows.net/c?sv=2024&sig=0a1%3D&se=9": "https://h.blob.core.windows.net/c?sv=2024&sig=***&se=9",
    "https://h/x?sigma=2": "https://h/x?sigma=2",
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
def test_nothing_that_mlflow_keeps_of_a_run_has_a_secret(tracking: str, repository: Path) -> None:  # noqa: F811
    (repository / "pipeline" / "a.py").write_text("A = 'https://ada:hunter4@host/x?token=hunter5'\n")
    url = "https://ada:hunter2@host/images?token=hunter3"
    training = TrainingRun.start_or_continue(
        "digits",
        "resnet20-s0",
        "abc",
        {"data": {"url": url}},
        {"origin": url},
        dataset=("digits", "d" * 64, url),
        provenance={"parameters": {"data": {"url": url}}},
        surroundings=Surroundings.here({"checkpoints": url}),
    )
    assert training.finish(limit=30)
    run = store.client().get_run(str(training.run_id))
    kept = json.dumps([run.data.params, run.data.tags, run.inputs.dataset_inputs[0].dataset.to_dictionary()])
    kept += mlflow.artifacts.load_text(f"runs:/{training.run_id}/parameters.json")
    kept += mlflow.artifacts.load_text(f"runs:/{training.run_id}/provenance.json")
    patch = mlflow.artifacts.load_text(f"runs:/{training.run_id}/code.patch")
    assert "+A = 'https://***@host/x?token=***'" in patch
    kept += patch
    assert "https://***@host/images?token=***" in kept
    assert "hunter" not in kept
