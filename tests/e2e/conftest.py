"""The small experiment reproduced once, for all tests that look at its results."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.e2e.clone import Clone


@dataclass(frozen=True)
class Reproduced:
    """A clone in which the experiment was reproduced, and what the launcher printed."""

    clone: Clone
    output: str


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    """One stage after another, on this machine alone; a test that changes the clone puts it back."""
    clone = Clone(tmp_path_factory.mktemp("reproduced"))
    return Reproduced(clone, clone.run("infra.reproduce").stdout)
