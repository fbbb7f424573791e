"""params.yaml as a frozen, typed tree; whatever is unknown, ill-typed or contradictory is refused by name."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.schema import Augmentation, Cluster, Data, Evaluation, Name, Report, Run, Section, Training

PARAMS_FILE = Path("params.yaml")
RUN_PATTERN = re.compile(r"^(?P<network>[a-z][a-z0-9_]*)-s(?P<seed>\d+)$")


class Params(Section):
    """params.yaml, whole."""

    experiment: Name
    data: Data
    augmentation: Augmentation
    training: Training
    runs: dict[str, Run] = Field(min_length=1)
    evaluation: Evaluation
    ensembles: dict[Name, list[str]]
    report: Report
    cluster: Cluster

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        problems = [
            *_run_problems(self),
            *_ensemble_problems(self),
            *_mean_problems(self),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def training_of(self, run: str) -> Training:
        """The recipe of `run`: the experiment's with the run's own changes; ValueError for a run not listed."""
        if run not in self.runs:
            raise ValueError(f"runs: no run '{run}'; there are: {', '.join(self.runs)}")
        return _merged_training(self, run)


def split_run(run: str) -> tuple[str, int]:
    """A run's network and seed: 'resnet110-s3' is ('resnet110', 3)."""
    match = RUN_PATTERN.match(run)
    if match is None:
        raise ValueError(f"runs.{run}: a run is named <network>-s<seed>, such as resnet20-s0")
    return match["network"], int(match["seed"])


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check the parameters; ValueError lists every problem with its key, value and what is allowed."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; run from the repository's root") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    return parse_params(tree, str(path))


def parse_params(tree: Any, where: str = "params") -> Params:
    """Check a tree of parameters; `where` names its origin in errors."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [f"{where}: {_explain(problem)}" for problem in error.errors()]
        raise ValueError("\n".join(lines)) from None


def _merged_training(params: Params, run: str) -> Training:
    merged = deep_merge(params.training.model_dump(), params.runs[run].training)
    return Training.model_validate(merged)


def deep_merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; a changed `kind` replaces its whole mapping."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = deep_merge(old, value) if same_kind else value
    return merged


def _run_problems(params: Params) -> list[str]:
    problems = []
    for run in params.runs:
        try:
            split_run(run)
            _merged_training(params, run)
        except ValidationError as error:
            problems += [f"runs.{run}.training.{_explain(problem, Training)}" for problem in error.errors()]
        except ValueError as error:
            problems.append(str(error))
    return problems


def _ensemble_problems(params: Params) -> list[str]:
    problems = []
    for name, members in params.ensembles.items():
        unknown = [member for member in members if member not in params.runs]
        if unknown:
            problems.append(f"ensembles.{name}: no run {', '.join(unknown)}; there are: {', '.join(params.runs)}")
        if len(set(members)) < 2 or len(set(members)) < len(members):
            problems.append(f"ensembles.{name}: {members} must name at least two runs, each once")
    return problems


def _mean_problems(params: Params) -> list[str]:
    if params.data.mean.kind == "per_pixel" and params.data.mean.crop != params.augmentation.crop:
        return [
            f"data.mean.crop: {params.data.mean.crop} must equal augmentation.crop {params.augmentation.crop}"
            " for a per-pixel mean"
        ]
    return []


def _explain(problem: Any, root: type[BaseModel] = Params) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "parameters"
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = _allowed_keys(location[:-1], root)
        close = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{key}: unknown key (value {problem['input']!r}); allowed here: {', '.join(allowed)}{hint}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "value_error":
        prefix = f"{key}." if location else ""
        return f"{prefix}{problem['ctx']['error']}"
    return f"{key}: {problem['input']!r} is not allowed: {problem['msg']}"


def _allowed_keys(location: list[str], root: type[BaseModel]) -> list[str]:
    model: type[BaseModel] = root
    for part in location:
        field = model.model_fields.get(part)
        models = _models_in(field.annotation) if field else []
        by_kind = [m for m in models if part_kind(m) == part]
        model = (by_kind or models or [model])[0]
    return list(model.model_fields)


def part_kind(model: type[BaseModel]) -> str | None:
    """The value of a model's `kind` where it is fixed, by which a union of sections is told apart."""
    field = model.model_fields.get("kind")
    values = get_args(field.annotation) if field else ()
    return values[0] if len(values) == 1 else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
