"""Where each run's figures come from, and how to make them anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.report import names
from pipeline.report.inputs import Inputs, RunResult
from pipeline.report.records import PrecisionError, Provenance, Sitting
from pipeline.report.tables import Cell, Column, Row, Table

RunLink = Callable[[str], str | None]
"""From an MLflow run id to the address of its page."""


@dataclass(frozen=True)
class Card:
    """A run's provenance: facts as (term, text, address or None), commands, resolved parameters as JSON."""

    run: str
    facts: tuple[tuple[str, str, str | None], ...]
    commands: tuple[str, ...]
    parameters: str


def cards(inputs: Inputs, run_link: RunLink | None) -> list[Card]:
    """One for each run that has figures."""
    return [_card(inputs.experiment, run, run_link) for run in inputs.shown]


def provenance_table(found: list[Card]) -> Table:
    """The same facts as a table, a row a run."""
    terms = list(dict.fromkeys(term for card in found for term, _, _ in card.facts))
    columns = [Column("run", "run", numeric=False), *(Column(term, term, numeric=False) for term in terms)]
    rows = []
    for card in found:
        cells = {"run": Cell(card.run), **{term: Cell(text) for term, text, _ in card.facts}}
        rows.append(Row({**cells, "reproduce": Cell(card.commands[-1], code=True)}))
    columns.append(Column("reproduce", "reproduce", numeric=False))
    return Table("provenance", "Provenance", tuple(columns), tuple(rows))


def _card(experiment: str, run: RunResult, run_link: RunLink | None) -> Card:
    assert run.training is not None
    assert run.evaluation is not None
    trained, evaluated = run.training.provenance, run.evaluation.provenance
    facts: list[tuple[str, str, str | None]] = [
        ("commit", _commit(trained), None),
        ("data digest", trained.data_digest[:16], None),
        ("seed", str(run.training.seed), None),
        ("iterations", f"{run.training.iterations:,}", None),
        ("precision", trained.precision or "not recorded", None),
        ("workers", str(trained.workers or "not recorded"), None),
        ("hardware", _hardware(trained.hardware), None),
        ("training", _duration(run.training.wall_seconds or trained.wall_seconds), None),
        ("evaluation", f"{_duration(evaluated.wall_seconds)}, commit {_commit(evaluated)}", None),
        ("started", trained.started or "not recorded", None),
        ("packages", _packages(trained), None),
        ("weights", (run.training.weights_sha256 or "not recorded")[:16], None),
    ]
    if trained.sittings and len(trained.sittings) > 1:
        facts.append(("sittings", "; ".join(map(_sitting, trained.sittings)), None))
    if run.evaluation.precision_error:
        facts.append(("rounding", _rounding(run.evaluation.precision_error), None))
    if run.mlflow_run_id:
        facts.append(("MLflow run", run.mlflow_run_id, _safe(run.mlflow_run_id, run_link)))
    commands = (names.train_command(experiment, run.name), names.evaluate_command(experiment, run.name))
    parameters = json.dumps(trained.parameters, indent=2, sort_keys=True)
    return Card(run.name, tuple(facts), commands, parameters)


def on_this_machine(found: list[Card]) -> bool:
    """Whether some link leads to what `make ui` shows, rather than to a server."""
    addresses = (address for card in found for _, _, address in card.facts if address)
    return any(urlsplit(address).hostname == "127.0.0.1" for address in addresses)


def _rounding(error: PrecisionError) -> str:
    """How far the evaluation's probabilities lie from fp32's."""
    return (
        f"{error.precision} against fp32, {names.protocol_label(error.protocol)}, {error.n_images} images:"
        f" probabilities differ by {error.max_difference:.2g} at most, {error.mean_difference:.2g} on average;"
        f" the likeliest class in {error.top1_disagreements}"
    )


def _safe(run_id: str, run_link: RunLink | None) -> str | None:
    address = run_link(run_id) if run_link else None
    return address if address and urlsplit(address).scheme in ("http", "https") else None


def _sitting(sitting: Sitting) -> str:
    by = f"commit {_commit(sitting)}, torch {sitting.torch}, workers: {sitting.workers}, {_hardware(sitting.hardware)}"
    return f"from iteration {sitting.from_iteration:,}, {sitting.started}: {by}"


def _commit(provenance: Provenance | Sitting) -> str:
    if provenance.git_commit is None:
        return "not recorded"
    return provenance.git_commit[:12] + (" with uncommitted changes" if provenance.git_dirty else "")


def _hardware(hardware: dict[str, Any]) -> str:
    parts = [str(hardware.get("processor") or "unknown processor")]
    if hardware.get("cores"):
        parts.append(f"{hardware['cores']} cores")
    if hardware.get("memory_gib"):
        parts.append(f"{hardware['memory_gib']} GiB")
    gpus = hardware.get("gpus")
    return ", ".join([*parts, *map(str, gpus if isinstance(gpus, list) else [])])


def _packages(provenance: Provenance) -> str:
    versions = [f"{name} {version}" for name, version in sorted(provenance.packages.items())]
    return ", ".join([f"Python {provenance.python}", *versions] if provenance.python else versions)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
