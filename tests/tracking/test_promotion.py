"""Promotions by hand: recorded, refused when they look worse, rolled back, and consistent when two come at once."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

import pytest
from mlflow import MlflowClient

from pipeline.tracking import aliases, promotion, store
from pipeline.tracking.aliases import promotions, settle
from tests.tracking.forks import at_once
from tests.tracking.test_registry import new_run

pytestmark = pytest.mark.slow

NAME = "digits-resnet8"
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
    found.create_registered_model(NAME, tags={"experiment": "digits"})
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
    assert [(each["who"], each["why"]) for each in undone.undone] == [("bob", "not enough")]
    assert promotion.history(NAME)[-1] == undone
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
    for own in ("latest", "Latest", "v1", "V12"):
        with pytest.raises(ValueError, match="MLflow's own name"):
            promotion.promote(NAME, "1", "typing", alias=own)
    for unusable in ("", "my alias", "a/b", "x" * 256):
        with pytest.raises(ValueError, match="an alias has letters"):
            promotion.promote(NAME, "1", "typing", alias=unusable)
    assert promotion.history(NAME) == [], "what was refused is not on record"
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


AT_ONCE = """
import time
from pipeline.tracking import promotion, store

def work(version):
    store.initialise()
    for i in range(6):
        while i == 3 and len({made.who for made in promotion.history('digits-resnet8')}) < 2:
            time.sleep(0.05)  # however busy the machine, neither is over before the other has begun
        promotion.promote('digits-resnet8', version, f'turn {i}', who=version)
        if i % 3 == 2:
            promotion.rollback('digits-resnet8', f'or not {i}', who=version)
"""


def test_promotions_by_two_processes_at_once_end_in_one_consistent_state(client: MlflowClient, tracking: str) -> None:
    at_once(AT_ONCE, ["1", "2"], tracking)
    made = promotions(client.get_registered_model(NAME))
    assert sorted((each.who, each.why) for each in made) == sorted((w, f"turn {i}") for w in "12" for i in range(6))
    undone = [(record["who"], record["why"]) for each in made for record in each.undone]
    assert sorted(undone) == sorted((w, f"or not {i}") for w in "12" for i in (2, 5)), "every rollback is on record"
    last = [each for each in made if not each.undone][-1]
    assert alias() == int(last.version)
    turns = [each.who for each in made]
    assert turns not in (sorted(turns), sorted(turns, reverse=True)), "they never met"


def test_two_rollbacks_that_see_the_same_promotion_are_both_on_record(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion.promote(NAME, "3", "first", force=True)
    promotion.promote(NAME, "1", "second")
    seen = promotion._known(client, NAME)
    promotion.rollback(NAME, "too early", who="ada")
    monkeypatch.setattr(promotion, "_known", lambda *_: seen)
    promotion.rollback(NAME, "not evaluated well", who="bob")
    first, second = promotions(client.get_registered_model(NAME))
    assert [record["who"] for record in second.undone] == ["ada", "bob"]
    assert (first.undone, alias()) == ((), 3), "one undone, once"


def test_a_promotion_counts_as_later_than_one_of_a_machine_whose_clock_is_ahead(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=2)

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(aliases, "datetime", Ahead)
        promotion.promote(NAME, "1", "elsewhere")
    promotion.promote(NAME, "2", "here, a moment later")
    assert alias() == 2
    assert [made.why for made in promotion.history(NAME)] == ["elsewhere", "here, a moment later"]
