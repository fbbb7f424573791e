"""The report's fixtures: an experiment's records under a temporary root."""

from tests.report.conftest import digits, digits_report

__all__ = ["digits", "digits_report"]
