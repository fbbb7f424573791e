"""`python -m stages.register promote|rollback|history|check|export`."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.tracking import commands, store
from tests.tracking.test_promotion import NAME, client  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_promote_history_rollback_and_refusals(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert commands.main(["promote", NAME, "1", "--why", "steadier", "--who", "ada"]) == 0
    assert f"{NAME}@best: 2 -> 1  ada: steadier" in capsys.readouterr().out
    assert commands.main(["promote", NAME, "3", "--why", "hope"]) == 2
    assert "register promote: digits-resnet8: version 3 errs on 20.00%" in capsys.readouterr().err
    assert commands.main(["promote", NAME, "3", "--why", "hope", "--force", "--alias", "shown"]) == 0
    assert commands.main(["rollback", NAME, "--why", "no", "--who", "bob"]) == 0
    capsys.readouterr()
    assert commands.main(["history", NAME]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("by bob: no")
    assert f"{NAME}@shown: none -> 3" in second
    assert commands.main(["rollback", NAME, "--why", "no"]) == 2
    with pytest.raises(SystemExit, match="2"):
        commands.main(["promote", NAME, "1"])


def test_check_says_what_is_broken(
    client: MlflowClient,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert commands.main(["check", "cifar10"]) == 0
    store.client().delete_run(str(client.get_model_version(NAME, "2").run_id))
    assert commands.main(["check", "digits"]) == 1
    out = capsys.readouterr().out
    assert f"{NAME} version 2: its run" in out
    record = tmp_path / "results" / "digits" / "registry.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"digits-other": {"version": "1", "weights_sha256": "x", "aliases": []}}')
    assert commands.main(["check"]) == 1
    assert "digits-other version 1: not there with the weights" in capsys.readouterr().out


def test_check_of_an_experiment_leaves_those_alone_whose_names_begin_with_its_name(
    client: MlflowClient,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.create_registered_model("digits-small-resnet8", tags={"experiment": "digits-small"})
    for experiment in ("digits", "digits-small"):
        record = tmp_path / "results" / experiment / "registry.json"
        record.parent.mkdir(parents=True)
        record.write_text(f'{{"{experiment}-other": {{"version": "1", "weights_sha256": "x", "aliases": []}}}}')
    assert commands.main(["check", "digits-small"]) == 1
    ended = capsys.readouterr()
    assert ended.err == "1 registered models, 1 problems\n"
    assert "digits-small-other version 1" in ended.out
    assert commands.main(["check", "digits"]) == 1
    ended = capsys.readouterr()
    assert ended.err.startswith("1 registered models, ")
    assert "digits-other version 1" in ended.out
    assert "digits-small" not in ended.out


def test_a_server_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert commands.main(["check"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("register check: MLflow at http://127.0.0.1:9: ")
    assert message.count("\n") == 1
