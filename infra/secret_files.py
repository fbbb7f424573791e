"""Files that their owner alone may read: the one-machine cluster's keys and token, made once."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from infra import parts

IDENTITIES = ("admin", "project", "mlflow")


class Secrets:
    """S3 keys of each identity and Ray's token, in the cluster's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.token = folder / "ray-token"

    def keys(self, name: str) -> parts.Keys:
        """An identity's keys."""
        return parts.Keys(**json.loads((self._folder / "secrets.json").read_text(encoding="utf-8"))[name])

    def make(self) -> None:
        """Make what is not there yet, and the S3 server's list of identities from it."""
        path = self._folder / "secrets.json"
        if not path.exists():
            made = {
                name: {"access_key": f"{name}-{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(32)}
                for name in IDENTITIES
            }
            write_private(self.token, secrets.token_hex(32))
            write_private(path, parts.as_json(made))  # last: where it is there, so is the token
        write_private(self._folder / "s3.json", parts.as_json(parts.s3_identities(*map(self.keys, IDENTITIES))))


def write_private(path: Path, text: str) -> None:
    """Put a file in place whole, with mode 0600."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
