"""What is wrong in the model registry: lost runs, lost files, weights twice, aliases that name nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.tracking import store
from pipeline.tracking.aliases import PAPER, alias_target, versions_of

WEIGHTS_TAG = "weights.sha256"
_FILES = frozenset({"MLmodel", "artifacts", "code", "served_model.py"})


def registered_names(prefix: str = "") -> list[str]:
    """The registered models whose names begin with `prefix`, in order."""
    client, names, token = store.client(), [], None
    while True:
        page = client.search_registered_models(page_token=token)
        names += [model.name for model in page if model.name.startswith(prefix)]
        token = page.token
        if not token:
            return sorted(names)


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


def check_record(record: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the registry differs from what registry.json says of it: models, weights and @paper of the report."""
    client, known = store.client(), set(registered_names())
    problems = []
    for name, entry in record.items():
        versions = {str(v.version): v for v in versions_of(client, name)} if name in known else {}
        version = versions.get(str(entry["version"]))
        if version is None or version.tags.get(WEIGHTS_TAG) != entry["weights_sha256"]:
            problems.append(f"{name} version {entry['version']}: not there with the weights that registry.json names")
        elif PAPER in entry["aliases"] and alias_target(client, name, PAPER) != str(version.version):
            problems.append(f"{name}@{PAPER}: not at version {version.version}, which the report at hand shows")
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
        missing = _FILES - names
        if missing:
            problems.append(f"{where}: its files are incomplete, without {', '.join(sorted(missing))}")
    except (MlflowException, OSError) as error:
        problems.append(f"{where}: its files cannot be read: {error}")
    return problems
