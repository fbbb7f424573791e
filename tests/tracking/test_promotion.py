"""Promotions by hand: recorded, refused when they look worse, rolled back; and a check of the registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.tracking import promotion, registry, store
from tests.tracking.factory import model_folder
from tests.tracking.test_registry import new_run, register

NAME = "digits-resnet8"


@pytest.fixture
def three_versions(tracking: str, tmp_path: Path) -> list[Path]:
    """Versions 1 to 3 with 4.5, 3.0 and 20% error on 200 held-out images: @best is 2."""
    folders = [model_folder(tmp_path / str(seed), "resnet8-s0", seed) for seed in range(3)]
    for folder, holdout in zip(folders, (4.5, 3.0, 20.0), strict=True):
        register(folder, new_run(), holdout)
    return folders


def best() -> int:
    return int(store.client().get_model_version_by_alias(NAME, "best").version)


def test_promotion_is_recorded_holds_and_is_rolled_back(three_versions: list[Path]) -> None:
    record = promotion.promote(NAME, "1", "seen to be steadier", who="ada")
    assert (record["version"], record["previous"], record["who"], record["forced"]) == ("1", "2", "ada", False)
    assert best() == 1
    register(three_versions[1], new_run(), holdout=2.0)
    assert best() == 1, "held against the rule"
    assert promotion.promote(NAME, "2", "enough")["previous"] == "1"
    undone = promotion.rollback(NAME, "not enough", who="bob")
    assert best() == 1
    assert (undone["version"], undone["undone"]["who"]) == ("2", "bob")
    promotion.rollback(NAME, "back to the rule")
    assert best() == 2
    with pytest.raises(ValueError, match="no promotion to roll back"):
        promotion.rollback(NAME, "again")
    assert [entry["why"] for entry in promotion.history(store.client(), NAME)] == ["seen to be steadier", "enough"]


def test_a_worse_version_is_refused_unless_forced(three_versions: list[Path]) -> None:
    with pytest.raises(
        ValueError, match=r"version 3 errs on 20.00% of held-out images, version 2 on 3.00% \(noise 6.03\)"
    ):
        promotion.promote(NAME, "3", "hope")
    assert best() == 2
    assert promotion.promote(NAME, "3", "hope", force=True)["forced"] is True
    assert best() == 3


def test_a_version_unknown_or_not_evaluated_is_refused(three_versions: list[Path]) -> None:
    with pytest.raises(ValueError, match="no version 9 that is ready; there are: 1, 2, 3"):
        promotion.promote(NAME, "9", "typing")
    for protocol in ("center_crop", "holdout"):
        store.client().delete_model_version_tag(NAME, "1", f"top1_error.{protocol}")
    with pytest.raises(ValueError, match="version 1 was never evaluated"):
        promotion.promote(NAME, "1", "haste")


def test_the_check_finds_lost_runs_lost_files_and_doubles(three_versions: list[Path]) -> None:
    client = store.client()
    assert promotion.check(NAME) == []
    versions = {int(version.version): version for version in registry.versions_of(client, NAME)}
    client.delete_run(versions[1].run_id)
    location = client.get_logged_model(str(versions[2].source).removeprefix("models:/")).artifact_location
    shutil.rmtree(Path(location) / "code")
    client.set_model_version_tag(NAME, "3", registry.WEIGHTS_TAG, versions[2].tags[registry.WEIGHTS_TAG])
    assert sorted(promotion.check(NAME)) == [
        f"{NAME} version 1: its run {versions[1].run_id} was deleted",
        f"{NAME} version 2: its files are incomplete, without code",
        f"{NAME} version 3: the weights of version 2 again",
    ]
