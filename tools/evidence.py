"""Keep in git what an experiment's figures were made from, all but the weights, and put it back where it is gone.

A run's evidence is its curve, its records and its probabilities for every image that was evaluated, under
`results/<experiment>/evidence/<run>/`. From it ensembles and report are made anew without the network, and the runs of
a long experiment can be trained one by one, each on a machine that keeps nothing of the others'.

    python -m tools.evidence keep cifar10-jpeg
    python -m tools.evidence restore cifar10-jpeg
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline import paths
from pipeline.evaluation.metrics import errors
from pipeline.evaluation.predictions import Predictions
from pipeline.models.saved import CARD
from pipeline.report import names
from pipeline.report.inputs import RunResult
from pipeline.report.reading import read_inputs
from pipeline.storage import atomic_directory, read_json

TRAINING, PREDICTIONS = "training", "predictions"
"""The two folders of a run's evidence: what lies in its model folder, and in that of its predictions."""
LARGEST = 2**25
"""Bytes of a file beyond which git is no place for it: ImageNet's probabilities take 200 MB a protocol."""


def main(arguments: list[str] | None = None) -> int:
    """Keep or restore, and say of which runs; 1 where some could not be, 2 where there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("keep", "restore"))
    parser.add_argument("experiment")
    parser.add_argument("runs", nargs="*", metavar="run", help="these alone (otherwise all there are)")
    chosen = parser.parse_args(arguments)
    experiment, keeping = chosen.experiment, chosen.action == "keep"
    found = chosen.runs or (runs_here(experiment) if keeping else runs_kept(experiment))
    if not found:
        there = ", ".join(sorted(path.name for path in Path("results").glob("*/"))) or "none"
        where = f"under models/{experiment}" if keeping else f"in {evidence_dir(experiment)}"
        print(f"{experiment}: no runs {where}; experiments with results in this folder: {there}", file=sys.stderr)
        return 2
    unfit = 0
    for run in found:
        try:
            print(f"{run}: {keep(experiment, run) if keeping else restore(experiment, run)}")
        except (ValueError, OSError) as error:
            unfit += 1
            print(f"{run}: {'not kept' if keeping else 'not put back'}: {error}", file=sys.stderr)
    if unfit < len(found):
        print("\n".join(_next_steps(experiment, keeping)))
    return 1 if unfit else 0


def evidence_dir(experiment: str, run: str = "") -> Path:
    """Where a run's evidence is kept, or that of all runs."""
    return paths.results_dir(experiment) / "evidence" / run


def remake_command(experiment: str) -> str:
    """Ensembles and report made anew from what is there, where DVC would first train runs whose weights are not."""
    return f"dvc repro --single-item ensemble@{experiment} report@{experiment}"


def compose_command(experiment: str, chosen: Iterable[str] = ()) -> str:
    """The experiment's `params.yaml`, with what was chosen beside its preset, and its store of images."""
    options = [f"-S {shlex.quote(choice)}" for choice in (f"experiment={experiment}", *chosen)]
    return f"dvc exp run {' '.join(options)} prepare@{experiment}"


def runs_here(experiment: str, root: Path = Path(".")) -> list[str]:
    """The runs that training or evaluation left something of under `root`."""
    return sorted({run for folder in _folders(experiment, "").values() for run in _runs_in(root / folder)})


def runs_kept(experiment: str, root: Path = Path(".")) -> list[str]:
    """The runs of which there is evidence under `root`."""
    return sorted(_runs_in(root / evidence_dir(experiment)))


def keep(experiment: str, run: str, root: Path = Path(".")) -> str:
    """Copy a run's evidence from where the stages write; what was done, in words.

    ValueError where the report would not show the run, or its files are not whole or too large for git.
    """
    check(experiment, run, root)
    sources = _folders(experiment, run)
    for source in sources.values():
        for file in _files(root / source):
            if file.stat().st_size > LARGEST:
                raise ValueError(f"{file}: {file.stat().st_size:,} bytes are too many for git: use `dvc push`")
    with atomic_directory(root / evidence_dir(experiment, run)) as folder:
        for name, source in sources.items():
            _copy(root / source, folder / name)
    return f"kept in {evidence_dir(experiment, run)}"


def restore(experiment: str, run: str, root: Path = Path(".")) -> str:
    """Put a run's evidence back where it is gone; what was done, in words.

    What lies there already is left as it is. ValueError, and nothing is changed, where the evidence is damaged or of
    other figures than the committed `results/<experiment>/runs/<run>.json`.
    """
    targets = {name: root / folder for name, folder in _folders(experiment, run).items()}
    missing = {name: folder for name, folder in targets.items() if not folder.exists()}
    try:
        for name, folder in missing.items():
            with atomic_directory(folder) as partial:
                _copy(root / evidence_dir(experiment, run) / name, partial)
        check(experiment, run, root)
    except (ValueError, OSError):
        for folder in missing.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return f"{' and '.join(missing)} put back, without the weights" if missing else "is there, left as it is"


def check(experiment: str, run: str, root: Path = Path(".")) -> None:
    """ValueError unless all that the report needs of a run is there, whole, and of the same figures."""
    inputs = read_inputs(experiment, [run], {}, root)
    result = inputs.runs[run]
    problems = [problem.removeprefix(f"{run}: ") for problem in inputs.problems]
    if result.state == "not run":
        problems.append("neither trained nor evaluated here")
    if result.state == "shown":
        model, predictions = (root / folder for folder in _folders(experiment, run).values())
        problems += _other_names(run, model, predictions) + _other_figures(result, predictions)
    if problems:
        raise ValueError("; ".join(problems))


def _other_names(run: str, model: Path, predictions: Path) -> list[str]:
    """Records of another run, as in a folder that was renamed, and a missing card."""
    records = {paths.RECORD: model, paths.SUMMARY: predictions}
    found = {name: read_json(folder / name).get("run", run) for name, folder in records.items()}
    problems = [f"{name} is of {other}" for name, other in found.items() if other != run]
    return problems if (model / CARD).is_file() else [*problems, f"{model / CARD} is missing"]


def _other_figures(result: RunResult, predictions: Path) -> list[str]:
    """Protocols whose saved probabilities don't give the errors that are told of them."""
    problems = []
    for protocol, told in result.errors.items():
        file = predictions / f"{protocol}.npz"
        try:
            saved = Predictions.load(file)
        except ValueError as error:
            problems.append(str(error))
            continue
        if errors(saved.probabilities, saved.labels)["top1_error"] != told.top1_error:
            problems.append(f"{file} does not give the top-1 error of {told.top1_error}% that is told of it")
    return problems


def _folders(experiment: str, run: str) -> dict[str, Path]:
    """By their names in the evidence, the folders where the stages write."""
    return {TRAINING: paths.model_dir(experiment, run), PREDICTIONS: paths.predictions_dir(experiment, run)}


def _runs_in(folder: Path) -> Iterable[str]:
    return (path.name for path in folder.glob("*/") if names.is_run(path.name))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file() and path.suffix != ".safetensors")


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise ValueError(f"{source} is missing")
    target.mkdir(exist_ok=True)
    for file in _files(source):
        shutil.copyfile(file, target / file.name)


def _next_steps(experiment: str, keeping: bool) -> list[str]:
    """What to do now, as a shell takes it."""
    if keeping:
        folder = paths.results_dir(experiment)
        return [f"to publish them: git add {folder} dvc.lock"]
    return [
        "to make their figures anew, without the weights:",
        f"  {compose_command(experiment)}    # docs/RESULTS.md has it with what was chosen beside the preset",
        f"  {remake_command(experiment)}",
        "(without --single-item DVC trains those runs again)",
    ]


if __name__ == "__main__":
    sys.exit(main())
