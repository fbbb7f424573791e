"""Promotions by hand: recorded, refused when they look worse, rolled back, and consistent when two come at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.tracking import promotion, store
from pipeline.tracking.aliases import promotions, settle
from tests.tracking.test_registry import new_run

pytestmark = pytest.mark.slow

NAME = "digits-resnet8"
REPOSITORY = Path(__file__).parents[2]
SAME = {"data.digest": "d", "data.holdout": "{}"}


def add_version(holdout: float | None, test: float | None = None, **tags: str) -> str:
    """A version with errors in percent on 200 held-out and 500 test images; its files are none."""
    found = {"top1_error.holdout": holdout, "top1_error.center_crop": test}
    counts = {"n_images.holdout": "200", "n_images.center_crop": "500"}
    measured = {name: str(value) for name, value in found.items() if value is not None}
    client = store.client()
    made = client.create_model_version(NAME, "file:///nowhere", new_run(), tags={**SAME, **counts, **measured, **tags})
    settle(client, NAME)
    return str(made.version)


@pytest.fixture
def client(tracking: str) -> MlflowClient:
    """A registered model with versions 1 to 3 of 4.5, 3.0 and 20% error on held-out images: @best is 2."""
    found = store.client()
    found.create_registered_model(NAME)
    for holdout in (4.5, 3.0, 20.0):
        add_version(holdout)
    return found


def alias(name: str = "best") -> int:
    return int(store.client().get_model_version_by_alias(NAME, name).version)


def test_promotion_is_recorded_holds_and_is_rolled_back(client: MlflowClient) -> None:
    made = promotion.promote(NAME, "1", "seen to be steadier", who="ada")
    assert (made.alias, made.version, made.previous, made.who, made.forced) == ("best", "1", "2", "ada", False)
    assert alias() == 1
    add_version(2.0)
    assert alias() == 1, "held against the rule"
    assert promotion.promote(NAME, "2", "enough").previous == "1"
    undone = promotion.rollback(NAME, "not enough", who="bob")
    assert alias() == 1
    assert undone.version == "2"
    assert undone.undone is not None
    assert undone.undone["who"] == "bob"
    promotion.rollback(NAME, "back to the rule")
    assert alias() == 4
    with pytest.raises(ValueError, match="no promotion to roll back"):
        promotion.rollback(NAME, "again")
    assert [made.why for made in promotion.history(NAME)] == ["seen to be steadier", "enough"]


def test_a_worse_version_is_refused_unless_forced(client: MlflowClient) -> None:
    with pytest.raises(
        ValueError, match=r"version 3 errs on 20.00% of held-out images, version 2 on 3.00% \(noise 6.03\)"
    ):
        promotion.promote(NAME, "3", "hope")
    assert alias() == 2
    assert promotion.promote(NAME, "3", "hope", force=True).forced is True
    assert alias() == 3


def test_without_common_held_out_images_test_images_are_the_safeguard(client: MlflowClient) -> None:
    other = add_version(1.0, 5.0, **{"data.holdout": "another"})
    worse = add_version(0.5, 15.0, **{"data.holdout": "a third"})
    assert alias() == int(worse), "each holdout for itself: the rule knows no test error"
    promotion.promote(NAME, other, "less test error")
    with pytest.raises(ValueError, match=r"errs on 15.00% of test images \(center_crop\), version 4 on 5.00%"):
        promotion.promote(NAME, worse, "hope")


def test_a_version_unknown_or_not_evaluated_is_refused(client: MlflowClient) -> None:
    with pytest.raises(ValueError, match="no version 9 that is ready; there are: 1, 2, 3"):
        promotion.promote(NAME, "9", "typing")
    with pytest.raises(ValueError, match=f"digits-resnet9: no such registered model; there are: {NAME}"):
        promotion.promote("digits-resnet9", "1", "typing")
    with pytest.raises(ValueError, match="MLflow's own name"):
        promotion.promote(NAME, "1", "typing", alias="latest")
    bare = add_version(None)
    with pytest.raises(ValueError, match="version 4 was never evaluated"):
        promotion.promote(NAME, bare, "haste")


def test_other_aliases_are_promoted_and_taken_away_again(client: MlflowClient) -> None:
    promotion.promote(NAME, "1", "for the demonstration", alias="shown")
    assert (alias("shown"), alias()) == (1, 2)
    promotion.rollback(NAME, "over", alias="shown")
    assert client.get_registered_model(NAME).aliases == {"best": 2}


def test_paper_names_the_best_of_the_report_at_hand(client: MlflowClient) -> None:
    for version, report in (("1", "old"), ("3", "new")):
        client.set_model_version_tag(NAME, version, "report.sha256", report)
    for report, expected in (("old", 1), ("new", 3)):
        client.set_registered_model_tag(NAME, "report.sha256", report)
        settle(client, NAME)
        assert (alias("paper"), alias()) == (expected, 2)
    client.set_model_version_tag(NAME, "2", "report.sha256", "new")
    settle(client, NAME)
    assert alias("paper") == 2
    client.delete_registered_model_tag(NAME, "report.sha256")
    settle(client, NAME)
    assert "paper" not in client.get_registered_model(NAME).aliases


def test_promotions_by_two_processes_at_once_end_in_one_consistent_state(client: MlflowClient, tracking: str) -> None:
    code = (
        "import sys, time\n"
        "from pipeline.tracking import promotion, store\n"
        "store.initialise()\n"
        "store.client()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for i in range(10):\n"
        "    promotion.promote('digits-resnet8', sys.argv[1], f'turn {i}', who=sys.argv[1])\n"
        "    if i % 3 == 2:\n"
        "        promotion.rollback('digits-resnet8', 'or not', who=sys.argv[1])\n"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", code, version], cwd=REPOSITORY, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        for version in ("1", "2")
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    for process in both:
        process.stdin.close()
        process.stdout.close()
    made = promotions(client.get_registered_model(NAME))
    assert sorted((each.who, each.why) for each in made) == sorted((w, f"turn {i}") for w in "12" for i in range(10))
    undone = sum(each.undone is not None for each in made)
    assert 3 <= undone <= 6, "two rollbacks at the same moment undo the same promotion"
    last = [each for each in made if each.undone is None][-1]
    assert alias() == int(last.version)
