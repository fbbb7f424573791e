"""An experiment whose images lie in S3: the stage's out is the manifest, training and testing read through a cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipeline.data.store import Store
from tests.e2e.clone import Clone
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_training_and_evaluation_read_a_store_in_s3(s3: str, s3_server: S3Server, tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone")
    cache = tmp_path / "cache"
    clone.more_environment = {**s3_server.environment(), "RESNET_CACHE": str(cache)}
    clone.change(lambda tree: tree["data"].update(store=f"{s3}/digits"))
    clone.run("dvc", "repro", "evaluate@digits-resnet8-s0")
    assert [path.name for path in (clone.folder / "data" / "digits").iterdir()] == ["manifest.json"]
    assert any(name.endswith(".arrow") for name in S3FileSystem().find(f"{s3}/digits"))
    manifest = Store.open(clone.folder / "data" / "digits").manifest
    shards = {shard.sha256 for split in manifest.splits.values() for shard in split.shards}
    assert shards <= {path.name for path in cache.iterdir()}
    record = json.loads((clone.folder / "models/digits/resnet8-s0/train.json").read_text())
    errors = json.loads((clone.folder / "results/digits/runs/resnet8-s0.json").read_text())
    assert record["iterations"] == 120
    assert errors["ten_crop"]["n_images"] == 500
    assert errors["ten_crop"]["top1_error"] < 60
    for path in clone.folder.rglob("*.json"):
        assert s3_server.secret_key not in path.read_text(), f"{path} holds the secret key"
