"""Which runs and ensembles the register stage takes of an experiment that was run in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import paths
from pipeline.models.saved import WEIGHTS
from pipeline.stage import Stage
from pipeline.storage import write_json
from stages.register import of_what_is_there
from tests.cluster.conftest import small_params


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage in a folder where nothing was trained."""
    monkeypatch.chdir(tmp_path)
    return Stage(small_params(), "digits", None, waited=False)


def add(run: str, *, weights: bool = True) -> None:
    write_json(paths.predictions_dir("digits", run) / paths.SUMMARY, {})
    paths.model_dir("digits", run).mkdir(parents=True)
    if weights:
        (paths.model_dir("digits", run) / WEIGHTS).touch()


def test_all_is_taken_where_all_is_there(at: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    add("resnet8-s0")
    add("plain8-s0")
    write_json(paths.ensembles_dir("digits") / "both.json", {})
    assert of_what_is_there(at).params == at.params
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("half_there", [False, True])
def test_a_run_without_weights_is_left_out_with_its_ensembles(
    at: Stage, capsys: pytest.CaptureFixture[str], half_there: bool
) -> None:
    add("resnet8-s0")
    if half_there:
        add("plain8-s0", weights=False)
    write_json(paths.ensembles_dir("digits") / "both.json", {})
    params = of_what_is_there(at).params
    assert (list(params.runs), dict(params.ensembles)) == (["resnet8-s0"], {})
    assert capsys.readouterr().err == "register: left out, as not trained and evaluated here: plain8-s0, both\n"


def test_nothing_to_register_is_said_at_once(at: Stage) -> None:
    with pytest.raises(ValueError, match="digits: no run was trained and evaluated here; run `dvc repro`"):
        of_what_is_there(at)
