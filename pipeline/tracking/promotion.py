"""Promotion of a version to an alias by hand: on record, refused when it looks worse, and undone on request."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from pipeline.tracking import store
from pipeline.tracking.aliases import (
    BEST,
    COMPARABLE,
    LATEST,
    PROMOTION,
    ROLLBACK,
    Promotion,
    alias_target,
    new_key,
    promotions,
    settle,
    versions_of,
)
from pipeline.tracking.names import user

_ERROR, _COUNT = "top1_error.", "n_images."
_HOLDOUT = "holdout"
_Z_95 = 1.959964


def promote(
    name: str, version: str, why: str, *, alias: str = BEST, who: str | None = None, force: bool = False
) -> Promotion:
    """Put an alias on a version and keep it there, against the alias's rule; the promotion's record.

    ValueError for a model or version that is not there, or an alias that MLflow does not take, such as `latest` or
    `v1`, which are its own; unless `force`, also for a version that was not evaluated, or whose error is above that of
    the alias's present version by more than sampling noise (95%): on held-out images, or, where either has none of the
    same data, on test images.
    """
    _require_usable(alias)
    client = store.client()
    model = _known(client, name)
    versions = {str(found.version): found for found in versions_of(client, name)}
    if version not in versions:
        raise ValueError(f"{name}: no version {version} that is ready; there are: {', '.join(sorted(versions))}")
    current = alias_target(client, name, alias)
    objection = _objection(versions[version], versions.get(current or ""))
    if objection and not force:
        raise ValueError(f"{name}: version {version} {objection}; --force promotes it all the same")
    key = new_key(model, PROMOTION)
    made = Promotion(key, alias, version, current, who or user(), _now(), why, bool(objection))
    client.set_registered_model_tag(name, key, made.text())
    settle(client, name)
    return made


def _require_usable(alias: str) -> None:
    """ValueError for what MLflow takes as no alias: before anything is on record that could not be carried out."""
    if alias.lower() == LATEST or re.fullmatch(r"[vV]\d+", alias):
        raise ValueError(f"@{alias}: is MLflow's own name for a version; choose another alias")
    if not re.fullmatch(r"[\w-]{1,255}", alias):
        raise ValueError(f"@{alias}: an alias has letters, digits, _ and - alone, 255 of them at most")


def rollback(name: str, why: str, *, alias: str = BEST, who: str | None = None) -> Promotion:
    """Undo an alias's last promotion that stands; its record. ValueError if there is none.

    Of two at the same moment both are on record, as undoing the promotion that both saw.
    """
    client = store.client()
    model = _known(client, name)
    standing = [made for made in promotions(model) if made.alias == alias and not made.undone]
    if not standing:
        raise ValueError(f"{name}@{alias}: no promotion to roll back")
    undone = {"who": who or user(), "when": _now(), "why": why}
    record = json.dumps({"promotion": standing[-1].key, "undone": undone})
    client.set_registered_model_tag(name, new_key(model, ROLLBACK), record)
    settle(client, name)
    return replace(standing[-1], undone=(undone,))


def history(name: str) -> list[Promotion]:
    """The promotions of a registered model, oldest first."""
    return promotions(_known(store.client(), name))


def _known(client: MlflowClient, name: str) -> RegisteredModel:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        there = ", ".join(model.name for model in client.search_registered_models(max_results=20))
        raise ValueError(f"{name}: no such registered model; there are: {there or 'none'}") from None


def _objection(candidate: ModelVersion, current: ModelVersion | None) -> str | None:
    if not any(tag.startswith(_ERROR) for tag in candidate.tags):
        return "was never evaluated"
    protocol = None if current is None else _common_protocol(candidate, current)
    if current is None or protocol is None:
        return None
    (ours, noise_a), (theirs, noise_b) = _error(candidate, protocol), _error(current, protocol)
    noise = _Z_95 * math.hypot(noise_a, noise_b)
    if ours - theirs <= noise:
        return None
    images = "held-out images" if protocol == _HOLDOUT else f"test images ({protocol})"
    return f"errs on {ours:.2f}% of {images}, version {current.version} on {theirs:.2f}% (noise {noise:.2f})"


def _common_protocol(candidate: ModelVersion, current: ModelVersion) -> str | None:
    """What both were measured by: held-out images of the same data if possible, else the first protocol they share."""
    shared = [tag.removeprefix(_ERROR) for tag in sorted(candidate.tags) if tag.startswith(_ERROR)]
    wanted = (_ERROR, _COUNT)
    shared = [p for p in shared if all(f"{tag}{p}" in v.tags for tag in wanted for v in (candidate, current))]
    if _HOLDOUT in shared and all(candidate.tags.get(tag) == current.tags.get(tag) for tag in COMPARABLE):
        return _HOLDOUT
    return next((protocol for protocol in shared if protocol != _HOLDOUT), None)


def _error(version: ModelVersion, protocol: str) -> tuple[float, float]:
    """A version's top-1 error and its standard error, in percent."""
    error, count = float(version.tags[f"{_ERROR}{protocol}"]), float(version.tags[f"{_COUNT}{protocol}"])
    return error, math.sqrt(error * (100 - error) / count)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
