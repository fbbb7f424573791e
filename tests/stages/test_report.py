"""The report stage where what it needs is gone: a page that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import paths
from pipeline.config import parse_params
from pipeline.stage import Stage
from stages import report
from tests.cluster.conftest import small_params
from tests.report.factory import DIGITS, DIGITS_ENSEMBLES, build_digits

pytestmark = pytest.mark.slow


def run() -> str:
    """The page in Markdown."""
    tree = small_params().model_dump(mode="json")
    tree |= {
        "runs": {name: {"training": {}} for name in DIGITS},
        "ensembles": DIGITS_ENSEMBLES,
        "ensemble_searches": {},
    }
    report.run(Stage(parse_params(tree), "digits", "", False))
    return (paths.results_dir("digits") / "report.md").read_text(encoding="utf-8")


def test_without_the_store_the_page_has_no_pictures_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_digits(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = run()
    said = "no pictures of 5 of its 5 most confident mistakes, as the store of images is missing or broken"
    assert f"{said}; run `dvc repro prepare@digits`" in text
    assert "Most confident mistakes" in text
    assert "<img" not in (paths.results_dir("digits") / "report.html").read_text(encoding="utf-8")
    assert said in capsys.readouterr().err


def test_with_nothing_there_at_all_there_is_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "0 of 4 runs have results." in run()
