"""params.yaml as a frozen, typed tree; whatever is unknown, ill-typed or contradictory is refused by name."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.cluster_section import Cluster
from pipeline.refusals import explain, read_yaml
from pipeline.schema import Augmentation, Data, EnsembleSearch, Evaluation, Plateau, Report, Run, Training
from pipeline.section import Name, Section

PARAMS_FILE = Path("params.yaml")
MOST_CANDIDATES = 12
"""Of an exhaustive search for an ensemble: 4,095 subsets."""
SEEDS = 2**32
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
    ensemble_searches: dict[Name, EnsembleSearch] = Field(default_factory=dict)
    report: Report
    cluster: Cluster

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        if problems := _problems(self):
            raise ValueError("\n".join(problems))
        return self

    def training_of(self, run: str) -> Training:
        """The recipe of `run`: the experiment's with the run's own changes; ValueError for a run not listed."""
        if run not in self.runs:
            raise ValueError(f"runs: no run '{run}'; there are: {', '.join(self.runs)}")
        return _merged_training(self, run)


def split_run(run: str) -> tuple[str, int]:
    """A run's network and seed: 'resnet110-s3' is ('resnet110', 3). ValueError for what is none."""
    match = RUN_PATTERN.match(run)
    if match is None:
        raise ValueError(f"runs.{run}: a run is named <network>-s<seed>, such as resnet20-s0")
    if (seed := int(match["seed"])) >= SEEDS:
        raise ValueError(f"runs.{run}: the seed {seed} must lie below {SEEDS}")
    return match["network"], seed


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and check the parameters; ValueError lists every problem with its key, value and what is allowed."""
    try:
        tree = read_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; run from the repository's root") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8 (byte {error.start}); give a YAML file of parameters") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    return parse_params(tree, str(path))


def parse_params(tree: Any, where: str = "params") -> Params:
    """Check a tree of parameters; `where` names its origin in errors."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ValueError("\n".join(f"{where}: {line}" for line in explain(error, Params))) from None


def _merged_training(params: Params, run: str) -> Training:
    merged = deep_merge(params.training.model_dump(), params.runs[run].training)
    return Training.model_validate(merged)


def deep_merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; a changed `kind` replaces its whole mapping."""
    merged: dict[str, Any] = dict(base)
    for key, value in changes.items():
        old: Any = base.get(key)
        same_kind = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        )
        merged[key] = deep_merge(old, value) if same_kind else value
    return merged


def _problems(params: Params) -> list[str]:
    return [
        *_run_problems(params),
        *_ensemble_problems(params),
        *_search_problems(params),
        *_mean_problems(params),
        *_holdout_problems(params),
        *_worker_problems(params),
    ]


def _run_problems(params: Params) -> list[str]:
    problems = []
    for run in params.runs:
        try:
            split_run(run)
            _merged_training(params, run)
        except ValidationError as error:
            problems += [f"runs.{run}.training.{line}" for line in explain(error, Training)]
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
    return problems + [
        f"{section}.{name}: is named as a run is, <network>-s<seed>; choose another name"
        for section in ("ensembles", "ensemble_searches")
        for name in getattr(params, section)
        if RUN_PATTERN.match(name)
    ]


def _search_problems(params: Params) -> list[str]:
    problems = []
    for name, search in params.ensemble_searches.items():
        key, candidates = f"ensemble_searches.{name}", search.candidates or list(params.runs)
        unknown = [run for run in candidates if run not in params.runs]
        if name in params.ensembles:
            problems.append(f"{key}: there is an ensemble of this name already; choose another")
        if unknown:
            problems.append(f"{key}.candidates: no run {', '.join(unknown)}; there are: {', '.join(params.runs)}")
        if len(set(candidates)) < 2 or len(set(candidates)) < len(candidates):
            problems.append(f"{key}.candidates: {candidates} must name at least two runs, each once")
        if search.search == "exhaustive" and len(candidates) > MOST_CANDIDATES:
            problems.append(
                f"{key}.search: 'exhaustive' of {len(candidates)} candidates has too many subsets;"
                f" use 'greedy' for more than {MOST_CANDIDATES}"
            )
        if search.select_on == "holdout" and not params.data.holdout.kept:
            problems.append(
                f"{key}.select_on: 'holdout' needs images that are held out of training, but data.holdout.images is 0"
                " or train_on true; use 'half'"
            )
    return problems


def _mean_problems(params: Params) -> list[str]:
    if params.data.mean.kind == "per_pixel" and params.data.mean.crop != params.augmentation.crop:
        return [
            f"data.mean.crop: {params.data.mean.crop} must equal augmentation.crop {params.augmentation.crop}"
            " for a per-pixel mean"
        ]
    return []


def _holdout_problems(params: Params) -> list[str]:
    if params.data.holdout.kept:
        return []
    recipes = {"training": params.training}
    for run in params.runs:
        with contextlib.suppress(ValueError):  # of a run's own recipe, which is told elsewhere
            recipes[f"runs.{run}.training"] = _merged_training(params, run)
    watching = [name for name, recipe in recipes.items() if _watches_holdout(recipe)]
    return [
        f"{name}.schedule.watch: 'holdout_error' needs images that are held out of training, but"
        " data.holdout.images is 0 or train_on true"
        for name in (["training"] if "training" in watching else watching)
    ]


def _watches_holdout(recipe: Training) -> bool:
    return isinstance(recipe.schedule, Plateau) and recipe.schedule.watch == "holdout_error"


def _worker_problems(params: Params) -> list[str]:
    problems: dict[str, list[str]] = {}
    for run in params.runs:
        try:
            recipe = _merged_training(params, run)
        except ValueError:
            continue  # told as the run's problem
        try:
            params.cluster.counts(recipe.batch_size, recipe.bn_images)
        except ValueError as error:
            problems.setdefault(str(error), []).append(run)
    own = {
        problem: "" if len(runs) == len(params.runs) else f" ({', '.join(runs)})" for problem, runs in problems.items()
    }
    return [problem + runs for problem, runs in own.items()]


def check_networks(params: Params) -> None:
    """Refuse a network that the zoo doesn't know and options that the network doesn't take; ValueError lists them.

    Torch is imported here, and here alone. A network with options is made without memory for its weights.
    """
    import torch

    from pipeline.models import zoo

    problems = []
    for run in params.runs:
        network, _ = split_run(run)
        options = params.training_of(run).options
        try:
            zoo.find(network)
        except ValueError as error:
            problems.append(f"runs.{run}: {error}")
            continue
        try:
            if options:
                with torch.device("meta"):
                    zoo.build(network, num_classes=10, **options)
        except (ValueError, TypeError) as error:
            own = "options" in params.runs[run].training
            problems.append(f"{f'runs.{run}.training' if own else 'training'}.options: {error} (run {run})")
    if problems:
        raise ValueError("\n".join(f"params: {problem}" for problem in problems))


def main(arguments: list[str]) -> int:
    """Check a file of parameters, params.yaml by default: one line about it, or its errors and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.config", description=main.__doc__)
    parser.add_argument("file", nargs="?", default=str(PARAMS_FILE), help="the parameters (default: %(default)s)")
    path = parser.parse_args(arguments).file
    try:
        params = load_params(path)
        check_networks(params)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    recipe = params.training
    print(
        f"{path}: experiment {params.experiment}, {len(params.runs)} runs of {recipe.iterations} iterations"
        f" of {recipe.batch_size} images, {len(params.ensembles) + len(params.ensemble_searches)} ensembles,"
        f" protocols {', '.join(params.evaluation.protocols.chosen())}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
