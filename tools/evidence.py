"""Keep in git what an experiment's figures were made from, all but the weights, and put it back where it is gone.

A run's evidence is its curve and record of training and its probabilities for every test image, under
`results/<experiment>/evidence/<run>/`. From it, ensembles and report are made anew without the network, and the runs
of a long experiment can be trained one by one, each on a machine that keeps nothing of the others'.

    python -m tools.evidence keep cifar10-jpeg
    python -m tools.evidence restore cifar10-jpeg
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline import paths
from pipeline.report.reading import read_inputs
from pipeline.storage import atomic_directory

WEIGHTS = shutil.ignore_patterns("*.safetensors")


def main(arguments: list[str] | None = None) -> None:
    """Keep or restore, and say of which runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("keep", "restore"))
    parser.add_argument("experiment")
    chosen = parser.parse_args(arguments)
    if chosen.action == "keep":
        for run in keep(chosen.experiment):
            print(f"{run}: kept in {evidence_dir(chosen.experiment, run)}")
        return
    for run in restore(chosen.experiment):
        print(f"{run}: put back, but for the weights")
    stages = " ".join(f"{stage}@{chosen.experiment}" for stage in ("ensemble", "report"))
    print(f"to make its figures anew: dvc repro --single-item {stages} (without that option, its runs train again)")


def evidence_dir(experiment: str, run: str) -> Path:
    """Where a run's evidence is kept."""
    return paths.results_dir(experiment) / "evidence" / run


def keep(experiment: str, root: Path = Path(".")) -> list[str]:
    """Copy the evidence of all runs that lie under `root`; their names.

    ValueError, and nothing is kept, for one that the report would not show: half evaluated, or of other weights.
    """
    found = sorted(_names((root / paths.model_dir(experiment, "-")).parent))
    inputs = read_inputs(experiment, found, {}, root)
    if unfit := [run for run, result in inputs.runs.items() if result.state != "shown"]:
        raise ValueError(f"{', '.join(unfit)}: no evidence to keep: {'; '.join(inputs.problems) or 'not evaluated'}")
    for run in found:
        with atomic_directory(root / evidence_dir(experiment, run)) as folder:
            for name, source in _folders(experiment, run).items():
                shutil.copytree(root / source, folder / name, ignore=WEIGHTS)
    return found


def restore(experiment: str, root: Path = Path(".")) -> list[str]:
    """Put back the evidence of runs that have neither a model nor predictions under `root`; their names."""
    kept = sorted(_names((root / evidence_dir(experiment, "-")).parent))
    gone = [run for run in kept if not any((root / path).exists() for path in _folders(experiment, run).values())]
    for run in gone:
        for name, target in _folders(experiment, run).items():
            with atomic_directory(root / target) as folder:
                shutil.copytree(root / evidence_dir(experiment, run) / name, folder, dirs_exist_ok=True)
    return gone


def _folders(experiment: str, run: str) -> Mapping[str, Path]:
    """What is kept of a run: the name there, and where the stages write it."""
    return {"training": paths.model_dir(experiment, run), "predictions": paths.predictions_dir(experiment, run)}


def _names(folder: Path) -> Iterable[str]:
    """The runs that have a folder there; a name with a dot in front is of an interrupted copy."""
    return (path.name for path in folder.glob("[!.]*") if path.is_dir())


if __name__ == "__main__":
    main()
