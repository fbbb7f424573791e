"""Report: the results beside the paper's, as tables, figures and pages."""

from __future__ import annotations

import sys

import numpy as np

from pipeline import paths, stage
from pipeline.data.store import Store
from pipeline.report import write_report


def run(at: stage.Stage) -> None:
    """Write results/<experiment>/ from what the earlier stages wrote."""
    split = Store.open(paths.data_dir(at.experiment)).split(at.params.evaluation.split)
    position = {key: i for i, key in enumerate(split.keys)}

    def image(key: str) -> np.ndarray:
        return split.image(position[key])

    ensembles = {**at.params.ensembles, **{name: [] for name in at.params.ensemble_searches}}
    problems = write_report(at.experiment, at.params.report, at.params.runs, ensembles, image=image)
    for problem in problems:
        print(f"report: {problem}", file=sys.stderr)


if __name__ == "__main__":
    stage.main("report", run, of_run=False)
