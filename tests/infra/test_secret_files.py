"""Keys and token of the one-machine cluster: all of them, made once, for their owner alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import secret_files
from infra.secret_files import IDENTITIES, Secrets


def test_they_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    secrets.make()
    first = (secrets.token.read_text(), [secrets.keys(name) for name in IDENTITIES])
    secrets.make()
    assert (secrets.token.read_text(), [secrets.keys(name) for name in IDENTITIES]) == first
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    listed = json.loads((tmp_path / "s3.json").read_text())
    assert {one["credentials"][0]["accessKey"] for one in listed["identities"]} == {key.access_key for key in first[1]}


def test_killed_between_two_files_they_are_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = secret_files.write_private, [1]

    def killed(path: Path, text: str) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        write(path, text)

    monkeypatch.setattr(secret_files, "write_private", killed)
    with pytest.raises(KeyboardInterrupt):
        Secrets(tmp_path).make()
    monkeypatch.setattr(secret_files, "write_private", write)
    Secrets(tmp_path).make()
    assert {"ray-token", "secrets.json", "s3.json"} <= {path.name for path in tmp_path.iterdir()}
