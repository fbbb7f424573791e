"""The MLflow model registry: one registered model a variant, one version for each set of weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipeline.config import split_run
from pipeline.schema import Evaluation
from pipeline.tracking import store
from pipeline.tracking.aliases import PAPER, REPORT_TAG, alias_target, aliases_of, settle, versions_of
from pipeline.tracking.attachments import attach
from pipeline.tracking.checking import WEIGHTS_TAG
from pipeline.tracking.description import About, describe, error_table
from pipeline.tracking.evaluations import Metrics, run_link
from pipeline.tracking.names import as_tags
from pipeline.tracking.package import package_digest, save_package, weights_digest

_Version = TypeVar("_Version", "Registered", "Registration")
PACKAGE_TAG = "package.sha256"
_SHARED = ("experiment", "kind", "network", "verdict", REPORT_TAG)
_PASSING = ("top1_error.", "top5_error.", "n_images.", "paper.", "dvc.", "verdict", REPORT_TAG)
"""Begin the names of a version's tags that hold at one time and not at another; one that is not given any more goes."""


@dataclass(frozen=True)
class Registered:
    """A version in the registry, before its model's aliases are settled and what stands for the model is chosen."""

    name: str
    version: str
    run_id: str
    weights_sha256: str
    card: str
    """The model's description where this version stands for it."""
    shared: Mapping[str, str]
    """The model's tags then."""


@dataclass(frozen=True)
class Registration:
    """A registered model's version, as registry.json records it."""

    name: str
    version: str
    run_id: str
    weights_sha256: str
    aliases: list[str]

    def record(self) -> dict[str, Any]:
        """The values without the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


def network_model_name(experiment: str, run: str) -> str:
    """The registered model of a run's network: digits-resnet56."""
    return f"{experiment}-{split_run(run)[0]}"


def ensemble_model_name(experiment: str, ensemble: str) -> str:
    """The registered model of an ensemble: imagenet-ensemble-paper."""
    return f"{experiment}-ensemble-{ensemble}"


def register_model(
    name: str,
    experiment: str,
    members: Mapping[str, Path],
    run_id: str,
    metrics: Metrics,
    evaluation: Evaluation,
    about: About,
    *,
    tags: Mapping[str, Any] | None = None,
    example: np.ndarray | None = None,
) -> Registered:
    """Register a network (one member) or an ensemble (several); `settle_models` does the rest once all are there.

    `members` are model folders by run; `metrics` their errors by protocol, "holdout" for those on held-out training
    images, by which @best is chosen. Weights that are registered already get no new version: its tags, description and
    packaging are brought up to date. ValueError for an incomplete model folder.
    """
    client, digest = store.client(), weights_digest(members)
    what = _what(members)
    version_tags = as_tags({**_version_tags(experiment, members, metrics, about), **(tags or {})})
    version_tags |= {WEIGHTS_TAG: digest, PACKAGE_TAG: package_digest(evaluation)}
    url = run_link(store.experiment_id(experiment), run_id)
    with store.exclusive(name):
        _ensure_registered(client, name)
        version = find_version(client, name, digest)
        if version is None:
            model_id = _log_model(client, name, experiment, members, run_id, evaluation, example)
            version = _only_one(client, _create_version(client, name, model_id, run_id, version_tags), model_id, digest)
        elif version.tags.get(PACKAGE_TAG) != version_tags[PACKAGE_TAG]:
            _refresh_package(client, version, members, evaluation, example)
        _describe(client, version, version_tags, _version_text(what, metrics, about))
    card = describe(name, what, metrics, about, url)
    attach(run_id, {"model_card.md": card.encode()})
    shared = {key: version_tags[key] for key in _SHARED if key in version_tags}
    return Registered(name, str(version.version), run_id, digest, card, shared)


def settle_models(registered: Sequence[Registered]) -> list[Registration]:
    """Settle the aliases of the models of which versions were registered, and describe each model, once.

    Of several versions (a network's seeds) the one that @paper names stands for the model, else the newest of them.
    """
    client = store.client()
    for name in dict.fromkeys(each.name for each in registered):
        mine = [each for each in registered if each.name == name]
        with store.exclusive(name):
            _tag_model(client, name, (REPORT_TAG,), mine[-1].shared)  # which @paper goes by
            settle(client, name)
            shown = _standing(client, name, mine)
            _tag_model(client, name, _SHARED, shown.shared)
            if client.get_registered_model(name).description != shown.card:
                client.update_registered_model(name, shown.card)
    return [
        Registration(
            each.name, each.version, each.run_id, each.weights_sha256, aliases_of(client, each.name, each.version)
        )
        for each in registered
    ]


def records(registered: Sequence[Registration]) -> dict[str, dict[str, Any]]:
    """What registry.json holds: by registered model, the version that the report at hand shows, aliases as they are.

    Of several versions (a network's seeds) it is the one that stands for the model; `versions` then lists them all.
    """
    client, found = store.client(), {}
    for name in dict.fromkeys(each.name for each in registered):
        mine = [each for each in registered if each.name == name]
        chosen = _standing(client, name, mine)
        found[name] = {**chosen.record(), "aliases": aliases_of(client, name, chosen.version)}
        if len(mine) > 1:
            found[name]["versions"] = sorted({each.version for each in mine}, key=int)
    return found


def find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The first usable version of these weights; None if there is none."""
    found = [version for version in versions_of(client, name) if version.tags.get(WEIGHTS_TAG) == digest]
    return min(found, key=lambda version: int(version.version), default=None)


def _standing(client: MlflowClient, name: str, mine: Sequence[_Version]) -> _Version:
    """Of versions of one model the one that @paper names, else the newest."""
    paper = alias_target(client, name, PAPER)
    return next((each for each in mine if each.version == paper), max(mine, key=lambda each: int(each.version)))


def _ensure_registered(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(
    client: MlflowClient,
    name: str,
    experiment: str,
    members: Mapping[str, Path],
    run_id: str,
    evaluation: Evaluation,
    example: np.ndarray | None,
) -> str:
    """Upload a model, as an output of its run; its identifier."""
    experiment_id = store.experiment_id(experiment)
    logged = client.create_logged_model(experiment_id, name, source_run_id=run_id, model_type="image classifier")
    status = LoggedModelStatus.FAILED
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            model = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
            save_package(path, members, evaluation, example, model)
            client.log_model_artifacts(logged.model_id, str(path))
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(logged.model_id, status)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _create_version(
    client: MlflowClient, name: str, model_id: str, run_id: str, tags: Mapping[str, str]
) -> ModelVersion:
    return client.create_model_version(name, f"models:/{model_id}", run_id, tags=dict(tags), model_id=model_id)


def _only_one(client: MlflowClient, made: ModelVersion, model_id: str, digest: str) -> ModelVersion:
    """The version just made; where another machine made one of the same weights meanwhile, the first, and ours goes."""
    first = find_version(client, made.name, digest) or made
    if str(first.version) != str(made.version):
        client.delete_model_version(made.name, str(made.version))
        client.delete_logged_model(model_id)
    return first


def _refresh_package(
    client: MlflowClient,
    version: ModelVersion,
    members: Mapping[str, Path],
    evaluation: Evaluation,
    example: np.ndarray | None,
) -> None:
    """Bring a version's protocols and code to what the evaluation now uses; its weights stay."""
    model_id = str(version.source).removeprefix("models:/")  # which is all that the SQL registry keeps of it
    logged = client.get_logged_model(model_id)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model"
        model = Model(artifact_path=logged.artifact_location, run_id=version.run_id, model_id=model_id)
        save_package(path, members, evaluation, example, model)
        client.log_model_artifacts(model_id, str(path))


def _describe(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str], text: str) -> None:
    for key, value in tags.items():
        if version.tags.get(key) != value:
            store.write(partial(client.set_model_version_tag, version.name, version.version, key, value))
    for key in version.tags:
        if key.startswith(_PASSING) and key not in tags:
            client.delete_model_version_tag(version.name, version.version, key)
    if version.description != text:
        client.update_model_version(version.name, version.version, text)


def _tag_model(client: MlflowClient, name: str, keys: Sequence[str], tags: Mapping[str, str]) -> None:
    """Make a model's tags of these names what `tags` has; those that it lacks go."""
    there = client.get_registered_model(name).tags
    for key in keys:
        if key in tags and there.get(key) != tags[key]:
            store.write(partial(client.set_registered_model_tag, name, key, tags[key]))
        elif key in there and key not in tags:
            client.delete_registered_model_tag(name, key)


def _kind(members: Mapping[str, Path]) -> str:
    return "network" if len(members) == 1 else "ensemble"


def _what(members: Mapping[str, Path]) -> str:
    if len(members) == 1:
        return f"**{split_run(next(iter(members)))[0]}**"
    return f"**Ensemble** of {', '.join(members)} (their probabilities averaged)"


def _version_text(what: str, metrics: Metrics, about: About) -> str:
    return f"{what}\n\n{error_table(metrics, about.published)}"


def _version_tags(experiment: str, members: Mapping[str, Path], metrics: Metrics, about: About) -> dict[str, Any]:
    found: dict[str, Any] = {"experiment": experiment, "kind": _kind(members), "data.digest": about.data_digest or None}
    if len(members) == 1:
        run = next(iter(members))
        network, seed = split_run(run)
        found |= {"run": run, "network": network, "seed": str(seed)}
    else:
        found["members"] = ", ".join(members)
    for protocol, figures in metrics.items():
        found |= {f"{figure}.{protocol}": value for figure, value in figures.items()}
    for protocol, figures in about.published.items():
        found |= {f"paper.{figure}.{protocol}": value for figure, value in figures.items()}
    return {**found, "verdict": about.verdict}
