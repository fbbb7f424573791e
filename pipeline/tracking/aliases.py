"""Where a registered model's aliases point: each by its rule, unless a promotion by hand holds it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from pipeline.tracking.store import all_pages, write

BEST, PAPER, LATEST = "best", "paper", "latest"
HOLDOUT_TAG, REPORT_TAG = "top1_error.holdout", "report.sha256"
COMPARABLE = ("data.digest", "data.holdout")
PROMOTION, ROLLBACK = "promotion.", "rollback."
"""Begin the keys of a registered model's tags that record a promotion and a rollback; when it was and a random part
follow. A record is written once and never changed, so whatever meets, wherever it runs, none is lost.
"""
_STAMP = "%Y%m%dT%H%M%S.%f"
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
    undone: tuple[dict[str, str], ...] = ()
    """Who rolled it back, when and why; more than one where rollbacks met."""

    def text(self) -> str:
        """The tag's value, JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if name not in ("key", "undone")})


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a registered model that are ready for use."""
    found = all_pages(lambda token: client.search_model_versions(f"name = '{name}'", page_token=token))
    return [version for version in found if version.status == "READY"]


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
    """A registered model's promotions, oldest first, each with its rollbacks."""
    tags: dict[str, str] = model.tags
    found = {key: json.loads(tags[key]) for key in sorted(tags) if key.startswith((PROMOTION, ROLLBACK))}
    rollbacks = [value for key, value in found.items() if key.startswith(ROLLBACK)]
    undone = {key: tuple(value["undone"] for value in rollbacks if value["promotion"] == key) for key in found}
    return [Promotion(key, **found[key], undone=undone[key]) for key in found if key.startswith(PROMOTION)]


def new_key(model: RegisteredModel, kind: str) -> str:
    """The key of a record that is made now: after all that are there, even of a machine whose clock is ahead."""
    records = [key for key in model.tags if key.startswith((PROMOTION, ROLLBACK))]
    stamps = [key.partition(".")[2].rpartition(".")[0] for key in records]
    now = datetime.now(UTC).strftime(_STAMP)
    if stamps and now <= max(stamps):
        now = (datetime.strptime(max(stamps), _STAMP) + timedelta(microseconds=1)).strftime(_STAMP)
    return f"{kind}{now}.{secrets.token_hex(4)}"


def targets(model: RegisteredModel, versions: Sequence[ModelVersion]) -> dict[str, ModelVersion | None]:
    """The version that each alias is to name: of the last promotion that stands, else by the alias's rule.

    @best is `best_version`; @paper the best of those that the report at hand shows; another alias has no rule.
    """
    report = model.tags.get(REPORT_TAG)
    reported = [version for version in versions if report and version.tags.get(REPORT_TAG) == report]
    found = {BEST: best_version(versions), PAPER: best_version(reported)}
    found |= {promotion.alias: None for promotion in promotions(model) if promotion.alias not in found}
    ready = {str(version.version): version for version in versions}
    standing = [p for p in promotions(model) if not p.undone and p.version in ready]
    return found | {promotion.alias: ready[promotion.version] for promotion in standing}


def settle(client: MlflowClient, name: str) -> None:
    """Make the aliases name what `targets` says, and look again until nothing changes.

    Whoever promotes or rolls back writes a record first and then settles, so of several at once the last to look has
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
            _point(client, name, alias, version)
    raise RuntimeError(f"{name}: its promotions keep changing; see who else is at it, and try again")


def _point(client: MlflowClient, name: str, alias: str, version: ModelVersion | None) -> None:
    """Put an alias on a version, or take it away; a version that was deleted since it was seen is passed over."""
    if version is None:
        client.delete_registered_model_alias(name, alias)
        return
    try:
        write(lambda: client.set_registered_model_alias(name, alias, str(version.version)))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def aliases_of(client: MlflowClient, name: str, version: str) -> list[str]:
    """The aliases of a version; `latest` is MLflow's own for the newest."""
    found = [alias for alias, target in client.get_registered_model(name).aliases.items() if str(target) == version]
    newest = max((int(v.version) for v in versions_of(client, name)), default=0)
    return sorted(found + ([LATEST] if int(version) == newest else []))


def alias_target(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias names now; None where there is no such alias."""
    target: Any = client.get_registered_model(name).aliases.get(alias)
    return None if target is None else str(target)
