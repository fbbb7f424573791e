"""What a report is made from: runs and ensembles with their figures, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pipeline.report import names
from pipeline.report.records import Errors, EvaluationRecord, Responses, TrainingRecord

State = Literal["shown", "not run", "not shown"]
CURVES = ("training_error", "test_error")
"""Columns of a run's history that the report draws, in percent."""


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

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's identifier of the run; where it was away during training, the one that evaluation found or made."""
        records = (self.training, self.evaluation)
        return next((record.mlflow_run_id for record in records if record and record.mlflow_run_id), None)


@dataclass(frozen=True)
class EnsembleResult:
    """An ensemble's figures; `errors` is empty unless the state is "shown"."""

    name: str
    members: tuple[str, ...]
    state: State
    errors: Mapping[str, Errors]
    leave_one_out: Mapping[str, Mapping[str, Errors]] = field(default_factory=dict)
    """By protocol and member, the errors without it."""
    search: Mapping[str, Any] | None = None
    """How the members were chosen; None for declared ones."""

    @property
    def halved(self) -> bool:
        """Whether the members were chosen on a half of the test images, so that the other half alone reports."""
        return self.search is not None and self.search.get("select_on") == "half"


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
        return sorted(found - {names.HOLDOUT, *names.WAYS}, key=names.protocol_order)

    def of_network(self, network: str) -> list[RunResult]:
        """A network's runs with figures, by seed."""
        return [run for run in self.shown if run.network == network]
