"""Promotion of a version to @best by hand: on record, refused when it looks worse, and undone on request."""

from __future__ import annotations

import getpass
import json
import math
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.tracking import store
from pipeline.tracking.registry import BEST, HOLDOUT_TAG, PINNED_TAG, WEIGHTS_TAG, set_best, versions_of

RECORD_TAG = "promotions"
_KEPT = 200
_COUNT_TAG = "n_images.holdout"
_Z_95 = 1.959964


def promote(name: str, version: str, why: str, *, who: str | None = None, force: bool = False) -> dict[str, Any]:
    """Point @best at a version and keep it there; the record: version, previous, pinned before, who, when, why, forced.

    ValueError for a version that is not there; unless `force`, also for one that was not evaluated, or whose error on
    held-out images is above the present @best's by more than sampling noise (95%).
    """
    client = store.client()
    with store.exclusive(name):
        versions = {str(found.version): found for found in versions_of(client, name)}
        if version not in versions:
            raise ValueError(f"{name}: no version {version} that is ready; there are: {', '.join(sorted(versions))}")
        current = _alias(client, name)
        objection = _objection(versions[version], versions.get(current or ""))
        if objection and not force:
            raise ValueError(f"{name}: version {version} {objection}; --force promotes it all the same")
        record = _entry(client, name, version, current, why, who) | {"forced": bool(objection)}
        _append(client, name, record)
        client.set_registered_model_tag(name, PINNED_TAG, version)
        set_best(client, name)
    return record


def rollback(name: str, why: str, *, who: str | None = None) -> dict[str, Any]:
    """Undo the last promotion that has not been undone; its record. ValueError if there is none."""
    client = store.client()
    with store.exclusive(name):
        records = history(client, name)
        open_ones = [record for record in records if not record.get("undone")]
        if not open_ones:
            raise ValueError(f"{name}: no promotion to roll back")
        last = open_ones[-1]
        last["undone"] = {"who": who or getpass.getuser(), "when": _now(), "why": why}
        _write(client, name, records)
        if last["pinned_before"]:
            client.set_registered_model_tag(name, PINNED_TAG, last["pinned_before"])
        else:
            client.delete_registered_model_tag(name, PINNED_TAG)
        set_best(client, name)
    return last


def history(client: MlflowClient, name: str) -> list[dict[str, Any]]:
    """The promotions of a registered model, oldest first."""
    found: list[dict[str, Any]] = json.loads(client.get_registered_model(name).tags.get(RECORD_TAG, "[]"))
    return found


def check(name: str) -> list[str]:
    """What is wrong with a registered model, a line a problem: lost runs or files, weights twice, dangling aliases."""
    client = store.client()
    versions = versions_of(client, name)
    problems = [line for version in versions for line in _version_problems(client, version)]
    seen: dict[str, str] = {}
    for version in sorted(versions, key=lambda found: int(found.version)):
        digest = version.tags.get(WEIGHTS_TAG, "")
        if digest and digest in seen:
            problems.append(f"{name} version {version.version}: the weights of version {seen[digest]} again")
        seen.setdefault(digest, str(version.version))
    ready = {str(version.version) for version in versions}
    for alias, target in client.get_registered_model(name).aliases.items():
        if str(target) not in ready:
            problems.append(f"{name}@{alias}: names version {target}, which is not there")
    return problems


def _version_problems(client: MlflowClient, version: ModelVersion) -> list[str]:
    where = f"{version.name} version {version.version}"
    problems = []
    try:
        if client.get_run(str(version.run_id)).info.lifecycle_stage != "active":
            problems.append(f"{where}: its run {version.run_id} was deleted")
    except MlflowException:
        problems.append(f"{where}: its run {version.run_id} is gone")
    try:
        model_id = str(version.source).removeprefix("models:/")
        names = {file.path for file in client.list_logged_model_artifacts(model_id)}
        missing = {"MLmodel", "artifacts", "code", "served_model.py"} - names
        if missing:
            problems.append(f"{where}: its files are incomplete, without {', '.join(sorted(missing))}")
    except (MlflowException, OSError) as error:
        problems.append(f"{where}: its files cannot be read: {error}")
    return problems


def _objection(candidate: ModelVersion, current: ModelVersion | None) -> str | None:
    if not any(tag.startswith("top1_error.") for tag in candidate.tags):
        return "was never evaluated"
    if current is None or not all(tag in v.tags for v in (candidate, current) for tag in (HOLDOUT_TAG, _COUNT_TAG)):
        return None
    (ours, noise_a), (theirs, noise_b) = _error(candidate), _error(current)
    noise = _Z_95 * math.hypot(noise_a, noise_b)
    if ours - theirs <= noise:
        return None
    return f"errs on {ours:.2f}% of held-out images, version {current.version} on {theirs:.2f}% (noise {noise:.2f})"


def _error(version: ModelVersion) -> tuple[float, float]:
    """A version's held-out error and its standard error, in percent."""
    error, count = float(version.tags[HOLDOUT_TAG]), float(version.tags[_COUNT_TAG])
    return error, math.sqrt(error * (100 - error) / count)


def _entry(
    client: MlflowClient, name: str, version: str, previous: str | None, why: str, who: str | None
) -> dict[str, Any]:
    pinned = client.get_registered_model(name).tags.get(PINNED_TAG)
    by = {"who": who or getpass.getuser(), "when": _now(), "why": why}
    return {"version": version, "previous": previous, "pinned_before": pinned, **by}


def _append(client: MlflowClient, name: str, record: dict[str, Any]) -> None:
    _write(client, name, [*history(client, name), record])


def _write(client: MlflowClient, name: str, records: list[dict[str, Any]]) -> None:
    client.set_registered_model_tag(name, RECORD_TAG, json.dumps(records[-_KEPT:]))


def _alias(client: MlflowClient, name: str) -> str | None:
    target = client.get_registered_model(name).aliases.get(BEST)
    return None if target is None else str(target)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
