"""Report: the results beside the paper's, as tables, figures and pages."""

from __future__ import annotations

from pipeline import stage
from pipeline.report import write_report


def run(at: stage.Stage) -> None:
    """Write results/<experiment>/ from what the earlier stages wrote."""
    write_report(at.experiment, at.params.report, list(at.params.runs), at.params.ensembles)


if __name__ == "__main__":
    stage.main("report", run, of_run=False)
