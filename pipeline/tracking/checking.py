"""What is wrong in the model registry: lost runs, lost files, weights twice, aliases that name nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.entities.model_registry import ModelVersion

from pipeline.tracking import store
from pipeline.tracking.aliases import PAPER, alias_target, versions_of
from pipeline.tracking.finding import known_run
from pipeline.tracking.inference import CHECKSUMS

WEIGHTS_TAG = "weights.sha256"
_FILES = frozenset({"MLmodel", "artifacts", "code", "served_model.py"})
_MEMBERS = "artifacts/members"


def registered(experiment: str = "") -> dict[str, str]:
    """The registered models of the experiment, or of all, in order of their names: each with its experiment."""
    client = store.client()
    found = store.all_pages(lambda token: client.search_registered_models(page_token=token))
    names = {model.name: model.tags.get("experiment", "") for model in found}
    return {name: names[name] for name in sorted(names) if experiment in ("", names[name])}


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
    client, known = store.client(), set(registered())
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
    problems = [f"{where}: {line}" for line in _lost_runs(client, str(version.run_id))]
    try:
        missing = _missing_files(client, str(version.source).removeprefix("models:/"))
    except Exception as error:  # of whatever client the artifacts' storage has
        return [*problems, f"{where}: its files cannot be read: {' '.join(str(error).split())}"]
    return problems + ([f"{where}: its files are incomplete, without {', '.join(missing)}"] if missing else [])


def _lost_runs(client: MlflowClient, run_id: str) -> Iterator[str]:
    """What is wrong with a version's run, and with those of an ensemble's members."""
    found = known_run(client, run_id)
    members = {} if found is None else {k: v for k, v in found.data.tags.items() if k.startswith("member.")}
    runs = {"its run": run_id} | {f"the run of {key.removeprefix('member.')}": value for key, value in members.items()}
    for whose, identifier in runs.items():
        known = known_run(client, identifier)
        if known is None or known.info.lifecycle_stage != "active":
            yield f"{whose} {identifier} {'is gone' if known is None else 'was deleted'}"


def _missing_files(client: MlflowClient, model_id: str) -> list[str]:
    """Paths of a registered model's files and folders that are not there, those in checksums.json among them."""
    missing = _FILES - {file.path for file in client.list_logged_model_artifacts(model_id)}
    if missing:
        return sorted(missing)
    there, checksums = set(_files_under(client, model_id, _MEMBERS)), f"{_MEMBERS}/{CHECKSUMS}"
    if checksums not in there:
        return [checksums]
    location = client.get_logged_model(model_id).artifact_location
    expected = load_dict(f"{location}/{checksums}")["files"]
    return sorted({f"{_MEMBERS}/{name}" for name in expected} - there)


def _files_under(client: MlflowClient, model_id: str, folder: str) -> Iterator[str]:
    for file in client.list_logged_model_artifacts(model_id, folder):
        if file.is_dir:
            yield from _files_under(client, model_id, file.path)
        else:
            yield file.path
