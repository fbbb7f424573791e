"""Report: the results beside the paper's, as tables, figures and pages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

import numpy as np

from pipeline import paths, stage
from pipeline.data.store import Split, Store
from pipeline.report import write_report
from pipeline.tracking.ui import run_page


def run(at: stage.Stage) -> None:
    """Write results/<experiment>/ from what the earlier stages wrote."""
    image = _images(at.experiment, at.params.evaluation.split)
    ensembles = {**at.params.ensembles, **{name: [] for name in at.params.ensemble_searches}}
    problems = write_report(at.experiment, at.params.report, at.params.runs, ensembles, image=image, run_link=run_page)
    for problem in problems:
        print(f"report: {problem}", file=sys.stderr)


def _images(experiment: str, split: str) -> Callable[[str], np.ndarray]:
    """A split's images by their keys; the store is opened by the first, and a broken one is that one's error."""

    @cache
    def opened() -> tuple[Split, dict[str, int]]:
        found = Store.open(paths.data_dir(experiment)).split(split)
        return found, {key: position for position, key in enumerate(found.keys)}

    def image(key: str) -> np.ndarray:
        found, positions = opened()
        return found.image(positions[key])

    return image


if __name__ == "__main__":
    stage.main("report", run, of_run=False)
