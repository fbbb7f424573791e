"""Where a registered model's aliases point: each by its rule, unless a promotion by hand holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

BEST, PAPER, LATEST = "best", "paper", "latest"
HOLDOUT_TAG, REPORT_TAG = "top1_error.holdout", "report.sha256"
COMPARABLE = ("data.digest", "data.holdout")
PROMOTION = "promotion."
"""Begins the key of a registered model's tag that records a promotion; when it was and a random part follow."""
_ROUNDS = 20


@dataclass(frozen=True)
class Promotion:
    """The record of an alias put on a version by hand."""

    key: str
    alias: str
    version: str
    previous: str | None
    """Where the alias pointed before."""
    who: str
    when: str
    why: str
    forced: bool
    """It was promoted in spite of an objection."""
    undone: dict[str, str] | None = None
    """Who rolled it back, when and why."""

    def text(self) -> str:
        """The tag's value, JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "key"})


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model that are ready for use."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [version for version in page if version.status == "READY"]
        token = page.token
        if not token:
            return found


def best_version(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The version that @best names by its rule (see description.BEST_RULE); None where there is none."""
    if not versions:
        return None
    newest = max(versions, key=lambda version: int(version.version))
    same = [v for v in versions if all(v.tags.get(tag) == newest.tags.get(tag) for tag in COMPARABLE)]
    measured = [version for version in same if HOLDOUT_TAG in version.tags]
    if not measured:
        return newest
    return min(measured, key=lambda version: (float(version.tags[HOLDOUT_TAG]), -int(version.version)))


def promotions(model: RegisteredModel) -> list[Promotion]:
    """A registered model's promotions, oldest first."""
    tags: dict[str, str] = model.tags
    found = {key: json.loads(value) for key, value in tags.items() if key.startswith(PROMOTION)}
    return [Promotion(key, **found[key]) for key in sorted(found)]


def targets(model: RegisteredModel, versions: Sequence[ModelVersion]) -> dict[str, ModelVersion | None]:
    """The version that each alias is to name: of the last promotion that stands, else by the alias's rule.

    @best is `best_version`; @paper the best of those that the report at hand shows; another alias has no rule.
    """
    report = model.tags.get(REPORT_TAG)
    reported = [version for version in versions if report and version.tags.get(REPORT_TAG) == report]
    found = {BEST: best_version(versions), PAPER: best_version(reported)}
    found |= {promotion.alias: None for promotion in promotions(model) if promotion.alias not in found}
    ready = {str(version.version): version for version in versions}
    standing = [p for p in promotions(model) if p.undone is None and p.version in ready]
    return found | {promotion.alias: ready[promotion.version] for promotion in standing}


def settle(client: MlflowClient, name: str) -> None:
    """Make the aliases name what `targets` says, and look again until nothing changes.

    Whoever changes a promotion writes its record first and then settles, so of several at once the last to look has
    seen every record, wherever they run. RuntimeError if the records change faster than that for 20 rounds.
    """
    for _ in range(_ROUNDS):
        model = client.get_registered_model(name)
        found = {alias: str(version) for alias, version in model.aliases.items()}
        wanted = targets(model, versions_of(client, name))
        wrong = {a: v for a, v in wanted.items() if found.get(a) != (None if v is None else str(v.version))}
        if not wrong:
            return
        for alias, version in wrong.items():
            if version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(version.version))
    raise RuntimeError(f"{name}: its promotions keep changing; see who else is at it, and try again")


def aliases_of(client: MlflowClient, name: str, version: str) -> list[str]:
    """The aliases of a version; `latest` is MLflow's own for the newest."""
    found = [alias for alias, target in client.get_registered_model(name).aliases.items() if str(target) == version]
    newest = max((int(v.version) for v in versions_of(client, name)), default=0)
    return sorted(found + ([LATEST] if int(version) == newest else []))


def alias_target(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias names now; None where there is no such alias."""
    target: Any = client.get_registered_model(name).aliases.get(alias)
    return None if target is None else str(target)
