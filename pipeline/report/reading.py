"""Reads what earlier stages left for the report; what is missing or broken is said, never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline import paths
from pipeline.config import split_run
from pipeline.report import names
from pipeline.report.inputs import CURVES, EnsembleResult, Inputs, RunResult
from pipeline.report.records import (
    EnsembleRecord,
    Errors,
    EvaluationRecord,
    MembersRecord,
    Responses,
    TrainingRecord,
)
from pipeline.storage import read_json

Record = TypeVar("Record", bound=BaseModel)
RUN_METRICS = TypeAdapter(dict[str, Errors])


def read_inputs(
    experiment: str, runs: Iterable[str], ensembles: Mapping[str, Sequence[str]], root: Path = Path(".")
) -> Inputs:
    """Read an experiment's records under `root`; ValueError only for a run's name that isn't <network>-s<seed>."""
    inputs = Inputs(experiment, root, {}, {})
    reader = _Reader(inputs)
    for run in sorted(set(runs), key=names.run_order):
        inputs.runs[run] = reader.run(run)
    for name, members in ensembles.items():
        inputs.ensembles[name] = reader.ensemble(name, tuple(members))
    inputs.class_names = reader.class_names()
    return inputs


class _Reader:
    """Reads files under the root; each that can't be used leaves a sentence and gives None."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def run(self, run: str) -> RunResult:
        """A run's figures, shown only with their provenance."""
        network, seed = split_run(run)
        model, predictions = self._folders(run)
        metrics = self.inputs.root / paths.run_metrics(self.inputs.experiment, run)
        if not any(path.exists() for path in (model / "train.json", metrics, predictions / "evaluate.json")):
            return RunResult(run, network, seed, "not run", {})
        trained = self._record(run, model / "train.json", TrainingRecord)
        evaluated = self._record(run, predictions / "evaluate.json", EvaluationRecord)
        errors = self._errors(run, metrics)
        sound = bool(trained and evaluated and errors) and self._agree(run, trained, evaluated, errors)
        return RunResult(
            run,
            network,
            seed,
            state="shown" if sound else "not shown",
            errors=evaluated.metrics if sound and evaluated else {},
            training=trained,
            evaluation=evaluated,
            history=self._history(run, model / "history.csv") if trained else None,
            responses=self._responses(run) if trained else None,
        )

    def ensemble(self, name: str, members: tuple[str, ...]) -> EnsembleResult:
        """An ensemble's figures, shown only where each member's are; a searched one is given without members."""
        root, experiment = self.inputs.root, self.inputs.experiment
        path = root / paths.ensembles_dir(experiment) / f"{name}.json"
        if not path.exists():
            return EnsembleResult(name, members, "not run", {})
        measured = self._record(name, path, EnsembleRecord)
        chosen = self._record(name, root / paths.members_dir(experiment) / f"{name}.json", MembersRecord)
        if measured is None or chosen is None:
            return EnsembleResult(name, members, "not shown", {})
        if chosen.search is not None and not members:
            members = tuple(chosen.members)
        if self._fit(name, path, members, measured, chosen):
            return EnsembleResult(name, members, "shown", measured.errors, chosen.leave_one_out, chosen.search)
        return EnsembleResult(name, members, "not shown", {})

    def _fit(
        self, name: str, path: Path, members: tuple[str, ...], measured: EnsembleRecord, chosen: MembersRecord
    ) -> bool:
        """The figures must be of these members, and of members that are shown."""
        runs = self.inputs.runs
        hidden = [member for member in members if member not in runs or runs[member].state != "shown"]
        found = next((each.members for each in (measured, chosen) if tuple(each.members) != members), None)
        if found is not None:
            self._say(name, f"not shown, as {self._short(path)} is of {', '.join(found) or 'no members'}", True)
        elif hidden:
            self._say(name, f"not shown, as its members {', '.join(hidden)} are not")
        elif not measured.errors:
            self._say(name, f"not shown, as {self._short(path)} is of no protocol", True)
        return found is None and not hidden and bool(measured.errors)

    def class_names(self) -> list[str] | None:
        """The classes in words, by the first model that knows them."""
        for run in self.inputs.shown:
            path = self._folders(run.name)[0] / "model.json"
            card = self._json(run.name, path, "class names unknown") if path.exists() else None
            found = card.get("class_names") if isinstance(card, dict) else None
            if isinstance(found, list) and all(isinstance(name, str) for name in found):
                return found
        return None

    def _folders(self, run: str) -> tuple[Path, Path]:
        root, experiment = self.inputs.root, self.inputs.experiment
        return root / paths.model_dir(experiment, run), root / paths.predictions_dir(experiment, run)

    def _agree(
        self,
        run: str,
        trained: TrainingRecord | None,
        evaluated: EvaluationRecord | None,
        errors: Mapping[str, Errors] | None,
    ) -> bool:
        """The figures must be those that the provenance speaks of, which has other ways of averaging besides."""
        assert trained is not None
        assert evaluated is not None
        assert errors is not None
        found = evaluated.metrics.items()
        if errors != {name: each for name, each in found if name in errors or name not in names.WAYS}:
            metrics = paths.run_metrics(self.inputs.experiment, run)
            self._say(run, f"not shown, as {metrics} and evaluate.json give different figures", True)
            return False
        if evaluated.weights_sha256 is not None and evaluated.weights_sha256 != trained.weights_sha256:
            self._say(run, "not shown, as its figures are of other weights than the model's", True)
            return False
        return True

    def _errors(self, run: str, path: Path) -> dict[str, Errors] | None:
        tree = self._json(run, path)
        if tree is None:
            return None
        try:
            found = RUN_METRICS.validate_python(tree)
        except ValidationError as error:
            self._say(run, f"not shown, as {self._short(path)} is not of errors by protocol ({_first(error)})", True)
            return None
        if not found:
            self._say(run, f"not shown, as {self._short(path)} is of no protocol", True)
        return found or None

    def _record(self, subject: str, path: Path, form: type[Record]) -> Record | None:
        tree = self._json(subject, path)
        if tree is None:
            return None
        try:
            return form.model_validate(tree)
        except ValidationError as error:
            self._say(subject, f"not shown, as {self._short(path)} lacks what it must have: {_first(error)}", True)
            return None

    def _responses(self, run: str) -> Responses | None:
        """Of responses.json beside the predictions or the weights; a run may well have none."""
        found = [folder / "responses.json" for folder in reversed(self._folders(run))]
        present = [path for path in found if path.exists()]
        tree = self._json(run, present[0], "no layer responses") if present else None
        if tree is None:
            return None
        try:
            return Responses.model_validate(tree)
        except ValidationError as error:
            self._say(run, f"no layer responses, as {self._short(present[0])} is not of them: {_first(error)}")
            return None

    def _history(self, run: str, path: Path) -> pd.DataFrame | None:
        try:
            numbers = pd.read_csv(path).apply(pd.to_numeric)
        except (OSError, ValueError) as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error})"
            self._say(run, f"no curves, as {self._short(path)} is {reason}")
            return None
        lacking = [column for column in ("iteration", *CURVES) if column not in numbers]
        if lacking or numbers.empty:
            self._say(run, f"no curves, as {self._short(path)} has no {', '.join(lacking) or 'points'}")
            return None
        return numbers

    def _json(self, subject: str, path: Path, consequence: str = "not shown") -> Any:
        try:
            tree = read_json(path)
            if tree is not None:
                return tree
            self._say(subject, f"{consequence}, as {self._short(path)} holds nothing", True)
        except FileNotFoundError:
            self._say(subject, f"{consequence}, as {self._short(path)} is missing", True)
        except (OSError, ValueError) as error:
            reason = str(error).replace(f"{self.inputs.root}/", "")
            self._say(subject, f"{consequence}, as {self._short(path)} can't be read ({reason})")
        return None

    def _say(self, subject: str, problem: str, remedy: bool = False) -> None:
        experiment = self.inputs.experiment
        command = names.evaluate_command(experiment, subject)
        if not names.is_run(subject):
            command = names.ensemble_command(experiment)
        self.inputs.problems.append(f"{subject}: {problem}" + (f"; run `{command}`" if remedy else ""))

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.inputs.root))


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}"
