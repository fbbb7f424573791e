"""What earlier stages left for the report; what is missing or broken is said, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline import paths
from pipeline.config import split_run
from pipeline.report import names
from pipeline.report.records import Errors, EvaluationRecord, Responses, TrainingRecord
from pipeline.storage import read_json

State = Literal["shown", "not run", "not shown"]
CURVES = ("training_error", "test_error")
Record = TypeVar("Record", bound=BaseModel)
RUN_METRICS = TypeAdapter(dict[str, Errors])


@dataclass(frozen=True)
class RunResult:
    """A run's figures and where they come from; `errors` is empty unless the state is "shown"."""

    name: str
    network: str
    seed: int
    state: State
    errors: Mapping[str, Errors]
    training: TrainingRecord | None = None
    evaluation: EvaluationRecord | None = None
    history: pd.DataFrame | None = None
    responses: Responses | None = None


@dataclass(frozen=True)
class EnsembleResult:
    """An ensemble's figures; `errors` is empty unless the state is "shown"."""

    name: str
    members: tuple[str, ...]
    state: State
    errors: Mapping[str, Errors]


@dataclass
class Inputs:
    """Everything that an experiment's report is made from."""

    experiment: str
    root: Path
    runs: dict[str, RunResult]
    ensembles: dict[str, EnsembleResult]
    class_names: list[str] | None = None
    problems: list[str] = field(default_factory=list)
    """Sentences on what is missing or broken."""

    @property
    def shown(self) -> list[RunResult]:
        """The runs that have figures, in the report's order."""
        return [run for run in self.runs.values() if run.state == "shown"]

    @property
    def protocols(self) -> list[str]:
        """The protocols that some run or ensemble was tested by, without the held-out images."""
        results: list[RunResult | EnsembleResult] = [*self.runs.values(), *self.ensembles.values()]
        found = {protocol for result in results for protocol in result.errors}
        return sorted(found - {names.HOLDOUT}, key=names.protocol_order)

    def of_network(self, network: str) -> list[RunResult]:
        """A network's runs with figures, by seed."""
        return [run for run in self.shown if run.network == network]


def read_inputs(
    experiment: str, runs: Iterable[str], ensembles: Mapping[str, Sequence[str]], root: Path = Path(".")
) -> Inputs:
    """Read an experiment's records under `root`; ValueError only for a run's name that isn't <network>-s<seed>."""
    inputs = Inputs(experiment, root, {}, {})
    for run in sorted(set(runs), key=names.run_order):
        inputs.runs[run] = _read_run(inputs, run)
    for name, members in ensembles.items():
        inputs.ensembles[name] = _read_ensemble(inputs, name, tuple(members))
    inputs.class_names = _class_names(inputs)
    return inputs


def _read_run(inputs: Inputs, run: str) -> RunResult:
    network, seed = split_run(run)
    root, experiment = inputs.root, inputs.experiment
    model = root / paths.model_dir(experiment, run)
    metrics = root / paths.run_metrics(experiment, run)
    evaluation = root / paths.predictions_dir(experiment, run) / "evaluate.json"
    if not any(path.exists() for path in (model / "train.json", metrics, evaluation)):
        return RunResult(run, network, seed, "not run", {})
    trained = _record(inputs, run, model / "train.json", TrainingRecord)
    evaluated = _record(inputs, run, evaluation, EvaluationRecord)
    errors = _errors(inputs, run, metrics)
    sound = (
        trained is not None and evaluated is not None and errors is not None and _agree(inputs, run, errors, evaluated)
    )
    return RunResult(
        run,
        network,
        seed,
        state="shown" if sound else "not shown",
        errors=errors if sound and errors else {},
        training=trained,
        evaluation=evaluated,
        history=_history(inputs, run, model / "history.csv") if trained else None,
        responses=_responses(inputs, run, model / "responses.json") if trained else None,
    )


def _read_ensemble(inputs: Inputs, name: str, members: tuple[str, ...]) -> EnsembleResult:
    path = inputs.root / paths.ensembles_dir(inputs.experiment) / f"{name}.json"
    if not path.exists():
        return EnsembleResult(name, members, "not run", {})
    tree = _json(inputs, name, path)
    if not isinstance(tree, dict):
        return EnsembleResult(name, members, "not shown", {})
    saved = tuple(tree.pop("members", ()))
    errors = _checked_errors(inputs, name, path, {key: value for key, value in tree.items() if _is_errors(value)})
    hidden = [member for member in saved if member not in inputs.runs or inputs.runs[member].state != "shown"]
    if saved != members:
        inputs.problems.append(
            f"{name}: {_short(inputs, path)} is of {', '.join(saved) or 'no members'}, not of {', '.join(members)}"
        )
    elif hidden:
        inputs.problems.append(f"{name}: not shown, as its members {', '.join(hidden)} are not")
    elif errors:
        return EnsembleResult(name, members, "shown", errors)
    return EnsembleResult(name, members, "not shown", {})


def _is_errors(value: Any) -> bool:
    return isinstance(value, dict) and "top1_error" in value


def _agree(inputs: Inputs, run: str, errors: Mapping[str, Errors], evaluated: EvaluationRecord) -> bool:
    """The committed figures must be those that the provenance speaks of."""
    if dict(errors) == dict(evaluated.metrics):
        return True
    inputs.problems.append(
        f"{run}: not shown, as {paths.run_metrics(inputs.experiment, run)} and evaluate.json give different figures;"
        f" {_remedy(inputs, run)}"
    )
    return False


def _errors(inputs: Inputs, run: str, path: Path) -> dict[str, Errors] | None:
    return _checked_errors(inputs, run, path, _json(inputs, run, path))


def _checked_errors(inputs: Inputs, subject: str, path: Path, tree: Any) -> dict[str, Errors] | None:
    if tree is None:
        return None
    try:
        return RUN_METRICS.validate_python(tree) or None
    except ValidationError as error:
        inputs.problems.append(
            f"{subject}: not shown, as {_short(inputs, path)} is not of errors by protocol ({_first(error)})"
        )
        return None


def _record(inputs: Inputs, run: str, path: Path, form: type[Record]) -> Record | None:
    tree = _json(inputs, run, path)
    if tree is None:
        return None
    try:
        return form.model_validate(tree)
    except ValidationError as error:
        inputs.problems.append(
            f"{run}: not shown without its provenance: {_short(inputs, path)}: {_first(error)}; {_remedy(inputs, run)}"
        )
        return None


def _json(inputs: Inputs, subject: str, path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        inputs.problems.append(
            f"{subject}: not shown, as {_short(inputs, path)} is missing; {_remedy(inputs, subject)}"
        )
    except (OSError, ValueError) as error:
        reason = str(error).replace(f"{inputs.root}/", "")
        inputs.problems.append(f"{subject}: not shown, as {_short(inputs, path)} can't be read ({reason})")
    return None


def _history(inputs: Inputs, run: str, path: Path) -> pd.DataFrame | None:
    try:
        table = pd.read_csv(path)
        numbers = table.apply(pd.to_numeric)
    except (OSError, ValueError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error})"
        inputs.problems.append(f"{run}: no curves, as {_short(inputs, path)} is {reason}")
        return None
    lacking = [column for column in ("iteration", *CURVES) if column not in numbers]
    if lacking or numbers.empty:
        inputs.problems.append(f"{run}: no curves, as {_short(inputs, path)} has no {', '.join(lacking) or 'points'}")
        return None
    return numbers


def _responses(inputs: Inputs, run: str, path: Path) -> Responses | None:
    """Optional: absence is no problem."""
    return _record(inputs, run, path, Responses) if path.exists() else None


def _class_names(inputs: Inputs) -> list[str] | None:
    for run in inputs.shown:
        path = inputs.root / paths.model_dir(inputs.experiment, run.name) / "model.json"
        found = _json(inputs, run.name, path) if path.exists() else None
        class_names = found.get("class_names") if isinstance(found, dict) else None
        if isinstance(class_names, list) and all(isinstance(name, str) for name in class_names):
            return class_names
    return None


def _remedy(inputs: Inputs, subject: str) -> str:
    if names.is_run(subject):
        return f"run `{names.evaluate_command(inputs.experiment, subject)}`"
    return f"run `{names.ensemble_command(inputs.experiment)}`"


def _short(inputs: Inputs, path: Path) -> str:
    return str(path.relative_to(inputs.root))


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}"
