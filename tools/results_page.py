"""Write docs/RESULTS.md, where each committed figure comes from, and the figures in README.md's tables."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.hydra import compose_and_dump

from pipeline.config import Params, load_params, split_run
from pipeline.report import names
from tools.evidence import compose_command, evidence_dir, remake_command, runs_kept

ROOT = Path(__file__).parents[1]
Metrics = Mapping[str, Any]

PAGE = Path("docs/RESULTS.md")
README = Path("README.md")
README_PROTOCOLS = ("center_crop", "ten_crop", "multi_scale")
README_RUNS = {"cifar10": ("single_view",), "cifar10-jpeg": ("single_view",), "imagenette-small": README_PROTOCOLS}
"""Experiments whose runs have a table of their own in the README, and its protocols."""
WHERE_IT_LIES = ("data.url", "data.store")
"""Parameters that say where images lie on the machine at hand."""
ERRORS_HEAD = "| run | 1-crop | 10-crop | multi-scale |"
CLAIMS_HEAD = "| the paper's claim |"
CARD = [
    "run",
    "command",
    "commit",
    "seed",
    "iterations",
    "precision",
    "workers",
    "hardware",
    "training",
    "evaluation",
]
INTRODUCTION = """\
# Where each figure comes from

Made by `python -m tools.results_page` from the `metrics.json` of each experiment; not edited by hand. Errors are top-1,
in percent, of the last iteration's weights. Whole parameters, package versions and digests of data and weights are in
`metrics.json` under `provenance`, and on the report page. Figures of speed are in [performance.md](performance.md). An
experiment that has no section here has not been run.
"""


def main() -> int:
    """Write both from the results in the working tree."""
    found = {path.parent.name: json.loads(path.read_text("utf-8")) for path in ROOT.glob("results/*/metrics.json")}
    claims = (ROOT / "results/digits/tables/claims.csv").read_text("utf-8")
    readme = readme_with_figures((ROOT / README).read_text("utf-8"), found, claims)
    page = results_page(found)
    (ROOT / PAGE).write_text(page, encoding="utf-8")
    (ROOT / README).write_text(readme, encoding="utf-8")
    return 0


def readme_with_figures(readme: str, found: Mapping[str, Metrics], claims: str) -> str:
    """README with the figures of these experiments' metrics, and of digits' claims.csv, in its tables."""
    readme = with_rows(readme, ERRORS_HEAD, error_rows(found["digits"]))
    for experiment, protocols in README_RUNS.items():
        if experiment in found:
            runs, ensembles = run_rows(found[experiment], protocols), ensemble_rows(found[experiment], protocols)
            readme = with_rows(readme, f"| run, `{experiment}` |", runs, kept=ensembles)
    return with_rows(readme, CLAIMS_HEAD, claim_rows(claims))


def error_rows(metrics: Metrics) -> list[list[str]]:
    """README's rows of errors: a network or an ensemble's members, then top-1 errors by protocol."""
    rows = [_row(_label(run), errors, README_PROTOCOLS) for run, errors in metrics["runs"].items()]
    searches = yaml.safe_load((ROOT / "conf/experiment/digits.yaml").read_text("utf-8"))["ensemble_searches"]
    return [*rows, *ensemble_rows(metrics, README_PROTOCOLS, searches)]


def run_rows(metrics: Metrics, protocols: Sequence[str]) -> list[list[str]]:
    """README's rows of one experiment: a network and its seed, then top-1 errors by protocol."""
    return [_row(names.run_label(run), errors, protocols) for run, errors in metrics["runs"].items()]


def ensemble_rows(metrics: Metrics, protocols: Sequence[str], searches: Iterable[str] = ()) -> list[list[str]]:
    """README's rows of one experiment's ensembles: the members' networks, then top-1 errors by protocol."""
    chosen = dict.fromkeys(searches, ", as chosen on held-out images")
    return [
        _row(f"{' and '.join(map(_label, found['members']))}, averaged{chosen.get(name, '')}", found, protocols)
        for name, found in metrics["ensembles"].items()
    ]


def _row(name: str, errors: Metrics, protocols: Sequence[str]) -> list[str]:
    return [name, *(_error(errors, protocol) for protocol in protocols)]


def _label(run: str) -> str:
    return names.label(split_run(run)[0])


def claim_rows(claims: str) -> list[list[str]]:
    """README's rows of claims, from the text of claims.csv: a statement and its standing."""
    standings = {row["statement"]: row["claim_standing"] for row in csv.DictReader(claims.splitlines())}
    return [list(row) for row in standings.items()]


def with_rows(text: str, head: str, rows: list[list[str]], kept: Iterable[list[str]] = ()) -> str:
    """The text with other rows in the table whose head begins so; further cells of a row of the same name stay.

    Rows of `kept` follow where the table has one of that name already. ValueError where there is not one such table.
    """
    lines = text.splitlines()
    found = [number + 2 for number, line in enumerate(lines) if line.startswith(head)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tables begin with `{head}`: write one, of a head and the line below it")
    start = found[0]
    stop = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:stop]]
    old = {row[0]: row for row in cells}
    columns = lines[start - 2].count("|") - 1
    rows = [*rows, *(row for row in kept if row[0] in old)]
    for row in rows:
        row.extend(old.get(row[0], ["–"] * columns)[len(row) :])
    return "\n".join([*lines[:start], *(f"| {' | '.join(row)} |" for row in rows), *lines[stop:], ""])


def results_page(found: Mapping[str, Metrics]) -> str:
    """The page in Markdown, from the metrics of each experiment."""
    sections = [_experiment(name, found[name]) for name in sorted(found)]
    return "\n".join([INTRODUCTION, *sections])


def _experiment(experiment: str, metrics: Metrics) -> str:
    results, ensembles = f"../results/{experiment}", metrics["ensembles"]
    preset = _preset(experiment)
    chosen = _beside_the_preset(preset, metrics)
    left = [run for run in preset.runs if run not in metrics["provenance"]]
    remade = remake_command(experiment) if left else f"dvc repro report@{experiment}"
    return "\n".join(
        [
            f"## {experiment}\n",
            f"`{compose_command(experiment, chosen)}` composes `params.yaml` (with `-S data.url=…` where the images lie"
            " elsewhere); then all of it: `make reproduce`; a row alone: its command.",
            *(["Every `-S` but the first was chosen beside the preset."] if chosen else []),
            *([f"Of the preset's runs, not run: {', '.join(left)}."] if left else []),
            *([metrics["note"]] if metrics.get("note") else []),
            f"[Report]({results}/report.md), [tables]({results}/tables), [pictures]({results}/figures): `{remade}`.",
            *([f"Ensembles, from saved probabilities: `{names.ensemble_command(experiment)}`."] if ensembles else []),
            *evidence_lines(experiment, chosen),
            "",
            _errors({**metrics["runs"], **metrics["ensembles"]}),
            _provenance(experiment, metrics["provenance"]),
        ]
    )


def evidence_lines(experiment: str, chosen: Sequence[str], root: Path = ROOT) -> list[str]:
    """How to make report and ensembles anew without training, for an experiment whose evidence is kept."""
    if not runs_kept(experiment, root):
        return []
    return [
        f"Without training, from the [curves and probabilities](../{evidence_dir(experiment)}) that are kept here:"
        f" `python -m tools.evidence restore {experiment}`, then `{compose_command(experiment, chosen)}` and"
        f" `{remake_command(experiment)}`."
    ]


def _beside_the_preset(preset: Params, metrics: Metrics) -> list[str]:
    """What was chosen otherwise than in the experiment's file, as `-S` takes it."""
    runs: Metrics = metrics["provenance"]
    chosen = {choice: None for run, record in runs.items() for choice in _chosen(preset, run, record)}
    for name, found in metrics["ensembles"].items():
        if name not in {**preset.ensembles, **preset.ensemble_searches}:
            chosen[f"+ensembles.{name}=[{','.join(found['members'])}]"] = None
    return list(chosen)


def _preset(experiment: str) -> Params:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        compose_and_dump(file, str(ROOT / "conf"), None, "config", "", [f"experiment={experiment}"])
        return load_params(file)


def _chosen(preset: Params, run: str, record: Metrics) -> list[str]:
    """The parameters of a run that are not the preset's, as `-S` takes them."""
    sections = {"data": preset.data, "augmentation": preset.augmentation, "evaluation": preset.evaluation}
    declared = {name: section.model_dump(mode="json") for name, section in sections.items()}
    recorded = {**record["parameters"], "evaluation": record["evaluation"]["parameters"]}
    training, added = recorded["training"], []
    if run in preset.runs:
        declared["training"] = preset.training_of(run).model_dump(mode="json")
    else:
        usual = preset.training.model_dump(mode="json")
        own = {key: value for key, value in training.items() if value != usual.get(key)}
        added = [f"+runs.{run}={{training:{_as_override(own)}}}"]
    differing = _differing(declared, {name: recorded[name] for name in declared})
    return added + [choice for choice in differing if choice.partition("=")[0] not in WHERE_IT_LIES]


def _differing(declared: Metrics, recorded: Metrics, prefix: str = "") -> list[str]:
    """Where the recorded values are others, as `-S` takes them; a section that was null or empty before as a whole."""
    found: list[str] = []
    for key, value in recorded.items():
        before, name = declared.get(key), f"{prefix}{key}"
        if value and before and isinstance(value, dict) and isinstance(before, dict):
            found += _differing(before, value, f"{name}.")
        elif value != before:
            added = key not in declared or before == {}  # Hydra's struct takes no new key without the sign
            found.append(f"{'+' if added else ''}{name}={_as_override(value)}")
    return found


def _as_override(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_as_override(inner)}" for key, inner in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _errors(rows: Mapping[str, Metrics]) -> str:
    found = {protocol for row in rows.values() for protocol in row} - {"members", *names.WAYS}
    protocols = sorted(found, key=names.protocol_order)
    head = ["figure", *(_heading(protocol, rows) for protocol in protocols)]
    lines = [[name, *(_error(row, protocol) for protocol in protocols)] for name, row in rows.items()]
    return _table(head, lines, numeric_from=1)


def _heading(protocol: str, rows: Mapping[str, Metrics]) -> str:
    sizes = {row[protocol]["n_images"] for row in rows.values() if protocol in row}
    label = "held-out training images" if protocol == names.HOLDOUT else names.protocol_label(protocol)
    return f"{label} ({', '.join(map(str, sorted(sizes)))} images)"


def _error(row: Metrics, protocol: str) -> str:
    return f"{row[protocol]['top1_error']:.2f}" if protocol in row else "–"


def _provenance(experiment: str, provenance: Mapping[str, Metrics]) -> str:
    return _table(CARD, [_card(experiment, run, record) for run, record in provenance.items()], numeric_from=len(CARD))


def _card(experiment: str, run: str, record: Metrics) -> list[str]:
    return [
        run,
        f"`{names.evaluate_command(experiment, run)}`",
        _of_all_sittings(record, _commit),
        str(record["seed"]),
        f"{record['parameters']['training']['iterations']:,}",
        record["precision"],
        _of_all_sittings(record, lambda sitting: str(sitting["workers"])),
        _of_all_sittings(record, lambda sitting: _hardware(sitting["hardware"])),
        f"{record['wall_seconds']:.0f} s",
        f"{record['evaluation']['wall_seconds']:.0f} s",
    ]


def _of_all_sittings(record: Metrics, text: Callable[[Metrics], str]) -> str:
    """What differs between the sittings of a training, one after another."""
    found = [(text(sitting), sitting["from_iteration"]) for sitting in record.get("sittings") or []]
    changes = [each for before, each in zip([None, *found], found, strict=False) if not before or before[0] != each[0]]
    if len(changes) < 2:
        return text(record)
    return "; ".join(f"from iteration {start:,}: {told}" for told, start in changes)


def _commit(record: Metrics) -> str:
    return f"{(record['git_commit'] or 'not recorded')[:12]}{' and changes' if record['git_dirty'] else ''}"


def _hardware(hardware: Metrics) -> str:
    gpus = hardware["gpus"] or ["no GPU"]
    return ", ".join([f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB", *gpus])


def _table(head: list[str], lines: Iterable[list[str]], numeric_from: int) -> str:
    rule = ["---:" if column >= numeric_from else "---" for column in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *lines])


if __name__ == "__main__":
    raise SystemExit(main())
