"""Tests of pipeline.data.progress."""

from __future__ import annotations

import pytest

from pipeline.data import progress


def test_results_pass_unchanged_and_lines_say_how_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    assert list(progress.shown(iter("abc"), [10, 20, 30], "images stored")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[-1] == "images stored: 60 of 60"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(progress.shown(iter("ab"), [1, 1], "images stored")) == ["a", "b"]
    assert "2/2" in capsys.readouterr().err
