"""The report: the paper's tables and figures beside ours, with verdicts, intervals and provenance."""

from pipeline.report.published_errors import Standing, ensemble_standing, standings
from pipeline.report.summary import print_summary
from pipeline.report.write import write_report

__all__ = ["Standing", "ensemble_standing", "print_summary", "standings", "write_report"]
