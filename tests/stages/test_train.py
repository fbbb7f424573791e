"""What the train stage hands to its workers."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import cluster
from pipeline.config import Params, parse_params
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.paths import data_dir
from pipeline.stage import Stage
from pipeline.training.session import RunSpec, Session
from stages import train
from stages.train import make_spec
from tests.cluster.conftest import small_params

RUN = "resnet8-s0"


def params_with(store: str | None) -> Params:
    tree = small_params().model_dump(mode="json")
    tree["data"]["store"] = store
    return parse_params(tree)


def test_workers_that_do_not_see_the_drivers_folder_open_the_store_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = params_with(f"file://{tmp_path}/shared")
    prepare(params.data, data_dir("digits"))
    spec = make_spec(Stage(params, "digits", RUN, waited=False))
    here = Store.open(data_dir("digits"))
    assert spec.store == here.manifest.store
    assert spec.store.startswith(f"file://{tmp_path}/shared/digits/")
    assert (spec.data_digest, spec.identity()["data_digest"]) == (here.digest, here.digest)
    shutil.rmtree("data")
    session = Session(spec, device=torch.device("cpu"))
    assert next(iter(session.trainer.advance(1))) == 1


def test_the_record_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = params_with(None).model_dump(mode="json")
    prepare(parse_params(tree).data, data_dir("digits"))
    tree["data"]["url"] = "https://ada:hunter2@host/x?token=hunter3"
    kept: list[dict[str, Any]] = []

    def kept_record(at: Stage, spec: RunSpec, provenance: dict[str, Any]) -> dict[str, Any]:
        kept.append(provenance)
        return {"test_error": 1.0, "iterations": 2}

    monkeypatch.setattr(train, "_train", kept_record)
    monkeypatch.setattr(cluster, "session", lambda settings: contextlib.nullcontext())
    train.run(Stage(parse_params(tree), "digits", RUN, waited=False))
    assert kept[0]["parameters"]["data"]["url"] == "https://***@host/x?token=***"


def test_a_store_beside_its_manifest_is_named_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = params_with(None)
    prepare(params.data, data_dir("digits"))
    spec = make_spec(Stage(params, "digits", RUN, waited=False))
    assert spec.store == str(tmp_path / "data/digits")
    assert spec.data_digest == Store.open(tmp_path / "data/digits").digest
