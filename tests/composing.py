"""Parameters composed from the presets, as `dvc exp run -S` does."""

from __future__ import annotations

from pathlib import Path

from dvc.utils.hydra import compose_and_dump

CONF = Path(__file__).parents[1] / "conf"


def compose(file: Path, overrides: list[str], conf: Path = CONF) -> Path:
    """Write the parameters of these choices; `file`."""
    compose_and_dump(file, str(conf), None, "config", "", overrides)
    return file
