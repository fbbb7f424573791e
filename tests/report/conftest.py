"""An experiment's records under a temporary root, and its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.report import write_report
from pipeline.schema import Report
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, build_digits


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A root to change at will."""
    build_digits(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def digits_report() -> Report:
    return Report(title="Digits", dataset="made-up digits", comparable=False, note="Not the paper's data.")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, digits_report: Report) -> Path:
    """A root with the report of all that is there; only to be read."""
    root = tmp_path_factory.mktemp("written")
    build_digits(root)
    assert write_report("digits", digits_report, DIGITS, DIGITS_ENSEMBLES, root) == []
    return root
