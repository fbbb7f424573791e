"""The registry's check finds what was lost, doubled or moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.tracking import checking, evaluations, promotion, store
from pipeline.tracking.aliases import versions_of
from pipeline.tracking.registry import records
from tests.tracking.factory import EVALUATION, METRICS, model_folder
from tests.tracking.test_registry import ABOUT, new_run, register, register_model

pytestmark = pytest.mark.slow

NAME = "digits-resnet8"


def test_the_check_finds_lost_runs_lost_files_and_doubles(tracking: str, tmp_path: Path) -> None:
    for seed in range(3):
        register(model_folder(tmp_path / str(seed), "resnet8-s0", seed), new_run())
    client = store.client()
    assert list(checking.registered()) == [NAME]
    assert checking.registered("cifar10") == {}
    assert checking.check(NAME) == []
    versions = {int(version.version): version for version in versions_of(client, NAME)}
    client.delete_run(versions[1].run_id)
    location = client.get_logged_model(str(versions[2].source).removeprefix("models:/")).artifact_location
    shutil.rmtree(Path(location) / "code")
    client.set_model_version_tag(NAME, "3", checking.WEIGHTS_TAG, versions[2].tags[checking.WEIGHTS_TAG])
    assert sorted(checking.check(NAME)) == [
        f"{NAME} version 1: its run {versions[1].run_id} was deleted",
        f"{NAME} version 2: its files are incomplete, without code",
        f"{NAME} version 3: the weights of version 2 again",
    ]


def test_the_check_finds_lost_weights_of_a_member_and_lost_runs_of_members(tracking: str, tmp_path: Path) -> None:
    members = {f"resnet8-s{seed}": model_folder(tmp_path, f"resnet8-s{seed}", seed) for seed in range(2)}
    run_ids: dict[str, str | None] = {member: new_run() for member in members}
    own = evaluations.log_ensemble("digits", "both", list(members), run_ids, METRICS)
    register_model("digits-ensemble", "digits", members, own, METRICS, EVALUATION, ABOUT)
    assert checking.check("digits-ensemble") == []
    store.client().delete_run(str(run_ids["resnet8-s1"]))
    (weights,) = (tmp_path / "mlartifacts").rglob("resnet8-s1/weights.safetensors")
    weights.unlink()
    where = "digits-ensemble version 1"
    assert checking.check("digits-ensemble") == [
        f"{where}: the run of resnet8-s1 {run_ids['resnet8-s1']} was deleted",
        f"{where}: its files are incomplete, without artifacts/members/resnet8-s1/weights.safetensors",
    ]
    (checksums,) = (tmp_path / "mlartifacts").rglob("checksums.json")
    checksums.write_text("{\n")
    assert checking.check("digits-ensemble")[1].startswith(f"{where}: its files cannot be read: ")
    checksums.unlink()
    assert checking.check("digits-ensemble")[1] == (
        f"{where}: its files are incomplete, without artifacts/members/checksums.json"
    )


def test_the_registry_is_held_against_its_record(tracking: str, tmp_path: Path) -> None:
    made = [
        register(model_folder(tmp_path / str(seed), "resnet8-s0", seed), new_run(), 5.0 - seed, report="r")
        for seed in range(2)
    ]
    record = records(made)
    assert record[NAME]["version"] == "2"
    assert record[NAME]["versions"] == ["1", "2"]
    assert record[NAME]["aliases"] == ["best", "latest", "paper"]
    assert checking.check_record(record) == []
    promotion.promote(NAME, "1", "a slip", alias="paper")
    assert checking.check_record(record) == [f"{NAME}@paper: not at version 2, which the report at hand shows"]
    altered = {NAME: {**record[NAME], "weights_sha256": "0"}, "digits-gone": record[NAME]}
    assert checking.check_record(altered) == [
        f"{name} version 2: not there with the weights that registry.json names" for name in (NAME, "digits-gone")
    ]
